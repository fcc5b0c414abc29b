"""The stages from FP32 to what is made, in every form of the report."""

import io

import pytest
from rich.console import Console

from edgeopt.bundle.document import Report, WaterfallRow, WaterfallSection
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.terminal import render
from edgeopt.report.waterfall import count_text, waterfall_table
from edgeopt.report.waterfall_plot import waterfall_plot


def figure(name, value, unit, low=None, high=None):
    interval = None if low is None else Interval(low=low, high=high, method="bootstrap")
    return Measurement(name=name, value=value, unit=unit, interval=interval, n=360, device="test data")


def row(name, step, *, drop, ratio, macs, parameters, seconds, size):
    against = [figure("drop_pp", drop, "pp", drop - 0.4, drop + 0.5)] if step else []
    against += [figure("latency_ratio", ratio, "1", ratio * 0.97, ratio * 1.03)] if step else []
    return WaterfallRow(
        name=name,
        step=step,
        candidate=f"openvino-{name}",
        figures=(
            figure("accuracy_top1_pct", 91.2 - drop, "%", 90.5 - drop, 91.8 - drop),
            figure("latency_p50_ms", ratio * 0.86, "ms"),
            figure("size_mib", size, "MiB"),
            figure("macs", macs, "MAC"),
            figure("parameters", parameters, "1"),
            *against,
            *([] if seconds is None else [figure("wall_s", seconds, "s")]),
        ),
    )


FP32 = row("FP32", "", drop=0.0, ratio=1.0, macs=40_812_000, parameters=272_474, seconds=None, size=1.09)
PRUNED = row("pruned", "prune", drop=14.3, ratio=0.55, macs=20_400_000, parameters=128_310, seconds=21, size=0.52)
RECOVERED = row(
    "distilled", "distil", drop=0.21, ratio=0.55, macs=20_400_000, parameters=128_310, seconds=780, size=0.52
)
INT8 = row("int8", "qat", drop=0.25, ratio=0.31, macs=20_400_000, parameters=128_310, seconds=610, size=0.15)
SECTION = WaterfallSection(runtime="openvino", rows=(FP32, PRUNED, RECOVERED, INT8))


@pytest.fixture
def waterfall_report(sample_report) -> Report:
    return sample_report.model_copy(update={"waterfall": SECTION})


def terminal(report, width):
    console = Console(file=io.StringIO(), width=width)
    render(report, console)
    return console.file.getvalue()


def part(text, start, stop):
    return text[text.index(start) : text.index(stop)]


def test_the_waterfall_in_markdown_is_as_it_was_read(waterfall_report, golden):
    golden("waterfall.md", part(to_markdown(waterfall_report), "## Waterfall", "## Candidates"))


def test_the_waterfall_in_a_terminal_of_80_columns_is_as_it_was_read(waterfall_report, golden):
    text = part(terminal(waterfall_report, 80), "Waterfall", "Not measured")
    golden("waterfall_80.txt", text)
    assert max(map(len, text.splitlines())) <= 80


def test_the_page_has_a_row_per_stage_and_a_picture_with_its_words(waterfall_report):
    section = part(to_html(waterfall_report), "<h2>Waterfall</h2>", "<h2>Candidates</h2>")
    assert section.count('<th scope="row">') == 4
    assert 'aria-label="Stage by stage: FP32 MACs 40.8 M, latency p50 0.860 ms, size 1.09 MiB; pruned drop' in section
    assert section.count(": drop ") == 3  # one dot each, with its interval in words
    assert "20.4 M (0.50×)" in section


def test_a_report_without_float_steps_says_nothing_of_it(sample_report):
    assert waterfall_table(sample_report) is None
    assert waterfall_plot(sample_report) is None
    for text in (to_html(sample_report), to_markdown(sample_report), terminal(sample_report, 100)):
        assert "Waterfall" not in text


def test_where_nothing_was_measured_the_counts_stay(sample_report):
    """A target that is not here: no times; and without data no accuracy."""
    kept = ("macs", "parameters", "size_mib")
    rows = tuple(
        one.model_copy(
            update={
                "figures": (
                    not_measured("drop_pp", "pp", "no data was given"),
                    not_measured("latency_p50_ms", "ms", "the target is not here"),
                    *(m for m in one.figures if m.name in kept),
                )
            }
        )
        for one in SECTION.rows
    )
    report = sample_report.model_copy(update={"waterfall": SECTION.model_copy(update={"rows": rows})})
    table = waterfall_table(report)
    assert table is not None
    assert table.heads == ("stage", "step", "MACs", "parameters", "size, MiB")
    picture = waterfall_plot(report)
    assert picture is not None
    assert "latency" not in picture.svg


def test_without_labels_agreement_stands_for_the_drop(sample_report):
    rows = tuple(
        one.model_copy(update={"figures": (*one.figures[2:5], figure("agreement_pct", 97.5, "%", 96.0, 98.5))})
        for one in SECTION.rows
    )
    report = sample_report.model_copy(update={"waterfall": SECTION.model_copy(update={"rows": rows})})
    table = waterfall_table(report)
    assert table is not None
    assert "agreement, %" in table.heads
    assert "drop, pp" not in table.heads


def test_equal_counts_have_no_share():
    count = figure("macs", 812, "MAC")
    assert count_text(count, count) == "812"
    assert count_text(figure("macs", 406, "MAC"), count) == "406 (0.50×)"
    assert count_text(None, count) == "–"


def test_hostile_stages_are_text(waterfall_report):
    hostile = PRUNED.model_copy(update={"name": "<script>alert(1)</script>\x1b[31m", "step": "|`<b>"})
    section = SECTION.model_copy(update={"rows": (FP32, hostile), "runtime": "<b>\x1b"})
    report = waterfall_report.model_copy(update={"waterfall": section})
    assert "<script" not in to_html(report)
    assert "\x1b" not in to_html(report) + to_markdown(report) + terminal(report, 80)
    assert "\\<script" in to_markdown(report)


def test_a_report_with_a_waterfall_reads_back(waterfall_report):
    assert Report.model_validate_json(waterfall_report.model_dump_json()) == waterfall_report
