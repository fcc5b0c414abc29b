"""One small net per kind of graph that a dialect must keep, quantized as the CPU targets are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from graph_nets import MobileNet, ResNet, ViT, mlp, smooth
from torch import nn

from edgeopt.compress.base import StepContext
from edgeopt.compress.registry import STEPS
from edgeopt.core.events import ignore_progress
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.graph.export import export_onnx
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.load import find_target

__all__ = ["NETS", "quantized"]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: Callable[[], nn.Module] = nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), act()
    )


class Head(nn.Module):
    """A body, the mean over its spatial axes, a linear layer."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return self.fc(y.mean(tuple(range(2, y.ndim))))


class Inception(nn.Module):
    """Four branches, two of them pools, on one grid."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(inputs, width, 1), nn.Sequential(conv(inputs, width, 1), conv(width, width))
        self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, width, 1))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


class Excite(nn.Module):
    """Squeeze and excitation: a gate per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = conv(width, width, act=nn.SiLU), conv(width, width, 1)
        self.down, self.up = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        gate = torch.sigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return x + self.last(y * gate)


class UNet(nn.Module):
    """A transposed convolution, and a skip connection that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.up, self.c = (
            conv(3, 16),
            conv(16, 32, 3, 2),
            nn.ConvTranspose2d(32, 16, 2, 2),
            conv(32, 16),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.a(x)
        return self.c(torch.cat([self.up(self.b(skip)), skip], 1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.fc = (
            nn.Conv1d(13, 16, 5, padding=2),
            nn.GRU(16, 16, batch_first=True),
            nn.Linear(16, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.gru(torch.relu(self.conv(x)).transpose(1, 2))
        return self.fc(y.mean(1))


def conv1d(kernel: int, inputs: int) -> nn.Module:
    body = nn.Sequential(
        nn.Conv1d(inputs, 16, kernel, 2, kernel // 2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 32, kernel, 1, kernel // 2), nn.BatchNorm1d(32), nn.ReLU(),
    )  # fmt: skip
    return Head(body, 32)


def activation(act: Callable[[], nn.Module]) -> nn.Module:
    return Head(nn.Sequential(conv(3, 16, act=act), conv(16, 16, act=act), conv(16, 16, act=act)), 16)


_IMAGE = (3, 16, 16)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "inception": (lambda: Head(nn.Sequential(conv(3, 16), Inception(16, 16), Inception(64, 16)), 64), _IMAGE),
    "prelu": (lambda: activation(lambda: nn.PReLU(16)), _IMAGE),
    "excite": (lambda: Head(nn.Sequential(conv(3, 16), Excite(16), Excite(16)), 16), _IMAGE),
    "long conv": (lambda: conv1d(65, 1), (1, 256)),
    "conv1d": (lambda: conv1d(5, 13), (13, 48)),
    "unet": (lambda: Head(UNet(), 16), _IMAGE),
    "gru": (Recurrent, (13, 24)),
    "hardswish": (lambda: activation(nn.Hardswish), _IMAGE),
    "gelu": (lambda: activation(nn.GELU), _IMAGE),
    "resnet": (ResNet, (3, 32, 32)),
    "mobilenet": (MobileNet, (3, 32, 32)),
    "vit": (ViT, (3, 32, 32)),
    "mlp": (mlp, (20,)),
}


class _Arrays:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: object) -> Batch:
        return Batch(inputs=(self.array[np.asarray(indices)],), targets=None)


def quantized(name: str, folder: Path) -> tuple[Path, Path, np.ndarray]:
    """The float and the neutral int8 graph of a net, and samples that it was not calibrated on."""
    build, shape = NETS[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = build().train()
        for seed in range(10):  # BatchNorm statistics
            net(torch.from_numpy(smooth(16, shape, 100 + seed)))
    spec, out = (TensorSpec(name=n, dtype="float32", shape=("batch", *s)) for n, s in (("x", shape), ("y", (10,))))
    example = torch.from_numpy(smooth(3, shape, 3))
    program = torch.export.export(net.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    model = TrainedModel(
        name=name, program=program, onnx_path=None, inputs=(spec,), outputs=(out,), source=None, format="module",
        sha256="0" * 64, identity=name, parameters=1,
    )  # fmt: skip
    data = smooth(64, shape, 11)
    split = Split(
        name="calibration", source=_Arrays(data), indices=np.arange(len(data)), how="given", fingerprint="f" * 64
    )
    dataset = Dataset(name="arrays", task="unlabelled", splits={"calibration": split}, fingerprint="f" * 64)
    config = Quantize.model_validate(
        {"precision": "int8", "observer": "histogram", "bias_correction": False, "calibration_samples": 64}
    )
    context = StepContext(data=dataset, target=find_target("x86-vnni"), seed=0, progress=ignore_progress)
    result = STEPS["quantize"].run(model, config, context)
    float_path, int8_path = folder / "float.onnx", folder / "int8.onnx"
    export_onnx(program, (spec,), (out,), float_path, opset=20)
    export_onnx(result.model.program, (spec,), (out,), int8_path, opset=20, ranges=result.ranges)
    return float_path, int8_path, smooth(256, shape, 77)
