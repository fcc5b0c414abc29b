"""A profile names layers as the user does, counts each weight once, and says what it assumed."""

from __future__ import annotations

import pytest
import torch
from compress_nets import NETS, TensorSpec, export, seeded
from torch import nn

from edgeopt.compress.profile import profile
from edgeopt.core.errors import ModelError
from edgeopt.model.load import load_model


def load(net, *shapes, names=("x",)):
    specs = [TensorSpec(name=n, dtype="float32", shape=s) for n, s in zip(names, shapes, strict=True)]
    return load_model(net, inputs=specs)


def profile_of(net, *shapes, sizes=None, names=("x",)):
    model = load(net, *shapes, names=names)
    return profile(model.program, model.inputs, sizes)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if inputs != out:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks, inputs = [], 64
        for width, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(Bottleneck(inputs, width, first if number == 0 else 1))
                inputs = 4 * width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(2048, 1000)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def test_a_resnet_50_has_its_published_figures():
    """25,557,032 parameters and 4.09 G multiply-accumulates at 224 x 224 (torchvision's table of weights)."""
    found = profile_of(ResNet50().eval(), ("batch", 3, 224, 224))
    assert sum(layer.parameters for layer in found.layers) == 25_557_032
    assert sum(layer.macs or 0 for layer in found.layers) == 4_089_184_256
    assert found.memory.peak == max(layer.live_bytes for layer in found.layers)
    assert found.batch == 1


def test_layers_are_named_as_the_user_knows_them():
    found = profile_of(seeded(*NETS["resnet"]), ("batch", 3, 16, 16))
    named = {layer.name: layer for layer in found.layers}
    assert list(named)[:5] == ["stem.0", "stem.1", "stem.2", "blocks.0.first.0", "blocks.0.first.1"]
    assert {"blocks.0.add_", "blocks.0.relu_", "blocks.1.shortcut.0", "mean", "head"} <= set(named)
    first = named["stem.0"]
    assert (first.op, first.output_shape, first.macs) == ("conv2d", (1, 16, 16, 16), 16 * 16 * 16 * 27)
    assert (first.parameters, first.weight_bytes, first.output_bytes) == (432, 1728, 16384)
    norm = named["stem.1"]
    assert (norm.macs, norm.parameters, norm.weight_bytes) == (None, 32, 256)  # running statistics are stored too


def test_the_peak_says_where_and_of_what():
    found = profile_of(seeded(*NETS["resnet"]), ("batch", 3, 16, 16))
    assert found.peak_layer == "blocks.0.first.1"
    assert [found.names[buffer.node] for buffer in found.memory.buffers] == [
        "stem.1",
        "blocks.0.first.0",
        "blocks.0.first.1",
    ]
    assert found.memory.peak == 3 * 16384


@pytest.mark.parametrize("name", NETS)
def test_every_weight_counts_once(name):
    kind, shape = NETS[name]
    model = load(seeded(kind, shape), ("batch", *shape), names=("input" if name == "mlp" else "x",))
    found = profile(model.program, model.inputs)
    assert sum(layer.parameters for layer in found.layers) == model.parameters
    assert len({layer.name for layer in found.layers}) == len(found.layers)


def test_a_tied_weight_belongs_to_its_first_reader():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    found = profile_of(Tied().eval(), ("batch", 6))
    assert [(layer.name, layer.parameters) for layer in found.layers if layer.macs] == [("first", 36), ("second", 0)]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).transpose(1, 2))


def test_an_open_size_is_the_one_of_the_export_or_the_one_that_is_given():
    model = load(Tokens().eval(), ("batch", 4, "tokens"))
    assert set(profile(model.program, model.inputs).sizes) == {"batch", "tokens"}
    found = profile(model.program, model.inputs, {"tokens": 10})
    assert found.sizes == {"batch": 1, "tokens": 10}
    assert [layer.macs for layer in found.layers if layer.macs] == [10 * 8 * 12, 10 * 24]


def test_a_batch_that_is_given_changes_bytes_and_not_macs():
    model = load(Tokens().eval(), ("batch", 4, "tokens"))
    one, four = (profile(model.program, model.inputs, {"tokens": 10, "batch": n}) for n in (1, 4))
    assert [layer.macs for layer in one.layers] == [layer.macs for layer in four.layers]
    assert four.memory.peak == 4 * one.memory.peak
    assert four.batch == 4


def test_a_fixed_batch_stays_and_is_said():
    model = export(Tokens().eval(), (4, 10), batch=3)
    found = profile(model.program, model.inputs)
    assert (found.batch, found.sizes) == (3, {})
    assert [layer.macs for layer in found.layers if layer.macs] == [10 * 8 * 12, 10 * 24]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"token": 3}, "no open dimension of that name.*tokens, batch"), ({"tokens": 0}, "does not take this size")],
)
def test_a_size_that_is_none_is_refused(sizes, words):
    model = load(Tokens().eval(), ("batch", 4, "tokens"))
    with pytest.raises(ModelError, match=words):
        profile(model.program, model.inputs, sizes)


def test_a_shape_that_depends_on_values_is_refused_with_the_op():
    class Chosen(nn.Module):
        def forward(self, x):
            return x[x > 0]

    program = torch.export.export(Chosen(), (torch.ones(4),))
    spec = TensorSpec(name="x", dtype="float32", shape=(4,))
    with pytest.raises(ModelError, match=r"cannot be followed without data.*index"):
        profile(program, [spec])
