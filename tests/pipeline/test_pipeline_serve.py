"""A bundle runs from Python: right answers for right questions, one clear error for wrong ones."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from sample_bundle import CLASSES, expected, images, sample_bundle

from edgeopt.bundle.manifest import EngineRecord
from edgeopt.core.errors import BackendError, BundleError, DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.pipeline.serve import load, run_in_batches


class OnnxRuntimeRunner:
    """ONNX Runtime with nothing around it; remembers the batches it was given."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.batches, self.closed = [], False

    def infer(self, inputs):
        self.batches.append(len(next(iter(inputs.values()))))
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True


class OnnxRuntimeBackend:
    def __init__(self):
        self.runners, self.threads = [], []

    def load(self, engine, threads):
        self.threads.append(threads)
        self.runners.append(OnnxRuntimeRunner(engine.path))
        return self.runners[-1]


@pytest.fixture
def backend(monkeypatch):
    """The registry with one backend of ours: what is tested here is the road to it."""
    backend = OnnxRuntimeBackend()
    module = ModuleType("edgeopt.backends.registry")
    module.BACKENDS = {"onnxruntime": backend}
    monkeypatch.setitem(sys.modules, "edgeopt.backends.registry", module)
    return backend


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_predictions_are_the_models_whatever_the_engines_batch(tmp_path, backend, batch, count):
    x = images(count, seed=count)
    with load(sample_bundle(tmp_path / "linear", batch)) as bundle:
        y = bundle.predict(x)
    assert y.shape == (count, CLASSES)
    # Float32 sums of 48 products of values up to 3: about 48 * 3 * 2^-24.
    np.testing.assert_allclose(y, expected(x), atol=2e-5)


def test_a_static_engine_only_ever_sees_its_own_batch(tmp_path, backend):
    with load(sample_bundle(tmp_path / "linear", 4)) as bundle:
        bundle.predict(images(9))
        bundle.predict(images(4))
    assert backend.runners[0].batches == [4, 4, 4, 4]


def test_a_dynamic_engine_sees_the_callers_batch(tmp_path, backend):
    with load(sample_bundle(tmp_path / "linear")) as bundle:
        bundle.predict(images(9))
    assert backend.runners[0].batches == [9]


def test_the_class_names_are_the_contracts(tmp_path, backend):
    assert load(sample_bundle(tmp_path / "linear")).classes == ("cat", "dog", "owl")


def test_a_dict_is_taken_for_a_single_input_too(tmp_path, backend):
    bundle = load(sample_bundle(tmp_path / "linear"))
    np.testing.assert_array_equal(bundle.predict({"x": images(2)}), bundle.predict(images(2)))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (images(2).transpose(0, 2, 3, 1), r"looks like NHWC"),
        (images(2).astype(np.float64), r"must be float32"),
        (np.full_like(images(2), np.nan), r"not finite"),
        (images(2)[0], r"batch dimension is missing"),
    ],
)
def test_a_wrong_input_never_reaches_the_runtime(tmp_path, backend, x, match):
    bundle = load(sample_bundle(tmp_path / "linear", 1))
    with pytest.raises(DataError, match=match):
        bundle.predict(x)
    assert backend.runners[0].batches == []


def test_threads_are_passed_to_the_backend(tmp_path, backend):
    path = sample_bundle(tmp_path / "linear")
    load(path).close()
    load(path, threads=2).close()
    assert backend.threads == [None, 2]


def test_a_closed_bundle_frees_its_runner_and_says_that_it_is_closed(tmp_path, backend):
    with load(sample_bundle(tmp_path / "linear")) as bundle:
        assert not backend.runners[0].closed
    assert backend.runners[0].closed
    bundle.close()
    with pytest.raises(BundleError, match=r"was closed.*Load it again"):
        bundle.predict(images(1))


def test_an_engine_that_is_not_built_gives_the_command_that_builds_it(tmp_path, backend):
    path = sample_bundle(
        tmp_path / "linear",
        engine={"status": "not_built", "entry": "model.plan", "next_command": "python build_engine.py"},
    )
    with pytest.raises(BundleError, match=r"not built.*Run on the device: python build_engine\.py"):
        load(path)
    assert backend.runners == []


def test_an_engine_that_was_changed_is_not_opened(tmp_path, backend):
    path = sample_bundle(tmp_path / "linear")
    (path / "engine" / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"not the one that was measured.*engine/model\.onnx"):
        load(path)
    assert backend.runners == []


def test_a_file_added_beside_the_engine_is_not_tolerated(tmp_path, backend):
    path = sample_bundle(tmp_path / "linear")
    (path / "engine" / "plugin.so").write_bytes(b"")
    with pytest.raises(BundleError, match=r"engine/plugin\.so: the manifest does not list"):
        load(path)


def test_a_changed_report_does_not_keep_the_engine_from_running(tmp_path, backend):
    path = sample_bundle(tmp_path / "linear")
    (path / "report.json").write_text("{}")
    assert load(path).predict(images(1)).shape == (1, CLASSES)


def test_a_missing_runtime_speaks_for_itself(tmp_path, backend, monkeypatch):
    def missing(engine, threads):
        raise BackendError("ONNX Runtime is not installed.")

    monkeypatch.setattr(backend, "load", missing)
    with pytest.raises(BackendError, match="not installed"):
        load(sample_bundle(tmp_path / "linear"))


def test_several_outputs_come_back_by_name_and_are_split_alike(tmp_path):
    class Runner:
        def infer(self, inputs):
            return {"double": inputs["x"] * 2, "first": inputs["x"][:, 0]}

    spec = TensorSpec(name="x", dtype="float32", shape=(2, 3))
    outputs = (spec, TensorSpec(name="first", dtype="float32", shape=(2,)))
    record = EngineRecord(entry="e", status="built", inputs=(spec,), outputs=outputs)
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    got = run_in_batches(Runner(), record, {"x": x})
    np.testing.assert_array_equal(got["double"], x * 2)
    np.testing.assert_array_equal(got["first"], x[:, 0])


def test_an_output_that_is_not_per_sample_is_never_cut(tmp_path):
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 3))
    record = EngineRecord(
        entry="e", status="built", inputs=(spec,), outputs=(TensorSpec(name="mean", dtype="float32", shape=(3,)),)
    )
    with pytest.raises(BundleError, match=r"takes 2 samples at a time.*5 samples; output mean.*exactly 2"):
        run_in_batches(None, record, {"x": np.zeros((5, 3), np.float32)})


def test_threads_take_turns_and_each_gets_its_own_answer(tmp_path, backend):
    bundle = load(sample_bundle(tmp_path / "linear", 2))
    wrong = []

    def work(seed: int) -> None:
        x = images(5, seed)
        errors = [np.abs(bundle.predict(x) - expected(x)).max() for _ in range(20)]
        wrong.extend(error for error in errors if error > 2e-5)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_bundle_runs_on_the_registered_backend(tmp_path):
    pytest.importorskip("edgeopt.backends.registry")
    x = images(3)
    with load(sample_bundle(tmp_path / "linear", 2), threads=1) as bundle:
        np.testing.assert_allclose(bundle.predict(x), expected(x), atol=2e-5)


def test_reading_the_serving_module_imports_no_runtime_and_no_torch():
    import subprocess

    script = "import sys, edgeopt.pipeline.serve; print([m for m in ('torch', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
