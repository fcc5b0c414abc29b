"""Weights of 4 bits, and weights with one scale per group: what is written, and that it means the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_nets import build, optimized_ops, run_optimized, run_reference

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import GraphError
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.passes.opset import raise_opset
from edgeopt.graph.passes.pack_int4 import PackInt4
from edgeopt.graph.passes.slim import Slim
from edgeopt.graph.qdq import BITS_KEY, array_of, weighted_nodes
from edgeopt.targets.load import find_target

TARGET = find_target("openvino-cpu")
READERS = ["ort-x86", "ort-x86-novnni", "ort-arm", "openvino"]


@pytest.fixture
def empty_engine(tmp_path):
    (tmp_path / "engine").mkdir()
    return tmp_path / "engine"


def four_bits(source, path, *, mark=True):
    """The graph with its int8 weights on the 15 points of 4 bits, and marked so where ``mark`` is true."""
    model = load_onnx(source)
    for node, weight, dequantize in weighted_nodes(model.graph):
        if dequantize is None:
            continue
        narrow = np.rint(weight.astype(np.float64) * 7 / 127).astype(np.int8)
        stored = array_of(dequantize.inputs[0])
        for value, array in (
            (dequantize.inputs[0], narrow if stored.shape == narrow.shape else narrow.T),
            (dequantize.inputs[1], array_of(dequantize.inputs[1]) * np.float32(127 / 7)),
        ):
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
        if mark:
            node.metadata_props[BITS_KEY] = "4"
    save_onnx(model, path)
    return path


def nibbles(tensor):
    """ONNX's int4: two per byte, the first in the low half, two's complement."""
    raw = np.frombuffer(tensor.raw_data, np.uint8)
    halves = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[: int(np.prod(tensor.dims))].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(tensor.dims)


@pytest.mark.parametrize("net", ["resnet", "mobilenet", "mlp", "vit"])
@pytest.mark.parametrize("name", READERS)
def test_packing_changes_no_bit_of_any_output(case, tmp_path, name, net):
    net = case(net)
    plain = apply_dialect(name, four_bits(net.int8_path, tmp_path / "a.onnx", mark=False), tmp_path / "plain.onnx")
    packed = apply_dialect(name, four_bits(net.int8_path, tmp_path / "b.onnx"), tmp_path / "packed.onnx")
    assert packed.same_points == plain.same_points
    np.testing.assert_array_equal(
        run_reference(packed.path, {"x": net.samples})["logits"],
        run_reference(plain.path, {"x": net.samples})["logits"],
    )


def test_a_packed_weight_is_half_as_large_on_disk_and_holds_the_same_integers(case, tmp_path):
    net = case("resnet")
    neutral = load_onnx(four_bits(net.int8_path, tmp_path / "a.onnx"))
    weights = {d.inputs[0].name: array_of(d.inputs[0]) for _, _, d in weighted_nodes(neutral.graph) if d is not None}
    apply_dialect("ort-x86", tmp_path / "a.onnx", tmp_path / "b.onnx")
    written = onnx.load(tmp_path / "b.onnx")
    packed = [t for t in written.graph.initializer if t.data_type == onnx.TensorProto.INT4]
    assert sorted(nibbles(t).tobytes() for t in packed) == sorted(weight.tobytes() for weight in weights.values())
    assert sum(len(t.raw_data) for t in packed) == sum((weight.size + 1) // 2 for weight in weights.values())
    bytes_saved = sum(weight.size for weight in weights.values()) // 2
    unpacked = apply_dialect("ort-x86", four_bits(net.int8_path, tmp_path / "c.onnx", mark=False), tmp_path / "d.onnx")
    saved = unpacked.path.stat().st_size - (tmp_path / "b.onnx").stat().st_size
    assert saved > bytes_saved  # what a Cast per layer costs is less than inner shapes and long names


def test_what_reports_name_keeps_its_name_and_what_they_do_not_is_short(case, tmp_path):
    four_bits(case("resnet").int8_path, tmp_path / "a.onnx")
    plain = four_bits(case("resnet").int8_path, tmp_path / "b.onnx", mark=False)
    graphs = [
        onnx.load(apply_dialect("ort-x86", tmp_path / name, tmp_path / "c.onnx").path).graph
        for name in ("a.onnx", "b.onnx")
    ]
    assert plain.name == "b.onnx"
    grids = ("QuantizeLinear", "DequantizeLinear", "Cast")
    named = [[(n.name, list(n.output)) for n in graph.node if n.op_type not in grids] for graph in graphs]
    assert named[0] == named[1]
    assert [[v.name for v in (*graph.input, *graph.output)] for graph in graphs] == [["x", "logits"]] * 2
    assert not graphs[0].value_info
    values = [t.name for t in graphs[0].initializer] + [
        o for n in graphs[0].node if n.op_type in grids for o in n.output
    ]
    assert len(values) == len(set(values))
    assert max(map(len, values)) <= 3


def test_a_short_name_is_never_one_that_is_taken():
    model = build(
        "g (float[4] a) => (float[4] c) { b = Relu(a) s = Relu(b) t = Add(s, weight) c = Add(t, other) }",
        {"weight": np.ones(4, np.float32), "other": np.full(4, 2, np.float32)},
    )
    Slim()(model)
    assert sorted(model.graph.initializers) == ["d", "e"]
    assert [v.name for v in model.graph.outputs] == ["c"]


def test_the_opset_rises_with_the_first_packed_weight_and_not_without(case, tmp_path):
    net = case("mlp")
    plain = apply_dialect("ort-x86", net.int8_path, tmp_path / "plain.onnx").path
    packed = apply_dialect("ort-x86", four_bits(net.int8_path, tmp_path / "a.onnx"), tmp_path / "packed.onnx").path
    assert [load_onnx(path).opset_imports[""] for path in (plain, packed)] == [20, 21]


def test_tensorrt_which_reads_no_opset_21_keeps_the_neutral_graph(case, tmp_path):
    four_bits(case("resnet").int8_path, tmp_path / "a.onnx")
    apply_dialect("tensorrt", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(("net", "op", "count"), [("resnet", "QLinearConv", 21), ("mlp", "QGemm", 3)])
def test_onnx_runtime_runs_packed_layers_in_int8(case, tmp_path, net, op, count):
    apply_dialect("ort-x86", four_bits(case(net).int8_path, tmp_path / "a.onnx"), tmp_path / "b.onnx")
    counts = optimized_ops(tmp_path / "b.onnx", tmp_path / "optimized.onnx")
    assert counts[op] == count
    assert counts.get("Cast", 0) == counts.get("Conv", 0) == counts.get("Gemm", 0) == 0


@pytest.mark.parametrize("net", ["resnet", "mlp", "vit"])
def test_openvino_keeps_packed_weights_packed_and_runs_them_in_int8(case, tmp_path, net):
    import openvino

    net = case(net)
    apply_dialect("openvino", four_bits(net.int8_path, tmp_path / "a.onnx"), tmp_path / "b.onnx")
    core = openvino.Core()
    model = core.read_model(tmp_path / "b.onnx")
    model.reshape({model.inputs[0]: [1, *net.inputs[0].shape[1:]]})
    openvino.save_model(model, tmp_path / "b.xml", compress_to_fp16=False)
    plain = four_bits(net.int8_path, tmp_path / "c.onnx", mark=False)
    apply_dialect("openvino", plain, tmp_path / "d.onnx")
    openvino.save_model(core.read_model(tmp_path / "d.onnx"), tmp_path / "d.xml", compress_to_fp16=False)
    weights = sum(w.size for _, w, d in weighted_nodes(load_onnx(plain).graph) if d is not None)
    saved = (tmp_path / "d.bin").stat().st_size - (tmp_path / "b.bin").stat().st_size
    assert 0.9 * weights / 2 < saved <= weights / 2
    compiled = core.compile_model(tmp_path / "b.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    types = [
        info["runtimePrecision"].value for info in infos if info["layerType"].value in ("Convolution", "FullyConnected")
    ]
    assert set(types) <= {"u8", "i8"}
    assert types
    reference = run_reference(tmp_path / "b.onnx", {"x": net.samples[:4]})["logits"]
    actual = np.concatenate([compiled(net.samples[i : i + 1])[0] for i in range(4)])
    assert np.abs(actual - reference).max() <= 0.05 * np.abs(reference).max()


def test_a_weight_that_does_not_fit_is_refused(case, tmp_path):
    model = load_onnx(case("mlp").int8_path)
    next(weighted_nodes(model.graph))[0].metadata_props[BITS_KEY] = "4"
    with pytest.raises(GraphError, match=r"does not fit.*integers from -12\d to 12\d"):
        PackInt4()(model)


def test_a_graph_whose_operators_change_meaning_is_not_raised():
    model = build(
        "g (float[1, 4, 2] x) => (float[1, 4, 2] y) { y = GroupNormalization<num_groups=2>(x, s, s) }",
        {"s": np.ones(2, np.float32)},
    )
    with pytest.raises(GraphError, match=r"opset 21.*GroupNormalization means something else"):
        raise_opset(model, 21)
    model.opset_imports[""] = 21
    raise_opset(model, 21)  # there already


def test_bits_of_a_layer_that_is_not_in_the_graph_are_refused(case, tmp_path):
    net = case("mlp")
    with pytest.raises(GraphError, match="bits cannot be placed"):
        export_onnx(net.quantized, net.inputs, net.outputs, tmp_path / "a.onnx", opset=20, weight_bits={"nowhere": 4})


def grouped(path, *, bits, group=32, three_d=False):
    """One linear layer of 64 inputs and 48 outputs in the neutral form; its integers, scales and bias."""
    generator = np.random.default_rng(bits + group)
    limit = 2 ** (bits - 1) - 1
    values = generator.integers(-limit, limit + 1, (48, 64)).astype(np.int8)
    scales = generator.uniform(0.5, 1.5, 48 * 64 // group).astype(np.float32) / limit
    bias = generator.normal(size=48).astype(np.float32)
    weight = "d = DequantizeLinear<axis=0>(w, s, z) r = Reshape(d, shape)"
    text = (
        f"g (float[n, 5, 64] x) => (float[n, 5, 48] y) {{ {weight} t = Transpose<perm=[1, 0]>(r) "
        "m = MatMul(x, t) y = Add(m, b) }"
        if three_d
        else f"g (float[n, 64] x) => (float[n, 48] y) {{ {weight} h = Gemm<transB=1>(x, r, b) y = Relu(h) }}"
    )
    constants = {
        "w": values.reshape(-1, group),
        "s": scales,
        "z": np.zeros(len(scales), np.int8),
        "shape": np.array([48, 64]),
        "b": bias,
    }
    model = build(text, constants)
    for node in model.graph:
        if node.op_type in ("Gemm", "MatMul") and bits == 4:
            node.metadata_props[BITS_KEY] = "4"
    save_onnx(model, path)
    x = generator.normal(size=(3, 5, 64) if three_d else (3, 64)).astype(np.float32)
    dense = values.astype(np.float64) * np.repeat(scales.reshape(48, -1).astype(np.float64), group, 1)
    expected = x.astype(np.float64) @ dense.T + bias
    return x, expected if three_d else np.maximum(expected, 0), values


@pytest.mark.parametrize("three_d", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 64), (8, 32)])
@pytest.mark.parametrize("name", READERS)
def test_a_grouped_weight_gives_what_numpy_gives_in_float64(tmp_path, name, bits, group, three_d):
    x, expected, _ = grouped(tmp_path / "a.onnx", bits=bits, group=group, three_d=three_d)
    apply_dialect(name, tmp_path / "a.onnx", tmp_path / "b.onnx")
    for run in (run_reference, run_optimized):
        np.testing.assert_allclose(run(tmp_path / "b.onnx", {"x": x})["y"], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("three_d", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_onnx_runtime_multiplies_by_packed_weights(tmp_path, bits, three_d):
    _, _, values = grouped(tmp_path / "a.onnx", bits=bits, three_d=three_d)
    apply_dialect("ort-x86", tmp_path / "a.onnx", tmp_path / "b.onnx")
    counts = optimized_ops(tmp_path / "b.onnx", tmp_path / "optimized.onnx")
    assert counts["MatMulNBits"] == 1
    assert not {"DequantizeLinear", "Gemm", "FusedGemm", "MatMul"} & counts.keys()
    stored = next(t for t in onnx.load(tmp_path / "b.onnx").graph.initializer if t.name.endswith("_packed"))
    raw = np.frombuffer(stored.raw_data, np.uint8).astype(np.int16).reshape(stored.dims)
    unpacked = raw if bits == 8 else np.stack([raw & 15, raw >> 4], -1)
    np.testing.assert_array_equal(unpacked.reshape(48, 64) - 2 ** (bits - 1), values)
    assert raw.size == values.size * bits // 8


@pytest.mark.parametrize("three_d", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_openvino_multiplies_by_packed_weights_in_float(tmp_path, empty_engine, bits, three_d):
    x, expected, values = grouped(tmp_path / "a.onnx", bits=bits, three_d=three_d)
    apply_dialect("openvino", tmp_path / "a.onnx", tmp_path / "b.onnx")
    engine = BACKENDS["openvino"].compile(tmp_path / "b.onnx", TARGET, TARGET.runtimes[0], empty_engine, 3)
    assert [event.message[:48] for event in engine.events] == ["1 of 1 layers with packed weights multiply by th"]
    size = (empty_engine / "model.bin").stat().st_size
    assert values.size * bits // 8 < size < values.size * bits // 8 + 800  # scales and the bias
    with BACKENDS["openvino"].load(engine, 1) as runner:
        np.testing.assert_allclose(runner.infer({"x": x})["y"], expected, rtol=1e-5, atol=1e-4)


def test_a_grouped_weight_that_does_not_fit_is_refused(tmp_path):
    grouped(tmp_path / "a.onnx", bits=8)
    model = load_onnx(tmp_path / "a.onnx")
    next(weighted_nodes(model.graph))[0].metadata_props[BITS_KEY] = "4"
    save_onnx(model, tmp_path / "a.onnx")
    for name in ("ort-x86", "openvino"):
        with pytest.raises(GraphError, match="does not fit"):
            apply_dialect(name, tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_a_scaled_product_keeps_its_form(tmp_path):
    grouped(tmp_path / "a.onnx", bits=8)
    model = load_onnx(tmp_path / "a.onnx")
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    gemm.attributes["alpha"] = ir.AttrFloat32("alpha", 0.5)
    save_onnx(model, tmp_path / "a.onnx")
    apply_dialect("ort-x86", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "MatMulNBits" not in [node.op_type for node in load_onnx(tmp_path / "b.onnx").graph]
