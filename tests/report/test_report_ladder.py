"""The rungs of a ladder in every form of the report."""

import io
import re

import pytest
from rich.console import Console

from edgeopt.bundle.document import LadderSection, Report, RungRow
from edgeopt.core.measurement import Interval, Measurement
from edgeopt.report.html import to_html
from edgeopt.report.ladder import rung_lines
from edgeopt.report.markdown import to_markdown
from edgeopt.report.rung_plot import rung_plot
from edgeopt.report.terminal import render


def figure(name, value, unit, low=None, high=None):
    interval = None if low is None else Interval(low=low, high=high, method="bootstrap")
    return Measurement(name=name, value=value, unit=unit, interval=interval, n=360, device="test data")


def tried(name, status, message, drop, ratio, *, wall, elapsed):
    return RungRow(
        name=name,
        status=status,
        message=message,
        candidate=f"openvino-int8@{name}",
        figures=(
            figure("accuracy_top1_pct", 98.0 - drop, "%"),
            figure("drop_pp", drop, "pp", drop - 0.5, drop + 0.5),
            figure("latency_p50_ms", ratio * 2, "ms"),
            figure("latency_ratio", ratio, "1", ratio * 0.97, ratio * 1.03),
            figure("size_mib", 0.3, "MiB"),
        ),
        wall=figure("wall_s", wall, "s"),
        elapsed=figure("elapsed_s", elapsed, "s"),
    )


LADDER = LadderSection(
    ended="met",
    summary="The ladder stopped at int8-qat, which meets the limits.",
    max_minutes=30.0,
    rungs=(
        RungRow(name="fp16", status="skipped", message="No runtime of local runs fp16 to advantage."),
        tried("int8-ptq", "missed", "drop_pp 3.2 (limit 1).", 3.2, 0.5, wall=30, elapsed=40),
        RungRow(
            name="int8-mixed",
            status="failed",
            message="Stage 'quantize' does not agree.",
            wall=figure("wall_s", 60.0, "s"),
            elapsed=figure("elapsed_s", 100.0, "s"),
        ),
        tried("int8-qat", "met", "", 0.2, 0.52, wall=600, elapsed=700),
        RungRow(name="w4a8", status="not_needed", message="An earlier rung met the limits."),
    ),
)


@pytest.fixture
def ladder_report(sample_report) -> Report:
    return sample_report.model_copy(update={"ladder": LADDER})


def terminal(report, width):
    console = Console(file=io.StringIO(), width=width)
    render(report, console)
    return console.file.getvalue()


def part(text, start, stop):
    return text[text.index(start) : text.index(stop)]


def test_the_ladder_in_markdown_is_as_it_was_read(ladder_report, golden):
    golden("ladder.md", part(to_markdown(ladder_report), "## Ladder", "## Candidates"))


def test_the_ladder_in_a_terminal_of_80_columns_is_as_it_was_read(ladder_report, golden):
    text = part(terminal(ladder_report, 80), "Ladder", "Not measured")
    golden("ladder_80.txt", text)
    assert max(map(len, text.splitlines())) <= 80


def test_the_page_has_a_row_per_rung_and_a_picture_with_its_words(ladder_report):
    html = to_html(ladder_report)
    section = part(html, "<h2>Ladder</h2>", "<h2>Candidates</h2>")
    assert section.count('<th scope="row">') == 5
    assert 'aria-label="Drop against latency of each rung: int8-ptq 3.20 pp at 0.500; int8-qat 0.20 pp' in section
    assert len(re.findall(r"<title>int8-\w+: drop ", section)) == 2
    assert "No runtime of local runs fp16 to advantage." in section


def test_a_report_without_a_ladder_says_nothing_of_it(sample_report):
    assert rung_lines(sample_report) == ()
    assert rung_plot(sample_report) is None
    for text in (to_html(sample_report), to_markdown(sample_report), terminal(sample_report, 100)):
        assert "Ladder" not in text


def test_a_ladder_without_a_rung_that_has_both_figures_has_no_picture(ladder_report):
    section = LADDER.model_copy(update={"rungs": (LADDER.rungs[0], LADDER.rungs[2])})
    report = ladder_report.model_copy(update={"ladder": section})
    assert rung_plot(report) is None
    assert "failed" in part(to_html(report), "<h2>Ladder</h2>", "<h2>Candidates</h2>")


def test_hostile_rungs_are_text(ladder_report):
    hostile = LADDER.rungs[1].model_copy(update={"name": "<script>alert(1)</script>", "message": "|`<b>\x1b[31m"})
    report = ladder_report.model_copy(update={"ladder": LADDER.model_copy(update={"rungs": (hostile,)})})
    assert "<script" not in to_html(report)
    assert "\x1b" not in to_html(report) + to_markdown(report) + terminal(report, 80)
    assert "\\<script" in to_markdown(report)


def test_a_report_with_a_ladder_reads_back(ladder_report):
    assert Report.model_validate_json(ladder_report.model_dump_json()) == ladder_report
