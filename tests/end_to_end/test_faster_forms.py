"""A compile for this machine times the forms that may be faster, tells what came of it, and keeps to the recipe's limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK

import edgeopt
from edgeopt.targets.host import detect_host

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not {"avx512_vnni", "avx_vnni"} & set(detect_host().features), reason="the form is for x86-64 CPUs with VNNI"
    ),
]
EXAMPLE = Path(edgeopt.__file__).parents[1] / "examples/digits/model.pt2"
FORM = "ort-x86-float-stem"


def compiled(folder, *overrides):
    bundle = edgeopt.compile(
        EXAMPLE, target="local", data="digits", recipe="int8-ptq", overrides=[*QUICK, *overrides], output=folder
    )
    (candidate,) = [one for one in bundle.report.candidates if one.id == "onnxruntime-int8"]
    return candidate, [event.message for event in bundle.report.events if FORM in event.message]


def test_the_forms_figures_are_in_the_report_and_what_is_taken_is_what_won(tmp_path):
    candidate, (message,) = compiled(tmp_path / "bundle")
    assert message.startswith(f"The form {FORM} took ")
    assert candidate.dialect == (FORM if message.endswith("it is taken.") else "ort-x86")
    assert candidate.status == "measured"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("measure.forms=false", []),
        ("limits.int8_macs=1.0", ["limits.int8_macs asks for 100 %"]),
    ],
)
def test_a_form_that_is_not_wanted_is_not_timed(tmp_path, override, said):
    candidate, messages = compiled(tmp_path / "bundle", override)
    assert candidate.dialect == "ort-x86"
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert message.startswith(f"The form {FORM} is not timed: ")
        assert words in message


class Spoken(torch.nn.Module):
    """A convolution and a GRU, whose products int8 leaves in float."""

    def __init__(self):
        super().__init__()
        self.front, self.gru = torch.nn.Conv1d(13, 48, 5, padding=2), torch.nn.GRU(48, 64, batch_first=True)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.gru(self.front(x).relu().transpose(1, 2))[0].mean(1))


@pytest.mark.skipif("avx512_bf16" not in detect_host().features, reason="this CPU has no bfloat16 instructions")
def test_a_recurrent_cell_is_timed_in_bfloat16_and_what_it_runs_in_is_told(tmp_path):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    net, x = Spoken().eval(), torch.randn(300, 13, 48)
    batch = torch.export.Dim("batch", max=512)
    torch.export.save(torch.export.export(net, (x[:2].clone(),), dynamic_shapes=({0: batch},)), tmp_path / "net.pt2")
    labels = net(x).argmax(1).numpy()
    np.savez(tmp_path / "net.npz", x=x[:200].numpy(), y=labels[:200], x_calibration=x[200:].numpy())
    bundle = edgeopt.compile(
        tmp_path / "net.pt2",
        target="local",
        data=str(tmp_path / "net.npz"),
        recipe="int8-ptq",
        overrides=QUICK,
        output=tmp_path / "bundle",
    )
    (message,) = {e.message for e in bundle.report.events if "The form openvino-bf16-products" in e.message}
    (made,) = [one for one in bundle.report.candidates if one.id == "openvino-int8"]
    assert " of the time of openvino (" in message
    is_taken = message.endswith("it is taken.")
    assert made.dialect == ("openvino-bf16-products" if is_taken else "openvino")
    (cell,) = [op for op in made.coverage.ops if op.op == "GRU"]
    assert cell.runs_in == ("bfloat16" if is_taken else "float32")
