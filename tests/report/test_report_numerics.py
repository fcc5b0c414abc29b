"""The table of other instruction sets; every figure in it is invented."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from sample_report import measured

from edgeopt.bundle.numerics import NumericsRow, NumericsSection, OutputDifference
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.numerics import numerics_html, numerics_json, numerics_markdown, numerics_table
from edgeopt.report.terminal import render
from edgeopt.report.terminal_numerics import render_numerics

HOSTILE = "<script>alert(1)</script>\x1b[31m[bold]|`*_\u202e"
WHY = "the CPU is emulated, so times and memory are the emulator's"


def output(differing=0, relative=0.0, changed=0, steps=True, name="y"):
    return OutputDifference(
        name=name,
        values=640,
        differing=differing,
        largest=None if relative is None else 10 * relative,
        relative=relative,
        steps=255 * relative if steps and relative is not None else None,
        changed_predictions=changed,
    )


def row(spec, *outputs, within=True, error="", accuracy=96.88, **more):
    name = f"qemu {spec[5:]} (emulated on x86_64)"
    figures = (
        measured("accuracy_top1_pct", accuracy, "%", accuracy - 3, accuracy + 2, 64, "Wilson"),
        measured("agreement_pct", 100.0, "%", 94.34, 100, 64, "Wilson"),
    )
    return NumericsRow(
        spec=spec,
        name=more.get("name", name),
        numerics_only=WHY,
        runtime_version="1.32.0",
        outputs=outputs,
        within=None if error else within,
        figures=() if error else figures,
        error=error,
    )


HOST = NumericsRow(
    spec="local",
    name="Synthetic CPU, 2 cores (test data)",
    runtime_version="1.32.0",
    figures=(measured("accuracy_top1_pct", 96.88, "%", 89.3, 99.14, 64, "Wilson"),),
)


def section(*rows, **changes):
    made = NumericsSection(
        engine="onnxruntime-int8",
        runtime="onnxruntime",
        precision="int8",
        data="digits",
        split="test",
        samples=64,
        of=800,
        expected="at most 1 step of 1/255 of each output's range",
        host=HOST,
        rows=rows,
    )
    return made.model_copy(update=changes)


WHOLE = section(
    row("qemu:cortex-a53", output()),
    row("qemu:haswell", output(639, 0.17, 1), within=False, accuracy=95.31),
    row("qemu:max", error="qemu max has no onnxruntime."),
)


def terminal(found, width):
    console = Console(file=io.StringIO(), width=width)
    render_numerics(found, console)
    return console.file.getvalue()


def test_the_comparison_in_markdown_is_as_it_was_read(golden):
    golden("numerics.md", numerics_markdown(WHOLE))


def test_the_comparison_in_a_terminal_of_80_columns_is_as_it_was_read(golden):
    text = terminal(WHOLE, 80)
    golden("numerics_80.txt", text)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_the_comparison_as_json_is_what_it_was_made_of():
    assert NumericsSection.model_validate(json.loads(numerics_json(WHOLE))) == WHOLE


def test_a_report_has_the_section_where_there_is_one(sample_report):
    with_it = sample_report.model_copy(update={"numerics": WHOLE})
    console = Console(file=io.StringIO(), width=100)
    render(with_it, console)
    for text in (to_markdown(with_it), to_html(with_it), console.file.getvalue()):
        assert "Other instruction sets" in text
        assert "639 of 640" in text
    for text in (to_markdown(sample_report), to_html(sample_report)):
        assert "Other instruction sets" not in text


def test_float_engines_are_told_as_a_share_and_all_samples_as_such():
    table = numerics_table(section(row("qemu:max", output(500, 2.4e-7, steps=False)), of=64))
    assert "largest difference, of the range" in table.heads
    assert "2.4e-07" in table.rows[1]
    assert "on 64 samples" in table.caption


def test_the_output_that_differs_most_is_named_where_there_are_several():
    table = numerics_table(section(row("qemu:max", output(1, 0.001, name="boxes"), output(2, 0.5, name="scores"))))
    assert "128 (scores)" in table.rows[1]
    (bad,) = numerics_table(section(row("qemu:max", output(1, 0.1), output(2, None)))).rows[1:]
    assert "not a number" in bad


def test_nothing_from_outside_is_taken_as_markup():
    found = section(row("qemu:max", error=HOSTILE), data=HOSTILE)
    assert "<script>" not in numerics_html(found)
    assert "<script>" not in numerics_markdown(found).replace("\\<", "")
    for text in (numerics_markdown(found), numerics_html(found), terminal(found, 120)):
        assert "\x1b[31m" not in text


@pytest.mark.parametrize("width", [60, 100])
def test_a_comparison_in_which_nothing_ran_says_so(width):
    text = terminal(section(row("qemu:max", error="It died.")), width)
    assert "not run" in text
    assert "It died." in text
