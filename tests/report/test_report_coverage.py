"""What runs in int8, in every rendering: the fraction, what is outside, why, and what would help."""

from __future__ import annotations

import io
import json

from rich.console import Console
from sample_report import measured

from edgeopt.bundle.coverage import CoverageRow, CoverageSection
from edgeopt.core.measurement import not_measured
from edgeopt.report.coverage import coverage_json, coverage_lines, coverage_rows, coverage_words, outside_lines
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.terminal import render

HOSTILE = "<script>alert(1)</script>\x1b[31m"
ROWS = (
    CoverageRow(node="Conv:a", layer="stem.conv", op="Conv", macs=900, runs_in="int8"),
    CoverageRow(
        node="Conv:b", op="Conv", macs=99, runs_in="float32", cause="Its output is float.", fix="Quantize its output."
    ),
    CoverageRow(node="GRU:c", op="GRU", macs=1, runs_in="", where="NPU", cause=HOSTILE),
)


def with_coverage(report, *, proxy=False, rows=ROWS, figure=None):
    section = CoverageSection(how="the profile of ONNX Runtime", proxy=proxy, ops=rows)
    share = figure or measured("int8_macs_pct", 90.0, "%")
    candidates = tuple(
        c.model_copy(update={"coverage": section, "measurements": (*c.measurements, share)}) if c.shipped else c
        for c in report.candidates
    )
    return report.model_copy(update={"candidates": candidates})


def test_the_fraction_and_where_it_was_read(sample_report):
    report = with_coverage(sample_report)
    words = "90.00 % of the MACs, 1 of 3 operations run in int8; read from the profile of ONNX Runtime."
    assert coverage_words(report.shipped) == words
    assert coverage_lines(report) == (f"{report.shipped.id}: {words}",)


def test_a_stand_in_says_so(sample_report):
    words = coverage_words(with_coverage(sample_report, proxy=True).shipped)
    assert words.endswith("a stand-in: what will run it has not told.")


def test_what_cannot_be_counted_is_not_measured(sample_report):
    figure = not_measured("int8_macs_pct", "%", "a shape is open")
    assert coverage_words(with_coverage(sample_report, figure=figure).shipped).startswith(
        "MACs in int8 not measured: a shape is open; 1 of 3"
    )


def test_almost_all_is_never_rounded_to_all(sample_report):
    rows = (ROWS[0].model_copy(update={"macs": 10**9}), ROWS[2])
    figure = measured("int8_macs_pct", 100 * 10**9 / (10**9 + 1), "%")
    report = with_coverage(sample_report, rows=rows, figure=figure)
    assert coverage_words(report.shipped).startswith("99.99 % of the MACs, 1 of 2")
    assert coverage_rows(report.shipped.coverage)[0][2] == "0.01"


def test_what_is_outside_has_its_share_cause_and_fix_the_largest_first(sample_report):
    lines = outside_lines(with_coverage(sample_report).shipped.coverage)
    assert lines[0] == "Conv Conv:b, 9.90 % of the MACs, float32: Its output is float. Quantize its output."
    assert lines[1].startswith("GRU GRU:c, 0.10 % of the MACs, not told: ")


def test_every_rendering_shows_it_and_takes_nothing_as_markup(sample_report):
    report = with_coverage(sample_report)
    stream = io.StringIO()
    render(report, Console(file=stream, width=100, highlight=False))
    for text in (stream.getvalue(), to_markdown(report), to_html(report)):
        assert "In int8" in text
        assert "Quantize its output." in text
        assert "\x1b" not in text
    for text in (to_markdown(report), to_html(report)):
        assert "<script>" not in text
    assert "All 3 operations that multiply" in to_html(report)


def test_a_report_without_coverage_has_no_such_section(sample_report):
    assert "In int8" not in to_markdown(sample_report)
    assert "In int8" not in to_html(sample_report)


def test_json_holds_the_shipped_engines_part(sample_report):
    told = json.loads(coverage_json(with_coverage(sample_report)))
    assert told["int8_macs_pct"] == 90.0
    assert [op["runs_in"] for op in told["coverage"]["ops"]] == ["int8", "float32", ""]
    assert json.loads(coverage_json(sample_report))["coverage"] is None
