"""Programs become ONNX with the names, shapes, opset and ranges that were asked for, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph_nets import NETS, make_program, run_reference, smooth, trained
from torch import nn

from edgeopt.core.errors import GraphError
from edgeopt.core.spec import TensorSpec
from edgeopt.graph import io
from edgeopt.graph.export import export_onnx
from edgeopt.graph.taps import tap

X = TensorSpec(name="x", dtype="float32", shape=("batch", 20))
Y = TensorSpec(name="logits", dtype="float32", shape=("batch", 10))


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def ranges_of(path: Path) -> dict[str, tuple[str, float, float]]:
    """QuantizeLinear output → (its input, low, high), read without edgeopt's own code."""
    found = {}
    for node in onnx.load(path).graph.node:
        for prop in node.metadata_props:
            if prop.key == "edgeopt.range":
                low, high = map(float, prop.value.split())
                found[node.output[0]] = (node.input[0], low, high)
    return found


@pytest.mark.parametrize("name", ["mlp", "vit", "pooled"])
def test_the_float_graph_computes_what_torch_computes(case, name):
    net = case(name)
    expected = net.program.module()(torch.from_numpy(net.samples)).detach().numpy()
    actual = run_reference(net.float_path, {"x": net.samples})["logits"]
    # float32 sums in another order: 1e-5 of the outputs' size is a hundred roundings
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["mlp", "vit", "pooled", "resnet"])
def test_the_int8_graph_computes_what_torch_computes_up_to_single_steps(case, name):
    net = case(name)
    expected = net.quantized.module()(torch.from_numpy(net.samples)).detach().numpy().astype(np.float64)
    actual = run_reference(net.int8_path, {"x": net.samples})["logits"]
    # a value on the edge between two points may round either way: noise 30 dB below the signal at most
    assert 10 * np.log10((expected**2).sum() / max(((expected - actual) ** 2).sum(), 1e-300)) > 30


def test_inputs_and_outputs_have_the_names_and_dimensions_of_the_specs(case):
    graph = onnx.load(case("resnet").int8_path).graph
    assert [(v.name, dims(v)) for v in graph.input] == [("x", ["batch", 3, 32, 32])]
    assert [(v.name, dims(v)) for v in graph.output] == [("logits", ["batch", 10])]


def test_a_batch_can_be_fixed_and_leaves_no_shape_arithmetic_behind(case, tmp_path):
    net = case("vit")
    export_onnx(net.program, net.inputs, net.outputs, tmp_path / "m.onnx", opset=20, dynamic_batch=False)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert dims(graph.input[0]) == [1, 3, 32, 32]
    assert dims(graph.output[0]) == [1, 10]
    assert "Shape" not in {node.op_type for node in graph.node}
    expected = run_reference(net.float_path, {"x": net.samples[:1]})["logits"]
    actual = run_reference(tmp_path / "m.onnx", {"x": net.samples[:1]})["logits"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_spec_with_a_number_fixes_the_dimension_to_it(case, tmp_path):
    net = case("mlp")
    inputs = [net.inputs[0].with_batch(4)]
    result = export_onnx(net.program, inputs, net.outputs, tmp_path / "m.onnx", opset=20)
    assert dims(onnx.load(tmp_path / "m.onnx").graph.input[0]) == [4, 20]
    assert [event.message for event in result.events] == ["x: dimension 0 is 4."]


def test_the_opset_is_the_one_asked_for(case):
    assert [(o.domain, o.version) for o in onnx.load(case("resnet").int8_path).opset_import] == [("", 20)]


def test_an_opset_that_the_exporter_silently_leaves_is_refused(case, tmp_path):
    net = case("mlp")
    with pytest.raises(GraphError, match="did not reach the opset"):
        export_onnx(net.quantized, net.inputs, net.outputs, tmp_path / "m.onnx", opset=12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_same_program_gives_the_same_bytes_in_two_processes(case, tmp_path):
    net = case("vit")
    torch.export.save(net.quantized, tmp_path / "q.pt2")
    code = (
        "import sys, torch, pathlib, json\n"
        "import torch.ao.quantization.fx._decomposed\n"
        "from edgeopt.core.spec import TensorSpec\n"
        "from edgeopt.graph.export import export_onnx\n"
        "x = TensorSpec(name='x', dtype='float32', shape=('batch', 3, 32, 32))\n"
        "y = TensorSpec(name='logits', dtype='float32', shape=('batch', 10))\n"
        "ranges = json.loads(sys.argv[3])\n"
        "p = torch.export.load(sys.argv[1])\n"
        "export_onnx(p, [x], [y], pathlib.Path(sys.argv[2]), opset=20, ranges=ranges)\n"
    )
    hashes = []
    for seed in ("1", "2"):
        folder = tmp_path / f"another folder {seed}"
        folder.mkdir()
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        arguments = [str(tmp_path / "q.pt2"), str(folder / "m.onnx"), __import__("json").dumps(net.ranges)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=env, cwd=folder, capture_output=True)
        hashes.append(hashlib.sha256((folder / "m.onnx").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1]


def test_the_file_names_no_path_and_no_module_of_the_exporting_machine(case):
    data = case("resnet").int8_path.read_bytes()
    for trace in (b"site-packages", b"/torch", b'File "', b".py", b"conftest", b"torch.nn"):
        assert trace not in data


def test_every_range_lies_on_the_tensor_it_was_seen_on(case):
    net = case("resnet")
    placed = ranges_of(net.int8_path)
    assert len(placed) == len(net.ranges)
    calibration = np.concatenate([smooth(32, (3, 32, 32), seed) for seed in (10, 11)])
    values = tap(net.int8_path, {i for i, _, _ in placed.values()} - {"x"}, {"x": calibration}, run_reference)
    values["x"] = calibration
    for tensor, low, high in placed.values():
        slack = 0.03 * (high - low)  # single int8 steps that round the other way in another runtime
        assert abs(values[tensor].min() - low) <= slack
        assert abs(values[tensor].max() - high) <= slack
    assert len({(low, high) for _, low, high in placed.values()}) > len(placed) // 2


class Renamed(nn.Module):
    """RMSNorm and std are decomposed by the exporter, which renumbers every ``add`` and ``mul``."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(20, 20), nn.Linear(20, 10), nn.RMSNorm(20)

    def forward(self, x):
        y = self.norm(self.a(x) + x) * 3
        return self.b(y / (y.std(-1, keepdim=True) + 1) + x)


def quantized_renamed():
    from graph_nets import quantize

    net = trained(Renamed, (20,))
    return quantize(make_program(net, (20,)), [torch.from_numpy(smooth(32, (20,), 10))])


def test_ranges_follow_the_node_even_where_its_name_goes_to_another(tmp_path):
    program, ranges = quantized_renamed()
    first, second = (n for n in program.graph.nodes if "quantize_per_tensor" in n.name and not n.name.startswith("d"))
    seen = [ranges[first.name], ranges[second.name]]
    # the exporter gives names anew, in order: after this swap each name denotes the other node
    names = [first.name, second.name]
    first.name, second.name = reversed(names)
    swapped = {first.name: seen[0], second.name: seen[1]}
    assert swapped[names[1]] == seen[0]
    export_onnx(program, [X], [Y], tmp_path / "m.onnx", opset=20, ranges=swapped)
    placed = ranges_of(tmp_path / "m.onnx")
    by_input = {tensor: (low, high) for tensor, low, high in placed.values()}
    assert by_input["x"] == seen[0]
    assert [r for t, r in by_input.items() if t != "x"] == [seen[1]]


def test_each_layer_is_marked_with_its_node_in_the_program(case):
    net = case("resnet")  # BatchNorm is folded: the exporter calls the convolutions after it
    marks = [
        prop.value
        for node in onnx.load(net.float_path).graph.node
        for prop in node.metadata_props
        if prop.key == "edgeopt.node"
    ]
    layers = [n.name for n in net.program.graph.nodes if str(n.target).startswith(("aten.conv", "aten.linear"))]
    assert marks == layers


class Same(nn.Module):
    """The exporter turns a convolution with named padding into another operation."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(2, 4, 3, padding="same"), nn.Conv1d(4, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        return self.c(self.b(self.a(x)).mean(2))


def test_a_layer_that_changes_its_operation_is_marked_all_the_same(tmp_path):
    program = torch.export.export(Same().eval(), (torch.zeros(3, 2, 8),))
    x, y = (TensorSpec(name=n, dtype="float32", shape=s) for n, s in (("x", (3, 2, 8)), ("y", (3, 10))))
    export_onnx(program, [x], [y], tmp_path / "m.onnx", opset=20)
    marks = [p.value for node in onnx.load(tmp_path / "m.onnx").graph.node for p in node.metadata_props]
    assert marks == ["conv1d", "conv1d_1", "linear"]


def test_a_graph_that_is_not_valid_does_not_stay(case, tmp_path, monkeypatch):
    net = case("mlp")

    def refuse(*_, **__):
        raise onnx.checker.ValidationError("made to fail")

    monkeypatch.setattr("onnx.checker.check_model", refuse)
    with pytest.raises(GraphError, match=r"not valid ONNX.*made to fail"):
        export_onnx(net.program, net.inputs, net.outputs, tmp_path / "m.onnx", opset=20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"nowhere": (0.0, 1.0)}, "names no quantize node"),
        ({"quantize_per_tensor": (1.0, 0.0)}, "is not a range"),
        ({"quantize_per_tensor": (0.0, float("nan"))}, "is not a range"),
    ],
)
def test_a_range_that_cannot_be_placed_is_refused(case, tmp_path, ranges, message):
    net = case("mlp")
    with pytest.raises(GraphError, match=message):
        export_onnx(net.quantized, net.inputs, net.outputs, tmp_path / "m.onnx", opset=20, ranges=ranges)


def test_the_number_of_specs_must_be_the_programs(case, tmp_path):
    net = case("mlp")
    with pytest.raises(GraphError, match="has 1 inputs"):
        export_onnx(net.program, [*net.inputs, *net.inputs], net.outputs, tmp_path / "m.onnx", opset=20)


def test_a_fixed_dimension_cannot_be_declared_open(tmp_path):
    program = torch.export.export(NETS["mlp"][0]().eval(), (torch.zeros(3, 20),))
    with pytest.raises(GraphError, match="fixed to 3"):
        export_onnx(program, [X], [Y], tmp_path / "m.onnx", opset=20)


def test_a_rank_that_is_not_the_programs_is_refused(case, tmp_path):
    net = case("mlp")
    flat = [TensorSpec(name="x", dtype="float32", shape=("batch",))]
    with pytest.raises(GraphError, match="another rank"):
        export_onnx(net.program, flat, net.outputs, tmp_path / "m.onnx", opset=20)


class Unexportable(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x @ x.transpose(-1, -2)).real


def test_what_torch_cannot_export_is_named_with_two_ways_out(tmp_path):
    program = torch.export.export(Unexportable(), (torch.randn(3, 4, 4),))
    spec = TensorSpec(name="x", dtype="float32", shape=(3, 4, 4))
    with pytest.raises(GraphError, match=r"linalg_eig.*Two ways out"):
        export_onnx(program, [spec], [spec], tmp_path / "m.onnx", opset=20)
    assert list(tmp_path.iterdir()) == []


def test_beyond_the_size_of_a_message_tensors_go_beside_the_file(case, tmp_path, monkeypatch):
    net = case("pooled")
    monkeypatch.setattr(io, "_PROTOBUF_LIMIT", 1000)
    export_onnx(net.program, net.inputs, net.outputs, tmp_path / "m.onnx", opset=20)
    data = [path.name for path in tmp_path.iterdir() if path.suffix == ".data"]
    assert len(data) == 1
    assert len(list(tmp_path.iterdir())) == 2
    expected = run_reference(net.float_path, {"x": net.samples})["logits"]
    np.testing.assert_array_equal(run_reference(tmp_path / "m.onnx", {"x": net.samples})["logits"], expected)
