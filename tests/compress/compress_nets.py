"""Small seeded nets, a data set that counts what is read of it, and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.compress.base import StepContext
from edgeopt.core.events import ignore_progress
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize, Recipe
from edgeopt.targets.schema import Target


class Conv(nn.Sequential):
    def __init__(self, inputs, outputs, kernel=3, stride=1, *, groups=1, act=nn.ReLU):
        layers = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([act(inplace=True)] if act else []))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.first, self.second = Conv(inputs, outputs, stride=stride), Conv(outputs, outputs, act=None)
        self.shortcut = Conv(inputs, outputs, 1, stride, act=None) if inputs != outputs else None

    def forward(self, x):
        y = self.second(self.first(x))
        y += x if self.shortcut is None else self.shortcut(x)
        return torch.relu_(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 16)
        self.blocks = nn.Sequential(Block(16, 16), Block(16, 32, 2), Block(32, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, width, outputs, stride=1):
        super().__init__()
        wide = 4 * width
        self.expand, self.depthwise = (
            Conv(width, wide, 1, act=nn.ReLU6),
            Conv(wide, wide, 3, stride, groups=wide, act=nn.ReLU6),
        )
        self.project, self.residual = Conv(wide, outputs, 1, act=None), stride == 1 and width == outputs

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            Conv(3, 8, act=nn.ReLU6),
            Inverted(8, 8),
            Inverted(8, 16, 2),
            Inverted(16, 16),
            Conv(16, 32, 1, act=nn.ReLU6),
        )
        self.classifier = nn.Linear(32, 10)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.out(y)
        return x + self.mlp(self.after(x))


class ViT(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls, self.position = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.encoder = nn.Sequential(Encoder(width, 4), Encoder(width, 4))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls.expand(y.shape[0], -1, -1), y], 1) + self.position
        return self.head(self.encoder(y)[:, 0])


class MLP(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


class Conv1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 16, 5, padding="same")
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Conv1d(16, 16, 3, groups=4)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.second(y)).mean(2))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs = nn.Linear(6, 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        y, _ = self.gru(torch.relu(self.inputs(x)))
        return self.head(y[:, -1])


NETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (3, 16, 16)),
    "mobilenet": (MobileNet, (3, 16, 16)),
    "mlp": (MLP, (20,)),
    "vit": (ViT, (3, 16, 16)),
    "conv1d": (Conv1d, (4, 24)),
    "gru": (Recurrent, (12, 6)),
}


def seeded(kind: Callable[[], nn.Module], shape: Sequence[int]) -> nn.Module:
    """The net in eval mode with weights and BatchNorm statistics that are not the trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind()
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)
        net.train()
        with torch.no_grad():
            for _ in range(20):
                net(torch.randn(64, *shape))
    return net.eval()


def export(net: nn.Module, *shapes: Sequence[int], batch: int | None = None, name: str = "net") -> TrainedModel:
    """A TrainedModel of a net whose inputs have these shapes (without the batch); dynamic where ``batch`` is None."""
    examples = tuple(torch.zeros(batch or 2, *shape) for shape in shapes)
    dim = torch.export.Dim("batch", min=1, max=4096)
    dynamic = None if batch else tuple({0: dim} for _ in shapes)
    signature = list(shapes)
    program = torch.export.export(net, examples, dynamic_shapes=dynamic)
    names = list(program.graph_signature.user_inputs)
    first = batch or "batch"
    inputs = tuple(
        TensorSpec(name=n, dtype="float32", shape=(first, *shape)) for n, shape in zip(names, signature, strict=True)
    )
    return TrainedModel(
        name=name,
        program=program,
        onnx_path=None,
        inputs=inputs,
        outputs=(TensorSpec(name="y", dtype="float32", shape=(first, "n")),),
        source=None,
        format="module",
        sha256="0" * 64,
        identity=name,
        parameters=sum(p.numel() for p in net.parameters()),
    )


class Arrays:
    """A Source over arrays; remembers which samples were read."""

    def __init__(self, *inputs: np.ndarray):
        self.inputs, self.seen = inputs, []

    def __len__(self):
        return len(self.inputs[0])

    def read(self, indices):
        self.seen.append(list(indices))
        return Batch(inputs=tuple(a[np.asarray(indices)] for a in self.inputs), targets=None)


def dataset(*inputs: np.ndarray) -> Dataset:
    split = Split(
        name="calibration", source=Arrays(*inputs), indices=np.arange(len(inputs[0])), how="given", fingerprint="f" * 64
    )
    return Dataset(name="arrays", task="unlabelled", splits={"calibration": split}, fingerprint="f" * 64)


def samples(count: int, shape: Sequence[int], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def make_target(**quantization: Any) -> Target:
    rules = {
        "quantized_ops": ("conv", "linear", "matmul", "add"),
        "residual_add": "skip",
        **quantization,
    }
    # The schema wants the two in step: none exactly where no addition is quantized.
    if "add" not in rules["quantized_ops"]:
        rules["residual_add"] = "none"
    elif rules["residual_add"] == "none":
        rules["quantized_ops"] = tuple(op for op in rules["quantized_ops"] if op != "add")
    runtime = {
        "name": "onnxruntime",
        "dialect": "ort-x86",
        "versions": ">=1.20",
        "precisions": ("fp32", "int8"),
        "opset_max": 20,
    }
    return Target.model_validate(
        {
            "schema_version": 1,
            "name": "bench",
            "title": "A test target",
            "isa": {"arch": "x86_64"},
            "runtimes": [runtime],
            "quantization": rules,
            "default_recipe": "int8-ptq",
            "float_recipe": "fp32",
            "sources": [{"fact": "none", "source": "none"}],
        }
    )


def make_recipe(*steps: Any, name: str = "int8") -> Recipe:
    return Recipe.model_validate({"schema_version": 1, "name": name, "steps": steps})


def make_config(**options: Any) -> Quantize:
    return Quantize.model_validate(
        {"precision": "int8", "observer": "minmax", "bias_correction": False, "calibration_samples": 128, **options}
    )


def make_context(data: Dataset | None, target: Target | None = None, **options: Any) -> StepContext:
    return StepContext(
        data=data,
        target=target or make_target(),
        seed=options.pop("seed", 0),
        progress=options.pop("progress", ignore_progress),
        **options,
    )


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


def run(program: Any, *inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return program.module()(*map(torch.from_numpy, inputs)).numpy()


@pytest.fixture(scope="session")
def nets() -> dict[str, tuple[TrainedModel, tuple[int, ...]]]:
    return {name: (export(seeded(kind, shape), shape, name=name), shape) for name, (kind, shape) in NETS.items()}
