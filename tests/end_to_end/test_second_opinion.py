"""The second runtime that an engine is held against computes what the graph says, on whatever CPU this is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quick import FAST
from torch import nn

import edgeopt

pytestmark = pytest.mark.long


class Branches(nn.Module):
    """Convolutions whose outputs are concatenated: OpenVINO computes its neutral int8 graph wrongly on some CPUs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.one, self.three = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.last = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)
        return self.head(self.last(x))


def test_onnx_runtime_alone_is_held_against_openvino_in_its_own_form(tmp_path):
    torch.manual_seed(0)
    net = Branches().eval()
    x = np.random.default_rng(0).normal(size=(300, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=net(torch.from_numpy(x)).argmax(1).numpy())
    program = torch.export.export(net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "model.pt2")
    bundle = edgeopt.compile(
        tmp_path / "model.pt2",
        target="x86-vnni",
        data=str(tmp_path / "data.npz"),
        recipe="int8-ptq",
        overrides=[word for word in FAST if word.startswith("measure.")],
        output=tmp_path / "bundle",
    )
    (row,) = [row for row in bundle.report.parity if row.stage == "onnxruntime-int8" and "openvino" in row.against]
    figures = {figure.name: figure.value for figure in row.figures}
    assert row.passed
    assert figures["sqnr_db"] > 20, figures
