"""Small nets, quantized by a minimal quantizer, exported once per session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from edgeopt.core.spec import TensorSpec
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx
from edgeopt.graph.passes.round_bfloat16 import has_bfloat16, write_rounded

ATEN = torch.ops.aten
CONVOLUTIONS = {ATEN.conv2d.default, ATEN.conv1d.default}
WEIGHTED = {*CONVOLUTIONS, ATEN.linear.default}
PRODUCTS = {ATEN.matmul.default, ATEN.bmm.default}
ADDITIONS = {ATEN.add.Tensor, ATEN.add_.Tensor}
TRANSPARENT = {ATEN.relu.default, ATEN.relu_.default, ATEN.batch_norm.default, ATEN.hardtanh.default}


@dataclass(frozen=True)
class Case:
    """A net in all the forms that the tests look at."""

    name: str
    program: torch.export.ExportedProgram
    quantized: torch.export.ExportedProgram
    ranges: Mapping[str, tuple[float, float]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: np.ndarray
    float_path: Path
    int8_path: Path


class InputsQuantizer(Quantizer):
    """Quantizes what flows into weighted ops, products of activations, and residual additions."""

    def __init__(self, *, residual: str = "both") -> None:
        super().__init__()
        self.residual = residual
        self.activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric,
            observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=2**-12),
        )
        self.weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
        )

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        for node in model.graph.nodes:
            specs = {}
            if node.target in WEIGHTED:
                specs = {node.args[0]: self.activation, node.args[1]: self.weight}
            elif node.target in PRODUCTS:
                specs = dict.fromkeys(node.args[:2], self.activation)
            elif node.target in ADDITIONS and all(isinstance(a, torch.fx.Node) for a in node.args[:2]):
                from_conv = [_source(a).target in CONVOLUTIONS for a in node.args[:2]]
                if any(from_conv) and self.residual == "both":
                    specs = dict.fromkeys(node.args[:2], self.activation)
                elif any(from_conv) and self.residual == "skip":
                    skip = [a for a, conv in zip(node.args[:2], from_conv, strict=True) if not conv] or [node.args[1]]
                    specs = {skip[0]: self.activation}
            if specs:
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        pass


def _source(node: torch.fx.Node) -> torch.fx.Node:
    while node.target in TRANSPARENT:
        node = node.args[0]
    return node


def quantize(
    program: torch.export.ExportedProgram, batches: list[torch.Tensor], *, residual: str = "both"
) -> tuple[torch.export.ExportedProgram, dict[str, tuple[float, float]]]:
    """Calibrate on ``batches``; also return what each quantize node saw: name → (low, high)."""
    prepared = prepare_pt2e(program.module(), InputsQuantizer(residual=residual))
    for batch in batches:
        prepared(batch)
    converted = convert_pt2e(prepared)
    example = batches[0][:3].clone()
    exported = torch.export.export(converted, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    return exported, observe(exported, batches)


def observe(program: torch.export.ExportedProgram, batches: list[torch.Tensor]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value that flows into each quantize node."""
    seen: dict[str, tuple[float, float]] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> object:
            if node.target is torch.ops.quantized_decomposed.quantize_per_tensor.default:
                value = self.env[node.args[0]]
                low, high = seen.get(node.name, (np.inf, -np.inf))
                seen[node.name] = (min(low, value.min().item()), max(high, value.max().item()))
            return super().run_node(node)

    module = program.module(check_guards=False)
    for batch in batches:
        Watch(module).run(batch)
    return seen


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.down = None
        if stride != 1 or channels_in != channels:
            self.down = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):
    """ResNet-20's shape, narrow and with ``depth`` blocks per stage."""

    def __init__(self, depth: int = 3, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for stage in range(3):
            for index in range(depth):
                blocks.append(Block(channels, width << stage, 2 if stage and not index else 1))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(x))))
        return self.fc(x.mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * 4
        self.same = stride == 1 and channels_in == channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(
            Inverted(8, 8, 1), Inverted(8, 8, 1), Inverted(8, 16, 2), *[Inverted(16, 16, 1) for _ in range(4)]
        )
        self.head = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(torch.matmul(q, k.transpose(-2, -1)) * (d // self.heads) ** -0.5, -1)
        return self.out(torch.matmul(a, v).transpose(1, 2).reshape(n, t, d))


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        self.layers = nn.Sequential(*[Layer(width) for _ in range(depth)])
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.fc(self.norm(self.layers(x))[:, 0])


class Branches(nn.Module):
    """Concatenation, max-pooling, hard swish and sigmoid gating."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.gate = nn.Linear(16, 16)
        self.c, self.fc = nn.Conv2d(16, 8, 3, padding=1), nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1)
        y = nn.functional.max_pool2d(y, 2)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        y = nn.functional.hardswish(self.c(y))
        return self.fc(torch.flatten(nn.functional.max_pool2d(y, 4), 1))


class Pooled(nn.Module):
    """The plain classifier: convolution, ReLU, max-pooling, twice; then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (3, 32, 32)),
    "mobilenet": (MobileNet, (3, 32, 32)),
    "mlp": (mlp, (20,)),
    "vit": (ViT, (3, 32, 32)),
    "branches": (Branches, (3, 32, 32)),
    "pooled": (Pooled, (1, 8, 8)),
}


def smooth(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Image-like samples: low-frequency content, a different mean per sample."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *shape))
    if len(shape) == 3:
        for axis in (2, 3):
            x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / 3**0.5
    return (x + rng.normal(size=(count,) + (1,) * len(shape)) * 0.5).astype(np.float32)


def trained(build: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """A net with BatchNorm statistics and a few steps of training, so activations look like activations."""
    torch.manual_seed(seed)
    net = build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(12):
        x = torch.from_numpy(smooth(16, shape, 1000 + step))
        y = torch.from_numpy((np.abs(x.numpy().reshape(16, -1)[:, :10]).argmax(1)).astype(np.int64))
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def make_program(net: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    x = torch.from_numpy(smooth(3, shape, 3))
    return torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """``case("resnet")``: built on first use, then shared by the whole session."""
    made: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in made:
            made[name] = _make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def _make(name: str, folder: Path) -> Case:
    build, shape = NETS[name]
    program = make_program(trained(build, shape), shape)
    quantized, ranges = quantize(program, [torch.from_numpy(smooth(32, shape, s)) for s in (10, 11)])
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", *shape)),)
    outputs = (TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),)
    float_path, int8_path = folder / "float.onnx", folder / "int8.onnx"
    export_onnx(program, inputs, outputs, float_path, opset=20)
    export_onnx(quantized, inputs, outputs, int8_path, opset=20, ranges=ranges)
    return Case(name, program, quantized, ranges, inputs, outputs, smooth(32, shape, 77), float_path, int8_path)


@pytest.fixture(scope="session")
def run() -> Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """ONNX Runtime with every optimization off: what the graph says, nothing else."""
    return run_reference


def run_reference(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return _run(path, inputs, optimize=False)


def run_optimized(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return _run(path, inputs, optimize=True)


def run_openvino(path: Path, x: np.ndarray) -> np.ndarray:
    """The first output at the batch of ``x``, in float32 where the graph is float."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({model.inputs[0]: list(x.shape)})
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


def _run(path: Path, inputs: Mapping[str, np.ndarray], *, optimize: bool) -> dict[str, np.ndarray]:
    """Every output; what is bfloat16 as float32, each value rounded."""
    import onnxruntime as ort

    if has_bfloat16(model := load_onnx(path)):
        path = write_rounded(model, path.with_name(f"{path.stem}_rounded.onnx"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(inputs)), strict=True))


def optimized_ops(path: Path, target: Path) -> dict[str, int]:
    """The op types of the graph that ONNX Runtime would really run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    counts: dict[str, int] = {}
    for node in onnx.load(target).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def build(text: str, constants: Mapping[str, np.ndarray]) -> ir.Model:
    """A graph from ONNX's text form and its constants."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    for name, array in constants.items():
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(array.shape)
        model.graph.register_initializer(value)
    return model


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
