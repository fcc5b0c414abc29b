"""Core ML packages, converted by the real coremltools and read back byte by byte; Core ML itself runs on macOS only."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import onnx
import pytest
from backend_nets import _save, conv_net, half_net, make_rules, make_target, quantized_net, two_input_net
from lint_corpus import CASES
from lint_runtimes import RUNTIMES
from onnx import TensorProto, helper, numpy_helper

from edgeopt.backends import coreml, coreml_convert, coreml_proof
from edgeopt.backends.coreml_convert import MODEL, WEIGHTS
from edgeopt.backends.coreml_names import TARGETS, feature_names
from edgeopt.backends.coreml_program import read_package
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.torch_program.build import build_program
from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec
from edgeopt.graph.half import convert_half

BACKEND = BACKENDS["coreml"]
needs_coremltools = pytest.mark.skipif(
    BACKEND.available().version is None, reason=f"coremltools is not installed: {coreml.HOW_TO_GET}"
)


@pytest.fixture
def convert(save, empty):
    def run(net, *, minimum="iOS17", folder="engine"):
        rules = make_rules("coreml", options={"minimum_deployment_target": minimum})
        graph = net if not isinstance(net, onnx.ModelProto) else save(net, f"{folder}.onnx")
        engine = BACKEND.compile(graph, make_target(), rules, empty(folder), 1)
        return engine, read_package(engine.directory / coreml.PACKAGE)

    return run


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@needs_coremltools
class TestPackage:
    @pytest.mark.parametrize("minimum", ["iOS17", "macOS15"])
    def test_scales_zero_points_and_integers_are_the_graphs_own(self, convert, minimum):
        model = quantized_net(dtype="int8", zero_point=-7)
        _, made = convert(model, minimum=minimum)
        given = constants(model)
        quantizers = [o for o in made.operations if o.op in ("quantize", "dequantize")]
        assert [o.op for o in quantizers] == ["quantize", "dequantize"] * 2
        for operation in quantizers:
            assert made.constant(operation, "scale").astype(np.float32) == given["xs"]
            assert made.constant(operation, "zero_point") == -7
        weights = [o for o in made.operations if o.op.startswith("constexpr")]
        data = "quantized_data" if minimum == "iOS17" else "data"
        for operation, (values, scale) in zip(weights, ((given["w"], "ws"), (given["f"].T, "fs")), strict=True):
            stored = made.constant(operation, data)
            assert stored.dtype == np.int8
            np.testing.assert_array_equal(stored, values)
            np.testing.assert_array_equal(made.constant(operation, "scale").ravel(), given[scale])

    def test_integer_weights_are_bytes_of_the_weight_file(self, convert):
        engine, _ = convert(quantized_net())
        stored = (engine.directory / coreml.PACKAGE / WEIGHTS).read_bytes()
        given = constants(quantized_net())
        assert given["w"].tobytes() in stored
        assert given["f"].T.tobytes() in stored
        assert given["w"].astype(np.float32).tobytes() not in stored

    def test_uint8_around_128_keeps_its_points(self, convert):
        engine, made = convert(quantized_net(dtype="uint8", zero_point=128))
        (kind,) = {o.dtype for o in made.operations if o.op == "quantize"}
        assert kind == "int8"
        assert any("1 grids" in event.message for event in engine.events)

    def test_inputs_and_outputs_have_the_graphs_names_order_and_types(self, convert):
        engine, made = convert(two_input_net())
        assert made.inputs == {"token": ("int32", (1,)), "dense": ("float32", (1, 4))}
        assert made.outputs == {"sum": ("float32", (1, 4)), "echo": ("int32", (1,))}
        assert any("Core ML has no int64: token is int32" in event.message for event in engine.events)
        assert [s.dtype for s in engine.inputs] == ["int64", "float32"]

    @pytest.mark.long
    def test_a_float32_graph_stays_float32_and_a_float16_graph_computes_in_it(self, convert):
        _, single = convert(conv_net(), folder="single")
        assert {o.dtype for o in single.operations} == {"float32"}
        _, half = convert(half_net(), folder="half")
        kinds = [(o.op, o.dtype) for o in half.operations]
        assert kinds == [("cast", "float16"), ("linear", "float16"), ("cast", "float32")]

    @pytest.mark.parametrize("minimum", ["iOS17", "iOS18"])
    def test_int8_between_float16_values_has_float16_scales(self, convert, save, tmp_path, minimum):
        convert_half(save(quantized_net()), tmp_path / "half.onnx")
        engine, made = convert(tmp_path / "half.onnx", minimum=minimum)
        products = [o for o in made.operations if o.op in coreml_proof.PRODUCTS]
        assert [(o.op, o.dtype) for o in products] == [("conv", "float16"), ("linear", "float16")]
        for operation in made.operations:
            if operation.op in ("quantize", "dequantize"):
                assert made.constant(operation, "scale") == np.float16(0.03)
        assert any("2 of 2 quantized" in event.message for event in engine.events)

    def test_limits_and_epsilons_of_float16_operations_are_float16(self, convert, save, tmp_path):
        weights = {"lo": np.float32(0), "hi": np.float32(6), "g": np.ones(3, "float32"), "b": np.zeros(3, "float32")}
        nodes = [
            helper.make_node("Clip", ["x", "lo", "hi"], ["c"], "clip"),
            helper.make_node("LayerNormalization", ["c", "g", "b"], ["y"], "norm", epsilon=1e-5),
        ]
        net = _save(nodes, [("x", TensorProto.FLOAT, [1, 3])], [("y", TensorProto.FLOAT, [1, 3])], weights)
        convert_half(save(net), tmp_path / "half.onnx")
        _, made = convert(tmp_path / "half.onnx")
        assert {o.dtype for o in made.operations if o.op in ("clip", "relu6", "layer_norm")} == {"float16"}

    def test_an_input_that_is_returned_and_a_value_that_is_returned_twice(self, convert):
        nodes = [
            helper.make_node("Relu", ["x"], ["relu"], "r"),
            helper.make_node("Identity", ["x"], ["echo"], "i"),
            helper.make_node("Identity", ["relu"], ["again"], "j"),
        ]
        ports = [(name, TensorProto.FLOAT, [1, 3]) for name in ("relu", "echo", "again")]
        _, made = convert(_save(nodes, [("x", TensorProto.FLOAT, [1, 3])], ports, {}))
        assert list(made.outputs) == ["relu", "echo", "again"]

    def test_names_that_core_ml_cannot_write_are_changed_and_told(self, convert):
        nodes = [helper.make_node("Relu", ["in.0"], ["0:out"], "r")]
        net = _save(nodes, [("in.0", TensorProto.FLOAT, [1, 3])], [("0:out", TensorProto.FLOAT, [1, 3])], {})
        engine, made = convert(net)
        assert (list(made.inputs), list(made.outputs)) == (["in_0"], ["_0_out"])
        settings = json.loads((engine.directory / coreml.SETTINGS).read_text())
        assert [port["feature"] for port in settings["outputs"]] == ["_0_out"]
        assert [port["name"] for port in settings["outputs"]] == ["0:out"]

    def test_apples_own_reader_takes_the_package(self, convert):
        import coremltools

        engine, _ = convert(quantized_net())
        model = coremltools.models.MLModel(str(engine.directory / coreml.PACKAGE), skip_model_load=True)
        assert [f.name for f in model.get_spec().description.input] == ["image"]
        assert model.get_spec().specificationVersion == 8

    def test_the_engine_is_not_built_and_says_what_runs_it(self, convert):
        engine, _ = convert(conv_net())
        assert (engine.status, engine.next_command) == ("not_built", "python3 verify_coreml.py")
        assert engine.why_not_built == "converted, not run: needs macOS or iOS"
        assert engine.coverage is None


@needs_coremltools
class TestProof:
    @pytest.fixture
    def made(self, convert, save):
        engine, _ = convert(quantized_net())
        program = build_program(save(quantized_net(), "again.onnx"), 1, "Core ML")
        features = feature_names([*program.plan.inputs, *program.outputs])
        return engine.directory / coreml.PACKAGE, program, features

    def changed(self, program, name, change):
        constants = dict(program.plan.constants)
        constants[name] = change(constants[name])
        return dataclasses.replace(program, plan=dataclasses.replace(program.plan, constants=constants))

    def test_the_package_as_it_was_made_holds(self, made):
        proof = coreml_proof.hold_against(*made)
        assert (proof.quantized, proof.in_int8, proof.weights, proof.weight_bytes) == (2, 2, 2, 8 * 27 + 288 * 5)

    def test_another_scale_is_found(self, made):
        package, program, features = made
        other = self.changed(program, "xs", lambda scale: np.nextafter(scale, np.float32(1)))
        with pytest.raises(BackendError, match=r"changed the quantization.*1 of 2 grids are missing"):
            coreml_proof.hold_against(package, other, features)

    @pytest.mark.parametrize("name", ["w", "fs"])
    def test_another_integer_or_weight_scale_is_found(self, made, name):
        package, program, features = made

        def change(values):
            values = values.copy()
            values.flat[3] = values.flat[3] + 1
            return values

        with pytest.raises(BackendError, match=f"changed integer weights.*{name[0]}"):
            coreml_proof.hold_against(package, self.changed(program, name, change), features)

    def test_other_outputs_are_found(self, made):
        package, program, features = made
        with pytest.raises(BackendError, match="other inputs or outputs"):
            coreml_proof.hold_against(package, program, features | {"logits": "scores"})

    def test_a_short_weight_file_is_refused(self, made):
        package, _, _ = made
        data = (package / WEIGHTS).read_bytes()
        for size in (0, 70, len(data) - 100):
            (package / WEIGHTS).write_bytes(data[:size])
            with pytest.raises(BackendError, match="weight file of the Core ML package"):
                read_package(package)

    def test_what_is_no_package_is_refused(self, made):
        package, _, _ = made
        (package / MODEL).write_bytes(b"\xff\xff no model")
        with pytest.raises(BackendError, match="Core ML package"):
            read_package(package)
        (package / MODEL).unlink()
        with pytest.raises(BackendError, match="holds no ML program"):
            read_package(package)


@needs_coremltools
def test_two_conversions_are_the_same_bytes_and_bear_no_date(convert):
    one, _ = convert(quantized_net(), folder="one")
    two, _ = convert(quantized_net(), folder="two")

    def digest(engine):
        files = sorted(path for path in engine.directory.rglob("*") if path.is_file())
        return {str(f.relative_to(engine.directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    assert digest(one) == digest(two)
    model = (one.directory / coreml.PACKAGE / MODEL).read_bytes()
    assert b"com.github.apple.coremltools.version" in model
    assert b"conversion_date" not in model


@needs_coremltools
def test_what_coremltools_says_is_kept(convert, monkeypatch):
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], dilations=[2, 2])]
    net = _save(nodes, [("x", TensorProto.FLOAT, [1, 1, 8, 8])], [("y", TensorProto.FLOAT, [1, 1, 6, 6])], {})
    monkeypatch.setattr(coreml, "refuse", lambda *_: None)
    with pytest.raises(BackendError, match=r"coremltools cannot convert the graph.*dilation"):
        convert(net)


# What the rules call an error and a conversion refuses, and near neighbours that neither does.
REFUSED = ("conv_int16", "conv_activation_per_channel", "op_max_pool_dilated", "op_max_pool_indices", "op_pad_wrap")
REFUSED += ("op_det", "conv_float64", "op_varying_size", "relu_bfloat16")
TAKEN = ("conv_float", "conv_uint8", "attention_symmetric", "concat_uint8")


@needs_coremltools
@pytest.mark.long
@pytest.mark.parametrize("name", [*REFUSED, *TAKEN])
def test_the_rules_say_what_the_conversion_does(name, convert, save, monkeypatch):
    graph = save(CASES[name]())
    rules, target = RUNTIMES["coreml"]
    said = [found for found in lint(read_graph(graph), rules, target) if found.severity == "error"]
    assert bool(said) == (name in REFUSED)
    monkeypatch.setattr(coreml, "refuse", lambda *_: None)  # whatever the rules say, the converter is asked
    if name in TAKEN:
        convert(graph)
    else:
        with pytest.raises(BackendError):
            convert(graph)


def test_an_unsupported_operator_is_one_error_with_its_name(save, empty, monkeypatch):
    monkeypatch.setattr(coreml, "installed_version", lambda *_: "9.0")
    graph = save(CASES["op_det"]())
    with pytest.raises(BackendError, match=r"Core ML cannot take this graph.*CML003 at y.*cannot write Det as"):
        BACKEND.compile(graph, make_target(), make_rules("coreml"), empty(), 1)


def test_quantized_activations_need_ios_17(save):
    rules = make_rules("coreml", options={"minimum_deployment_target": "iOS16"})
    (finding,) = [f for f in BACKEND.check(save(quantized_net()), make_target(), rules) if f.severity == "error"]
    assert (finding.rule, finding.message) == ("CML007", "iOS16 has no quantized activations.")
    assert BACKEND.check(save(conv_net()), make_target(), rules) == []


def test_an_unknown_system_is_refused_with_the_known(save):
    rules = make_rules("coreml", options={"minimum_deployment_target": "iOS11"})
    with pytest.raises(BackendError, match=f"no such minimum_deployment_target.*'iOS11'.*{', '.join(TARGETS)}"):
        BACKEND.check(save(conv_net()), make_target(), rules)


@needs_coremltools
def test_every_system_is_one_that_coremltools_knows():
    import coremltools

    assert all(hasattr(coremltools.target, name) for name in TARGETS)


def test_an_engine_is_run_nowhere_but_on_apples_systems(tmp_path):
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 3))
    engine = coreml.Engine(
        runtime="coreml",
        runtime_version="9.0",
        directory=tmp_path,
        entry=coreml.COMPILED,
        status="not_built",
        inputs=(spec,),
        outputs=(spec,),
        next_command=coreml.NEXT_COMMAND,
    )
    with pytest.raises(BackendError, match=r"macOS and iOS only.*On a Mac.*python3 verify_coreml\.py"):
        BACKEND.load(engine, 1)


def test_the_pass_that_would_move_scales_is_one_that_coremltools_has():
    pytest.importorskip("coremltools", reason=coreml.HOW_TO_GET)
    import coremltools

    assert set(coreml_convert._LEFT_OUT) <= set(coremltools.PassPipeline().passes)
