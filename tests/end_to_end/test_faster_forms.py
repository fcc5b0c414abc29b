"""A compile for this machine times the forms that may be faster, tells what came of it, and keeps to the recipe's limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from quick import FAST

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
    quick = [word for word in FAST if word.startswith("measure.") and "forms" not in word]
    bundle = edgeopt.compile(
        EXAMPLE, target="local", data="digits", recipe="int8-ptq", overrides=[*quick, *overrides], output=folder
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
