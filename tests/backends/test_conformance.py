"""What every registered backend must hold to, run over all of them with their real runtimes."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, half_net, make_rules, make_target, quantized_net, two_input_net
from onnx.reference import ReferenceEvaluator

from edgeopt.agent.runners import open_runner
from edgeopt.agent.runners.contract import RunnerError
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.tensorrt_folder import FOLDER_FILES
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BackendError

NETS = {"float": conv_net, "quantized": quantized_net, "two-inputs": two_input_net, "half": half_net}
# Float: summation order. Quantized: a value on a rounding edge may fall to the other side, one hidden step (0.03)
# times the largest weight (63 × 0.003) for each; a wrong zero point or scale is off by whole units. Half: products of
# six values up to about 6 with 11 bits, or the same in float where the CPU has no float16.
TOLERANCE = {"float": 1e-4, "quantized": 0.03, "two-inputs": 1e-5, "half": 0.02}


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    made = BACKENDS[request.param]
    # The portable TensorRT folder is made without any runtime.
    if made.available().version is None and request.param != "tensorrt":
        pytest.skip(f"{request.param} is not installed: {made.available().how_to_get}")
    return made


@pytest.fixture
def compile_net(backend, save, empty):
    """Compile anew."""

    def run(net, *, batch=1, folder="engine", **changes) -> Engine:
        graph = save(net, f"{folder}.onnx")
        return backend.compile(graph, make_target(), make_rules(backend.name, **changes), empty(folder), batch)

    return run


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Engines already made by this module, by what they were made from."""
    return {}, tmp_path_factory.mktemp("engines")


@pytest.fixture
def runnable(backend, compiled, tmp_path):
    """A copy of an engine of its own; skips where only the device can build or run it."""
    made, root = compiled

    def run(net, *, batch=1) -> Engine:
        if backend.name == "qnn" and any(node.op_type == "Gather" for node in net.graph.node):
            pytest.skip("QNN's compiler runs out of memory on this net's Gather of a one-dimensional input")
        if backend.name == "tensorrt":
            pytest.skip("a TensorRT engine runs on the NVIDIA GPU that it was built for; there is none here")
        if backend.name == "coreml":
            pytest.skip("a Core ML package is compiled and run by macOS and iOS only")
        graph = onnx.helper.printable_graph(net.graph) + str(net.graph.input)
        key = hashlib.sha256(f"{backend.name}{batch}{graph}".encode()).hexdigest()
        if key not in made:
            folder = root / key
            folder.mkdir()
            onnx.save(net, root / f"{key}.onnx")
            rules = make_rules(backend.name)
            made[key] = backend.compile(root / f"{key}.onnx", make_target(), rules, folder, batch)
        own = tmp_path / "own"
        shutil.copytree(made[key].directory, own)
        return dataclasses.replace(made[key], directory=own)

    return run


def net_for(backend, net, batch):
    """Signed activations are QNN003: its own dialect writes them as uint8."""
    unsigned = backend.name == "qnn" and net is quantized_net
    return net(batch, dtype="uint8") if unsigned else net(batch)


def samples(net, count, seed=5):
    rng = np.random.default_rng(seed)
    made = {}
    for value in net.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = (count, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]))
        made[value.name] = rng.integers(0, 7, shape).astype(kind) if kind.kind == "i" else rng.normal(size=shape)
        made[value.name] = made[value.name].astype(kind)
    return made


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_outputs_equal_the_reference_evaluator(backend, runnable, net, batch):
    model = net_for(backend, NETS[net], batch)
    count = batch if isinstance(batch, int) else 3
    engine = runnable(model, batch=count)
    inputs = samples(model, count)
    expected = dict(zip((o.name for o in model.graph.output), ReferenceEvaluator(model).run(None, inputs), strict=True))
    with backend.load(engine, 1) as runner:
        actual = runner.infer(inputs)
    assert list(actual) == list(expected)
    for name, want in expected.items():
        assert actual[name].dtype == want.dtype
        assert actual[name].shape == want.shape
        np.testing.assert_allclose(actual[name], want, atol=TOLERANCE[net], rtol=0)


def test_the_engine_states_the_inputs_and_outputs_that_the_runner_has(backend, runnable):
    engine = runnable(two_input_net())
    with backend.load(engine, 1) as runner:
        assert {s.name: (s.dtype, list(s.shape)) for s in engine.inputs} == runner.inputs
        assert {s.name: (s.dtype, list(s.shape)) for s in engine.outputs} == runner.outputs
        assert [s.name for s in engine.outputs] == ["sum", "echo"]
        assert engine.runtime_version.startswith(runner.version)
        assert runner.fallbacks == []


def test_a_dynamic_batch_runs_at_another_size_after_resize(backend, runnable):
    if backend.name == "qnn":
        pytest.skip("a context binary has one batch")
    model = quantized_net("batch")
    engine = runnable(model, batch=1)
    with backend.load(engine, 1) as runner:
        for count in (1, 5, 2):
            runner.resize(count)
            inputs = samples(model, count)
            expected = ReferenceEvaluator(model).run(None, inputs)[0]
            np.testing.assert_allclose(runner.infer(inputs)["logits"], expected, atol=TOLERANCE["quantized"], rtol=0)


def test_a_fixed_batch_refuses_another_size(backend, runnable):
    engine = runnable(conv_net(2), batch=1)
    with backend.load(engine, 1) as runner:
        runner.resize(2)
        with pytest.raises(BackendError, match="fixed batch"):
            runner.resize(3)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_change_the_speed_only(backend, runnable, threads):
    model = conv_net()
    engine = runnable(model)
    inputs = samples(model, 1)
    with backend.load(engine, threads) as runner:
        expected = ReferenceEvaluator(model).run(None, inputs)[0]
        np.testing.assert_allclose(runner.infer(inputs)["logits"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"picture": x["image"]}, "takes the inputs 'image'; received 'picture'"),
        (lambda x: {}, "takes the inputs 'image'; received none"),
        (lambda x: {"image": x["image"].astype("float64")}, "'image' is float32; received float64"),
        (lambda x: {"image": x["image"][:, :, :5]}, r"'image' has shape \[.*,3,6,6\]; received \[1,3,5,6\]"),
        (lambda x: {"image": x["image"][0]}, r"'image' has shape .*; received \[3,6,6\]"),
        (lambda x: {"image": x["image"].tolist()}, "'image' must be a NumPy array; received list"),
    ],
)
def test_a_wrong_input_is_one_clear_error(backend, runnable, change, message):
    model = conv_net()
    with backend.load(runnable(model), 1) as runner, pytest.raises(BackendError, match=message):
        runner.infer(change(samples(model, 1)))


def test_inputs_need_not_be_contiguous_and_are_left_as_they_are(backend, runnable):
    model = conv_net()
    image = np.asfortranarray(samples(model, 1)["image"])
    before = image.copy()
    with backend.load(runnable(model), 1) as runner:
        first = runner.infer({"image": image})["logits"]
        kept = first.copy()
        runner.infer({"image": np.ascontiguousarray(-image)})
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, kept)  # a result is the caller's own, not a view of the next one
    np.testing.assert_allclose(kept, ReferenceEvaluator(model).run(None, {"image": before})[0], atol=1e-4, rtol=0)


def test_a_call_bound_to_inputs_runs_again_and_leaves_other_inferences_alone(backend, runnable):
    model = conv_net()
    given = samples(model, 1)
    other = {"image": -given["image"]}
    engine = runnable(model)
    with open_runner(engine.runtime, engine.path, engine.options, 1) as runner:
        if not hasattr(runner, "bound"):
            pytest.skip(f"the runner of {backend.name} binds nothing: it is timed through infer")
        first = runner.infer(given)["logits"]
        call = runner.bound(given)
        for _ in range(3):
            call()
        np.testing.assert_array_equal(runner.infer(given)["logits"], first)
        second = runner.infer(other)["logits"]
        call()
        np.testing.assert_array_equal(runner.infer(other)["logits"], second)
        assert not np.array_equal(first, second)
        with pytest.raises(RunnerError, match="'image' is float32; received float64"):
            runner.bound({"image": given["image"].astype("float64")})


def test_a_closed_runner_says_so(backend, runnable):
    model = conv_net()
    with backend.load(runnable(model), 1) as runner:
        pass
    with pytest.raises(BackendError, match="closed"):
        runner.infer(samples(model, 1))


def test_a_truncated_engine_is_refused(backend, runnable):
    engine = runnable(conv_net())
    data = engine.path.read_bytes()
    engine.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BackendError, match=engine.entry):
        backend.load(engine, 1)


def test_a_missing_engine_is_refused(backend, runnable):
    engine = runnable(conv_net())
    engine.path.unlink()
    with pytest.raises(BackendError, match=engine.entry):
        backend.load(engine, 1)


def test_two_compiles_give_the_same_bytes(backend, compile_net):
    if backend.name == "qnn":
        pytest.skip("QNN names its pieces anew in each run, in the graph and in the binary")
    one = compile_net(quantized_net(), folder="one")
    two = compile_net(quantized_net(), folder="another-name")
    files = sorted(p.relative_to(one.directory) for p in one.directory.rglob("*"))
    assert files == sorted(p.relative_to(two.directory) for p in two.directory.rglob("*"))
    for file in (path for path in files if (one.directory / path).is_file()):
        assert (one.directory / file).read_bytes() == (two.directory / file).read_bytes(), file


FILES = {
    "coreml": {"model.mlpackage", "coreml.json", "verify_coreml.py"},
    "executorch": {"model.pte"},
    "litert": {"model.tflite"},
    "onnxruntime": {"model.onnx"},
    "openvino": {"model.xml", "model.bin"},
    "ort-mobile": {"model.ort", "required_operators.config", "mobile_usability.txt"},
    "qnn": {"model.onnx", "model_qnn.bin"},
    "tensorrt": {"model.onnx", "build.json", "trtexec.sh", *(file.name for file in FOLDER_FILES)},
}


def test_the_folder_holds_the_engine_and_nothing_else(backend, compile_net):
    engine = compile_net(conv_net())
    assert {p.name for p in engine.directory.iterdir()} == FILES[backend.name]
    assert engine.runtime == backend.name
    assert (engine.status == "built") == engine.path.is_file()
    assert (engine.status == "built") == (engine.next_command is None)


def test_no_machine_path_is_written_into_the_engine(backend, compile_net, tmp_path):
    engine = compile_net(conv_net())
    for file in (path for path in engine.directory.rglob("*") if path.is_file()):
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_a_quantized_net_reports_what_runs_in_int8(backend, compile_net):
    engine = compile_net(quantized_net())
    notes = [event.message for event in engine.events if event.kind == "note"]
    if backend.name == "ort-mobile":
        assert any("replays" in note for note in notes)
    elif backend.name == "qnn":
        assert any("nodes are in 1 context binary" in note for note in notes)
    elif backend.name == "coreml":
        assert any("2 of 2 quantized convolutions and matrix products have int8 data" in note for note in notes)
    elif backend.name == "tensorrt" and backend.available().version is None:
        assert any("edgeopt's rules only" in note for note in notes)
    else:
        assert any("of 2 quantized convolutions and matrix products run in int8" in note for note in notes)


def test_an_unknown_option_is_refused_with_the_nearest_known(backend, save):
    rules = make_rules(backend.name, options={"optimisation_level": "all"})
    with pytest.raises(BackendError, match=r"'optimisation_level'.*Known: "):
        backend.check(save(conv_net()), make_target(), rules)


def test_a_file_that_is_no_model_is_refused(backend, empty, tmp_path):
    for name, content in (("text.onnx", b"no model at all, only words"), ("empty.onnx", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BackendError, match="not an ONNX model"):
            backend.compile(path, make_target(), make_rules(backend.name), empty(f"engine-{name}"), 1)


def test_a_missing_model_is_refused(backend, empty, tmp_path):
    with pytest.raises(BackendError, match="cannot be read"):
        backend.compile(tmp_path / "none.onnx", make_target(), make_rules(backend.name), empty(), 1)


def test_an_opset_beyond_the_target_is_found(backend, save):
    findings = backend.check(save(conv_net()), make_target(), make_rules(backend.name, opset_max=19))
    assert [f.severity for f in findings] == ["error"]
    assert "opset 20" in findings[0].message
    assert backend.check(save(conv_net()), make_target(), make_rules(backend.name, opset_max=20)) == []
