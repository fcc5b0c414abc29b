"""A search for channel counts, in every form of the report. Every figure is invented."""

import io
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from edgeopt.bundle.document import CurveRow, PinnedLayer, PrunedRow, PrunedSection, PruningSection, Report, StairPoint
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.pruning import curve_plots, curve_table, pruned_words, search_words
from edgeopt.report.terminal import render

HOSTILE = "<script>alert(1)</script>\x1b[31m|`*_"


def ratio(value, low=None, high=None):
    interval = None if low is None else Interval(low=low, high=high, method="bootstrap of interleaved blocks")
    return Measurement(name="latency_ratio", value=value, unit="1", interval=interval, n=200, device="test data")


def point(kept, latency, divergence):
    damage = Measurement(name="divergence", value=divergence, unit="nats", n=256)
    return StairPoint(kept=kept, latency=latency, divergence=damage)


STEM = CurveRow(
    name="stem.conv +2",
    layers=("stem.conv", "blocks.0.second", "blocks.1.second"),
    units=32,
    width=32,
    points=(
        point(24, ratio(0.91, 0.90, 0.92), 0.04),
        point(16, ratio(0.80, 0.79, 0.82), 0.19),
        point(8, not_measured("latency_ratio", "1", "it could not be run"), 0.7),
    ),
    chosen=16,
)
BRANCH = CurveRow(
    name="blocks.0.first",
    layers=("blocks.0.first",),
    units=32,
    width=32,
    points=(point(16, ratio(0.96, 0.95, 0.98), 0.01), point(0, ratio(0.86, 0.85, 0.88), 0.02)),
    chosen=0,
)
NARROW = CurveRow(
    name="blocks.1.first",
    layers=("blocks.1.first",),
    units=16,
    width=16,
    points=(point(8, ratio(1.0, 0.98, 1.01), 0.003),),
    chosen=16,
)
SECTION = PruningSection(
    runtime="onnxruntime",
    precision="int8",
    wanted=0.7,
    curves=(STEM, BRANCH, NARROW),
    predicted=0.688,
    measured=ratio(0.695, 0.689, 0.702),
    summary="Widths for 0.7 of the latency on onnxruntime (int8): stem.conv +2 32 to 16, blocks.0.first 32 to 0.",
)
STEP = PrunedSection(
    step="prune",
    macs=40_812_000,
    macs_kept=20_400_000,
    groups=(
        PrunedRow(name="stem.conv +2", layers=STEM.layers, units=32, kept=16, width=32, width_kept=16),
        PrunedRow(name="blocks.0.first", layers=BRANCH.layers, units=32, kept=0, width=32, width_kept=0),
        PrunedRow(name="attention.qkv", layers=("attention.qkv",), units=4, kept=4, width=64, width_kept=64),
    ),
    pinned=(PinnedLayer(name="head", reason="it is an output of the model"),),
)


def searched(report, *sections):
    return report.model_copy(update={"pruning": sections})


@pytest.fixture
def pruning_report(sample_report) -> Report:
    return searched(sample_report, SECTION).model_copy(update={"pruned": (STEP,)})


def terminal(report, width=80):
    console = Console(file=io.StringIO(), width=width)
    render(report, console)
    return console.file.getvalue()


def part(text, start, stop):
    return text[text.index(start) : text.index(stop)]


def test_search_and_step_in_markdown_are_as_they_were_read(pruning_report, golden):
    golden("pruning.md", part(to_markdown(pruning_report), "## Pruning", "## Classes"))


def test_the_terminal_says_each_in_one_sentence(pruning_report):
    said = " ".join(part(terminal(pruning_report), "\nPruning", "\nNot measured").split())
    assert said == f"Pruning • {search_words(SECTION)} • {pruned_words(STEP)}"
    assert "0.7× of the latency, onnxruntime (int8): measured 0.695× [0.689, 0.702] as a whole" in said
    assert "predicted 0.688×; 2 of 3 groups lose units." in said
    left = "20.4 M of 40.8 M multiply-accumulates are left (0.50×)"
    assert f"prune: {left}; 2 of 3 groups lose units. 1 layer stays as it is." in said


def test_the_page_has_a_row_per_group_and_says_what_stays_and_why(pruning_report):
    section = part(to_html(pruning_report), "<h2>Pruning</h2>", "<h2>Measured on</h2>")
    assert "<td>32 → 16</td>" in section
    assert "<td>4</td><td>64</td>" in section
    assert "<td>head</td><td>it is an output of the model</td>" in section


def test_a_step_without_a_search_is_told_too(sample_report):
    report = sample_report.model_copy(update={"pruned": (STEP,)})
    for text in (to_html(report), to_markdown(report), terminal(report)):
        assert "2 of 3 groups lose units" in " ".join(text.split())
        assert "Widths" not in text


def test_the_table_stars_what_was_taken_of_every_group():
    _, rows = curve_table(SECTION)
    assert [row[3] for row in rows if row[0] == "stem.conv +2"] == ["24", "★ 16", "8"]
    assert [row[3] for row in rows if row[0] == "blocks.0.first"] == ["16", "★ 0 (the branch goes)"]
    assert [row[3] for row in rows if row[0] == "blocks.1.first"] == ["★ 16", "8"]
    assert "not measured: it could not be run" in {row[4] for row in rows}


def test_the_drawing_is_well_formed_rings_what_was_taken_and_hollows_what_is_no_faster(pruning_report):
    (plot,) = curve_plots(pruning_report)
    drawing = ET.fromstring(str(plot.svg))
    assert len([line for line in drawing.iter("polyline") if line.get("class") == "curve"]) == 3
    assert len([circle for circle in drawing.iter("circle") if circle.get("class") == "ring"]) == 3
    dots = [
        (g.get("class"), g.find("title").text) for g in drawing.iter("g") if g.find("circle[@class='dot']") is not None
    ]
    assert len(dots) == 5  # the one that could not be run has none
    assert [words for style, words in dots if style == "hue0 float"] == ["blocks.1.first: 8 of 16, 1.00× [0.98, 1.01]"]
    assert len([line for line in drawing.iter("line") if line.get("class") == "whisker"]) == 5
    assert plot.svg.count("at 0") == 1  # the words for those who cannot see it
    assert to_html(pruning_report).count("Channels against latency") >= 2


def test_of_many_groups_those_with_the_most_to_gain_are_drawn(sample_report):
    many = tuple(
        NARROW.model_copy(update={"name": f"g{i}", "points": (point(8, ratio(0.5 + i / 100, None), 0.1),)})
        for i in range(40)
    )
    (plot,) = curve_plots(searched(sample_report, SECTION.model_copy(update={"curves": many})))
    assert str(plot.svg).count("<polyline") == 24
    assert "The 24 with the most to gain of 40" in plot.caption
    assert ">g0<" in plot.svg
    assert ">g24<" not in plot.svg
    assert len(plot.rows) == 80


def test_a_search_in_which_nothing_could_be_timed_says_so(sample_report):
    dead = STEM.model_copy(update={"points": STEM.points[2:], "chosen": None})
    (plot,) = curve_plots(searched(sample_report, SECTION.model_copy(update={"curves": (dead,)})))
    assert plot.missing == "no narrower model was timed"


def test_a_report_without_a_search_says_nothing_of_it(sample_report):
    for text in (to_html(sample_report), to_markdown(sample_report), terminal(sample_report)):
        assert "Channels against latency" not in text
        assert "Pruning" not in text


def test_hostile_names_are_text(sample_report):
    row = STEM.model_copy(update={"name": HOSTILE})
    report = searched(sample_report, SECTION.model_copy(update={"curves": (row,), "runtime": HOSTILE}))
    groups = (STEP.groups[0].model_copy(update={"name": HOSTILE, "layers": (HOSTILE,)}),)
    step = STEP.model_copy(update={"groups": groups, "pinned": (PinnedLayer(name=HOSTILE, reason=HOSTILE),)})
    report = report.model_copy(update={"pruned": (step,)})
    assert "<script" not in to_html(report)
    assert "\x1b" not in to_html(report) + to_markdown(report) + terminal(report)
    assert "\\<script" in to_markdown(report)


def test_a_report_with_a_search_reads_back(pruning_report):
    assert Report.model_validate_json(pruning_report.model_dump_json()) == pruning_report
