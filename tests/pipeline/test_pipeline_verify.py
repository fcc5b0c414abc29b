"""A bundle is verified: every hash, and what its engine computes."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from sample_bundle import expected, fill_bundle, images, sample_bundle, sample_manifest

from edgeopt.bundle.layout import REFERENCE_INPUTS, REFERENCE_OUTPUTS, write_reference
from edgeopt.bundle.tolerance import TOLERANCES
from edgeopt.bundle.write import write_bundle
from edgeopt.core.errors import BackendError, BundleError, DataError
from edgeopt.pipeline.verify import verify_bundle


class Backend:
    """ONNX Runtime, with an error that can be added to what it computes."""

    def __init__(self):
        self.loaded, self.shift, self.missing = 0, 0.0, False

    def load(self, engine, threads):
        if self.missing:
            raise BackendError("ONNX Runtime is not installed.", fix="pip install 'edgeopt[onnxruntime]'")
        self.loaded += 1
        self.session = onnxruntime.InferenceSession(str(engine.path), providers=["CPUExecutionProvider"])
        return self

    def infer(self, inputs):
        return {"logits": self.session.run(["logits"], dict(inputs))[0] + np.float32(self.shift)}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def backend(monkeypatch):
    backend = Backend()
    module = ModuleType("edgeopt.backends.registry")
    module.BACKENDS = {"onnxruntime": backend}
    monkeypatch.setitem(sys.modules, "edgeopt.backends.registry", module)
    return backend


def with_references(destination, inputs, outputs, **changes):
    """A bundle whose reference samples are these."""

    def fill(folder):
        fill_bundle(folder)
        write_reference(folder, inputs, outputs)

    return write_bundle(destination, fill, lambda _: sample_manifest(**changes))


@pytest.mark.parametrize("batch", [None, 3])
def test_a_good_bundle_is_verified_whole(tmp_path, backend, batch):
    result = verify_bundle(sample_bundle(tmp_path / "linear", batch))
    assert result.ok
    assert result.files_ok
    assert result.problems == ()
    assert result.files == 8
    assert (result.outputs, result.outputs_ok, result.samples) == ("compared", True, 8)
    assert result.max_abs < 2e-5
    assert result.rows[0].changed_argmax == 0
    assert "1e-4" in result.tolerance


@pytest.mark.parametrize("precision", sorted(TOLERANCES))
@pytest.mark.parametrize("within", [True, False])
def test_outputs_may_differ_by_the_stated_share_of_their_range_and_no_more(tmp_path, backend, precision, within):
    reference = expected(images(8))
    share = TOLERANCES[precision][0]
    extent = max(reference.max() - reference.min(), np.abs(reference).max())
    backend.shift = share * extent * (0.9 if within else 1.1)
    result = verify_bundle(sample_bundle(tmp_path / "linear", precision=precision))
    assert result.outputs_ok is within
    assert result.ok is within
    assert result.max_abs == pytest.approx(backend.shift, abs=2e-5)
    assert result.rows[0].allowed == pytest.approx(share * extent, rel=1e-5)


def test_a_nan_in_the_outputs_is_no_match(tmp_path, backend):
    backend.shift = np.nan
    result = verify_bundle(sample_bundle(tmp_path / "linear"))
    assert result.outputs_ok is False
    assert np.isnan(result.max_abs)


def test_a_changed_report_is_a_problem_and_the_engine_is_still_compared(tmp_path, backend):
    path = sample_bundle(tmp_path / "linear")
    (path / "report.json").write_text("{}")
    result = verify_bundle(path)
    assert not result.ok
    assert [problem.path for problem in result.problems] == ["report.json"]
    assert result.outputs == "compared"


@pytest.mark.parametrize("name", ["engine/model.onnx", REFERENCE_INPUTS, REFERENCE_OUTPUTS])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_an_engine_is_not_run_when_it_or_its_references_are_not_as_written(tmp_path, backend, name, how):
    path = sample_bundle(tmp_path / "linear")
    (path / name).write_bytes(b"other") if how == "changed" else (path / name).unlink()
    result = verify_bundle(path)
    assert not result.ok
    assert [(problem.path, problem.kind) for problem in result.problems] == [(name, how)]
    assert result.outputs == "not_run"
    assert result.outputs_ok is None
    assert result.max_abs is None
    assert name in result.reason
    assert backend.loaded == 0


def test_an_engine_that_is_not_built_is_not_run_and_says_what_would_build_it(tmp_path, backend):
    path = sample_bundle(
        tmp_path / "linear",
        engine={"status": "not_built", "entry": "model.plan", "next_command": "python build_engine.py"},
    )
    result = verify_bundle(path)
    assert result.ok
    assert result.outputs == "not_run"
    assert result.reason == "the engine is not built; on its device, in the bundle: cd engine && python build_engine.py"


def test_a_missing_runtime_leaves_the_hashes_checked(tmp_path, backend):
    backend.missing = True
    result = verify_bundle(sample_bundle(tmp_path / "linear"))
    assert result.files_ok
    assert result.outputs == "not_run"
    assert "not installed" in result.reason


def test_a_precision_without_a_tolerance_is_not_judged(tmp_path, backend):
    result = verify_bundle(sample_bundle(tmp_path / "linear", precision="int4"))
    assert result.outputs == "not_run"
    assert "no tolerance" in result.reason


def test_a_bundle_without_references_is_not_judged(tmp_path, backend):
    def fill(folder):
        fill_bundle(folder)
        (folder / REFERENCE_INPUTS).unlink()

    result = verify_bundle(write_bundle(tmp_path / "linear", fill, lambda _: sample_manifest()))
    assert result.outputs == "not_run"
    assert result.reason == "the bundle holds no reference samples"


def test_references_of_another_model_are_an_error(tmp_path, backend):
    x = images(4)
    path = with_references(tmp_path / "linear", {"x": x}, {"other": np.zeros((4, 3), np.float32)})
    with pytest.raises(BundleError, match=r"not of the form of the reference outputs.*logits.*other"):
        verify_bundle(path)


def test_reference_inputs_that_break_the_contract_are_an_error(tmp_path, backend):
    x = images(4).astype(np.float64)
    path = with_references(tmp_path / "linear", {"x": x}, {"logits": np.zeros((4, 3), np.float32)})
    with pytest.raises(DataError, match="must be float32"):
        verify_bundle(path)


def test_predictions_that_changed_are_counted(tmp_path, backend):
    x = images(4)
    wanted = expected(x).astype(np.float32)
    wanted[1] = wanted[1, ::-1] if wanted[1].argmax() != 1 else wanted[1, [1, 0, 2]]
    result = verify_bundle(with_references(tmp_path / "linear", {"x": x}, {"logits": wanted}))
    assert result.rows[0].changed_argmax == 1
    assert not result.ok
