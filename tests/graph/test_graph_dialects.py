"""Each dialect keeps the calibrated quantization, and its runtime really runs int8."""

from __future__ import annotations

import collections
import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_nets import NETS, optimized_ops, quantize, run_optimized, run_reference, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.errors import EdgeOptError, GraphError
from edgeopt.core.spec import TensorSpec
from edgeopt.graph.dialects import DIALECTS, apply_dialect
from edgeopt.graph.dialects.base import OBLIGATION_DB, REPAIR_DB
from edgeopt.graph.dialects.grids import _grid, is_nonnegative, upper_bound
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.qdq import Point, activation_points

QUANTIZED = [name for name in DIALECTS if name != "float"]
INT8 = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger", "MatMulInteger"}


def sqnr(reference, output):
    reference, output = reference.astype(np.float64), output.astype(np.float64)
    return 10 * math.log10((reference**2).sum() / ((reference - output) ** 2).sum())


def random_like(samples, seed=5):
    return np.random.default_rng(seed).normal(size=samples.shape).astype(np.float32)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_registered_dialect_knows_its_own_name(name):
    assert DIALECTS[name].name == name


def test_an_unknown_dialect_is_answered_with_the_known_ones(case, tmp_path):
    with pytest.raises(EdgeOptError, match="ort-x86"):
        apply_dialect("ort-x68", case("mlp").int8_path, tmp_path / "m.onnx")


@pytest.mark.parametrize("net", ["mlp", "vit", "resnet", "mobilenet", "branches", "pooled"])
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_dialect_keeps_the_points_or_makes_them_finer(case, tmp_path, name, net):
    net = case(net)
    result = apply_dialect(name, net.int8_path, tmp_path / "m.onnx")
    for x in (net.samples, random_like(net.samples)):
        neutral = run_reference(net.int8_path, {"x": x})["logits"]
        written = run_reference(result.path, {"x": x})["logits"]
        if result.same_points:
            np.testing.assert_array_equal(written, neutral)
    reference = run_reference(net.float_path, {"x": net.samples})["logits"]
    neutral = run_reference(net.int8_path, {"x": net.samples})["logits"]
    written = run_reference(result.path, {"x": net.samples})["logits"]
    # 320 logits of 32 samples: the level itself scatters by about half a decibel
    lost = REPAIR_DB if result.repaired or result.coarser else OBLIGATION_DB
    assert sqnr(reference, written) >= sqnr(reference, neutral) - lost
    # the finer grid is another rounding of the same tensors: as far from neutral as two roundings are
    assert np.abs(written - neutral).max() <= 0.1 * np.abs(reference).max()


@pytest.mark.parametrize("name", QUANTIZED)
def test_without_recorded_ranges_and_bounds_the_points_stay_exactly(tmp_path, name):
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n, 4] x) => (float[n, 4] y) '
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Tanh(d) }"
    )
    for input_name, array in (("s", np.array(0.03, np.float32)), ("z", np.array(0, np.int8))):
        value = next(v for node in model.graph for v in node.inputs if v.name == input_name)
        value.const_value = ir.tensor(array, name=input_name)
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape([])
        model.graph.register_initializer(value)
    save_onnx(model, tmp_path / "a.onnx")
    result = apply_dialect(name, tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert result.same_points
    x = np.linspace(-5, 5, 4000, dtype=np.float32).reshape(-1, 4)  # beyond both ends: saturation is the same too
    np.testing.assert_array_equal(
        run_reference(tmp_path / "b.onnx", {"x": x})["y"], run_reference(tmp_path / "a.onnx", {"x": x})["y"]
    )


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_dialect_is_the_same_bytes_each_time(case, tmp_path, name):
    for file in ("a.onnx", "b.onnx"):
        apply_dialect(name, case("vit").int8_path, tmp_path / file)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("net", "convolutions", "products"), [("resnet", 21, 1), ("mobilenet", 22, 1), ("pooled", 2, 2), ("mlp", 0, 3)]
)
def test_onnx_runtime_runs_the_layers_in_int8(case, tmp_path, net, convolutions, products):
    net = case(net)
    result = apply_dialect("ort-x86", net.int8_path, tmp_path / "m.onnx")
    counts = optimized_ops(result.path, tmp_path / "optimized.onnx")
    total = sum(node.op_type == "Conv" for node in onnx.load(net.int8_path).graph.node)
    assert counts.get("QLinearConv", 0) == convolutions >= 0.95 * total
    assert counts.get("QGemm", 0) == products
    left = [event.node for event in result.events]
    assert len(left) == total - convolutions  # what stays in float is said


def test_onnx_runtime_runs_a_residual_nets_additions_in_int8(case, tmp_path):
    apply_dialect("ort-x86", case("resnet").int8_path, tmp_path / "m.onnx")
    counts = optimized_ops(tmp_path / "m.onnx", tmp_path / "optimized.onnx")
    assert counts["QLinearAdd"] == 8  # the ninth feeds the mean, in float
    assert counts.get("FusedConv", 0) + counts.get("Conv", 0) == 0


def test_onnx_runtime_runs_a_transformers_products_in_int8(case, tmp_path):
    apply_dialect("ort-x86", case("vit").int8_path, tmp_path / "m.onnx")
    counts = optimized_ops(tmp_path / "m.onnx", tmp_path / "optimized.onnx")
    assert sum(counts.get(op, 0) for op in INT8) == 13  # 8 linear, 4 attention, 1 head
    assert counts.get("MatMul", 0) + counts.get("Gemm", 0) == 0


def test_onnx_runtime_leaves_the_neutral_graph_in_float(case, tmp_path):
    counts = optimized_ops(case("resnet").int8_path, tmp_path / "optimized.onnx")
    assert counts.get("QLinearConv", 0) < 0.95 * 21  # the reason why the dialect exists


def test_the_arm_dialect_is_absorbed_by_onnx_runtime_where_int8_is_allowed(case, tmp_path):
    import onnxruntime as ort

    apply_dialect("ort-arm", case("resnet").int8_path, tmp_path / "m.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")  # ARM's default; x86 can be told
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    counts = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert counts["QLinearConv"] == 21
    assert {point.dtype for point in activation_points(load_onnx(tmp_path / "m.onnx").graph)} == {"int8"}


@pytest.mark.parametrize("net", ["resnet", "mobilenet", "mlp", "vit"])
def test_onnx_runtimes_int8_kernels_agree_with_the_graph(case, tmp_path, net):
    net = case(net)
    apply_dialect("ort-x86", net.int8_path, tmp_path / "m.onnx")
    reference = run_reference(net.float_path, {"x": net.samples})["logits"]
    plain = run_reference(tmp_path / "m.onnx", {"x": net.samples})["logits"]
    fused = run_optimized(tmp_path / "m.onnx", {"x": net.samples})["logits"]
    assert sqnr(reference, fused) >= sqnr(reference, plain) - 0.5


@pytest.mark.parametrize("dialect", ["openvino", "openvino-amx"])
@pytest.mark.parametrize("net", ["resnet", "mobilenet", "pooled", "mlp", "vit"])
def test_openvino_runs_every_layer_in_int8(case, tmp_path, net, dialect):
    import openvino

    net = case(net)
    apply_dialect(dialect, net.int8_path, tmp_path / "m.onnx")
    core = openvino.Core()
    model = core.read_model(tmp_path / "m.onnx")
    model.reshape({model.inputs[0]: [1, *net.inputs[0].shape[1:]]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    precisions = collections.Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].value).startswith(("Convolution", "FullyConnected")):
            precisions[str(info["runtimePrecision"].value)] += 1
    weighted = sum(n.op_type in ("Conv", "Gemm") for n in onnx.load(net.int8_path).graph.node)
    assert sum(precisions.values()) >= weighted > 0
    assert (precisions["u8"] + precisions["i8"]) / sum(precisions.values()) >= 0.95
    actual = np.concatenate([compiled(net.samples[i : i + 1])[0] for i in range(8)])
    reference = run_reference(net.float_path, {"x": net.samples[:8]})["logits"]
    assert sqnr(reference, actual) > 20


def test_what_openvinos_linear_layers_alone_read_stays_symmetric(case, tmp_path):
    """Its kernel that takes the scales in is for zero points of 0."""
    apply_dialect("openvino", case("vit").int8_path, tmp_path / "m.onnx")
    read = collections.defaultdict(set)
    for point in activation_points(load_onnx(tmp_path / "m.onnx").graph):
        for node in point.dequantize:
            for reader in node.outputs[0].consumers():
                read[reader.op_type].add((point.dtype, point.zero_point))
    assert read["MatMul"] | read["Gemm"] <= {("int8", 0), ("uint8", 0)}
    assert ("int8", 0) in read["MatMul"]
    assert all(dtype == "uint8" for dtype, _ in read["Conv"])
    apply_dialect("openvino-novnni", case("vit").int8_path, tmp_path / "proved.onnx")
    proved = activation_points(load_onnx(tmp_path / "proved.onnx").graph)
    assert {point.dtype for point in proved} == {"uint8"}  # what the proof of its sums is for


def moved(steps):
    """A linear layer behind ``steps`` moves one after the other; each joins two copies and halves the result again."""
    text = """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[8, 8] x) => (float[8, 4] y)
        <float s = {0.05}, int8 z = {0}, int64[1] start = {0}, int64[1] end = {8}, int64[1] axis = {0}, float[8, 4] w> {
            q = QuantizeLinear (x, s, z)
            m0 = DequantizeLinear (q, s, z)
    """
    for step in range(steps):
        text += f"""
            t{step} = Transpose <perm = [1, 0]> (m{step})
            r{step} = Slice (m{step}, start, end, axis)
            c{step} = Concat <axis = 0> (t{step}, r{step})
            m{step + 1} = Slice (c{step}, start, end, axis)
        """
    model = onnx.parser.parse_model(text + f"y = MatMul (m{steps}, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 4), np.float32), "w"))
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize("steps", [1, 600])
def test_a_tensor_that_is_moved_and_joined_many_times_is_looked_at_once(steps):
    """The ways through ``steps`` joins are two to the power of ``steps``, and each of them is longer than Python's stack."""
    model = moved(steps)
    DIALECTS["openvino"].rewrite(model)
    assert [(point.dtype, point.zero_point) for point in activation_points(model.graph)][:1] == [("int8", 0)]


def test_weights_of_seven_bits_need_no_repair(case, tmp_path):
    model = load_onnx(case("mlp").int8_path)
    for name, value in model.graph.initializers.items():
        if name.startswith("_frozen"):
            array = (value.const_value.numpy() // 2).astype(np.int8)
            value.const_value = ir.tensor(array, name=name)
    save_onnx(model, tmp_path / "seven.onnx")
    result = apply_dialect("ort-x86-novnni", tmp_path / "seven.onnx", tmp_path / "m.onnx")
    assert result.repaired == 0
    assert [event.kind for event in result.events] == ["note"]
    assert result.events[0].message.startswith("Proven: without VNNI")


def test_the_float_dialect_is_the_identity(case, tmp_path):
    result = apply_dialect("float", case("vit").float_path, tmp_path / "m.onnx")
    assert result.same_points
    assert (tmp_path / "m.onnx").read_bytes() == case("vit").float_path.read_bytes()


def test_the_float_dialect_refuses_a_quantized_graph(case, tmp_path):
    with pytest.raises(GraphError, match="without quantization"):
        apply_dialect("float", case("mlp").int8_path, tmp_path / "m.onnx")


def test_a_dialect_of_a_dialect_is_refused(case, tmp_path):
    apply_dialect("ort-arm", case("mlp").int8_path, tmp_path / "a.onnx")
    with pytest.raises(GraphError, match="no point of a neutral graph"):
        apply_dialect("openvino", tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_tensorrts_graph_is_the_neutral_one(case, tmp_path):
    apply_dialect("tensorrt", case("resnet").int8_path, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == case("resnet").int8_path.read_bytes()


def spoil(source, path, edit):
    model = load_onnx(source)
    point = activation_points(model.graph)[0]
    edit(model, point)
    save_onnx(model, path)
    return path


def set_constant(index, array):
    def edit(model, point):
        for node in (point.quantize, *point.dequantize):
            name = f"spoilt_{index}"
            if name not in model.graph.initializers:
                tensor = ir.tensor(array, name=name)
                value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape([]))
                model.graph.register_initializer(value)
            node.replace_input_with(index, model.graph.initializers[name])

    return edit


def drop_zero_points(model, point):
    for node in (point.quantize, *point.dequantize):
        node.resize_inputs(2)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_constant(2, np.array(3, np.int8)), "zero point other than 0"),
        (set_constant(1, np.array(0, np.float32)), "not above zero"),
        (drop_zero_points, "zero point absent"),
    ],
)
def test_tensorrt_is_kept_from_what_it_misreads(case, tmp_path, edit, message):
    path = spoil(case("mlp").int8_path, tmp_path / "a.onnx", edit)
    with pytest.raises(GraphError, match=message):
        apply_dialect("tensorrt", path, tmp_path / "b.onnx")


@pytest.mark.parametrize("zero", [0, 30, 200])
def test_tensorrt_gets_what_is_uint8_as_int8_of_the_same_reach(case, tmp_path, zero):
    path = spoil(case("mlp").int8_path, tmp_path / "a.onnx", set_constant(2, np.array(zero, np.uint8)))
    result = apply_dialect("tensorrt", path, tmp_path / "b.onnx")
    before, after = (activation_points(load_onnx(file).graph)[0] for file in (path, result.path))
    assert (after.dtype, after.zero_point, result.coarser, result.same_points) == ("int8", 0, 1, False)
    assert after.scale * 127 == pytest.approx(before.scale * max(zero, 255 - zero))


def test_tensorrt_is_kept_from_opsets_that_it_cannot_read(case, tmp_path):
    net = case("mlp")
    export_onnx(net.quantized, net.inputs, net.outputs, tmp_path / "a.onnx", opset=21)
    with pytest.raises(GraphError, match="opset 21"):
        apply_dialect("tensorrt", tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_only_skip_inputs_quantized_leaves_convolutions_in_float_and_says_so(case, tmp_path):
    import torch

    net = case("resnet")  # TensorRT's placement on ONNX Runtime: half of the convolutions have no Q behind them
    quantized, ranges = quantize(net.program, [torch.from_numpy(smooth(8, NETS["resnet"][1], 1))], residual="skip")
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 3, 32, 32)),)
    export_onnx(quantized, inputs, net.outputs, tmp_path / "a.onnx", opset=20, ranges=ranges)
    result = apply_dialect("ort-x86", tmp_path / "a.onnx", tmp_path / "b.onnx")
    counts = optimized_ops(tmp_path / "b.onnx", tmp_path / "optimized.onnx")
    assert counts["QLinearConv"] + len(result.events) == 21
    assert len(result.events) > 0


def point_of(model):
    return activation_points(model.graph)[0]


def small(op, low=None, high=None, scale=0.05):
    """One op, then a point; its range as recorded."""
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) '
        f"{{ a = {op} q = QuantizeLinear(a, s, z) y = DequantizeLinear(q, s, z) }}"
    )
    constants = {"s": np.array(scale, np.float32), "z": np.array(0, np.int8)}
    constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    for name, array in constants.items():
        value = next((v for node in model.graph for v in node.inputs if v is not None and v.name == name), None)
        if value is not None:
            value.const_value = ir.tensor(array, name=name)
            model.graph.register_initializer(value)
    if low is not None:
        quantizer = next(node for node in model.graph if node.op_type == "QuantizeLinear")
        quantizer.metadata_props["edgeopt.range"] = f"{low!r} {high!r}"
    return model


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(-50, 50),
    width=st.floats(0, 50),
    scale=st.floats(1e-4, 1),
    op=st.sampled_from(["Relu(x)", "Neg(x)", "Clip(x, zero, six)", "Sigmoid(x)"]),
)
def test_a_grid_is_never_coarser_and_holds_its_range(low, width, scale, op):
    point = point_of(small(op, low, low + width, scale))
    step, zero = _grid(point)
    neutral = float(np.float32(scale))
    assert 0 < step <= np.float32(scale)
    assert 0 <= zero <= 255
    if step == np.float32(scale):
        return
    # every value that was seen and that the neutral grid reached lies within half a step of a new point
    bounds = -128.5 * neutral, 127.5 * neutral
    start = 0.0 if op != "Neg(x)" else min(0.0, max(low, bounds[0]))
    end = {"Clip(x, zero, six)": 6.0, "Sigmoid(x)": 1.0}.get(op, math.inf)
    stop = max(0.0, min(low + width, bounds[1], end))
    for value in (start, stop, 0.0):
        nearest = (np.clip(round(value / float(step)) + zero, 0, 255) - zero) * float(step)
        assert abs(nearest - value) <= float(step) * (0.5 + 1e-4)


def test_relu6_folds_since_its_grid_ends_inside_six():
    for scale in np.linspace(0.04701, 0.0474, 200):  # 127.5 steps reach to about 6
        step, zero = _grid(point_of(small("Clip(x, zero, six)", 0.0, 6.0, float(scale))))
        assert zero == 0
        assert np.float32(step * np.float32(255)) <= np.float32(6)


@pytest.mark.parametrize(
    ("op", "nonnegative", "bound"),
    [
        ("Relu(x)", True, math.inf),
        ("Sigmoid(x)", True, 1.0),
        ("Clip(x, zero, six)", True, 6.0),
        ("Tanh(x)", False, math.inf),
        ("Neg(x)", False, math.inf),
        ("Mul(x, x)", True, math.inf),
        ("Mul(x, six)", False, math.inf),
        ("Pow(x, six)", True, math.inf),
        ("Pow(x, x)", False, math.inf),
    ],
)
def test_structure_says_what_a_tensor_can_be(op, nonnegative, bound):
    tensor = point_of(small(op)).tensor
    assert (is_nonnegative(tensor), upper_bound(tensor)) == (nonnegative, bound)


def test_a_tensor_that_more_than_dequantize_reads_is_left_and_named(tmp_path):
    model = small("Neg(x)", -1.0, 5.0)
    quantizer = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    cast = ir.node("Cast", [quantizer.outputs[0]], {"to": ir.DataType.FLOAT.value}, num_outputs=1)
    cast.outputs[0].name, cast.outputs[0].type = "raw", ir.TensorType(ir.DataType.FLOAT)
    cast.outputs[0].shape = ir.Shape(["n"])
    model.graph.append(cast)
    model.graph.outputs.append(cast.outputs[0])
    save_onnx(model, tmp_path / "a.onnx")
    result = apply_dialect("openvino", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert [event.node for event in result.events] == [quantizer.name or "QuantizeLinear:q"]
    x = np.linspace(-7, 7, 50, dtype=np.float32)
    before, after = (run_reference(tmp_path / f, {"x": x}) for f in ("a.onnx", "b.onnx"))
    np.testing.assert_array_equal(after["raw"], before["raw"])


def test_an_unreadable_recorded_range_is_an_error():
    model = small("Neg(x)", 0.0, 1.0)
    next(n for n in model.graph if n.op_type == "QuantizeLinear").metadata_props["edgeopt.range"] = "wide"
    with pytest.raises(GraphError, match="cannot be read"):
        activation_points(model.graph)


def test_all_readers_of_a_shared_tensor_are_rewritten(case, tmp_path):
    net = case("resnet")  # a block's input feeds a convolution and the addition, each behind its own DQ
    export_onnx(
        net.quantized, net.inputs, net.outputs, tmp_path / "a.onnx", opset=20, ranges=net.ranges, simplify=False
    )
    assert [p for p in activation_points(load_onnx(tmp_path / "a.onnx").graph) if len(p.dequantize) > 1]
    apply_dialect("ort-x86", tmp_path / "a.onnx", tmp_path / "m.onnx")
    for point in activation_points(load_onnx(tmp_path / "m.onnx").graph):
        assert isinstance(point, Point)
        for reader in point.dequantize:
            assert [v.name for v in reader.inputs[1:]] == [v.name for v in point.quantize.inputs[1:]]
