"""The roofline in every form: rows, notes, picture, document."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from edgeopt.bundle.roofline import MachinePeaks, Roofline, RooflineRow
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.roofline import (
    ROOFLINE_HEADS,
    roofline_json,
    roofline_lines,
    roofline_narrow,
    roofline_notes,
    roofline_page,
    roofline_rows,
)

HOSTILE = "<script>\x1b[31m"


def row(name, us, macs=10**6, moved=10_000, runs_in="int8", roof=400.0):
    return RooflineRow(
        name=name,
        op="Conv",
        runs_in=runs_in,
        macs=macs,
        us=us,
        moved_bytes=moved,
        gops=2 * macs / us / 1e3,
        intensity=2 * macs / moved,
        roof_gops=roof,
    )


@pytest.fixture
def found():
    def peak(name, value, unit):
        return Measurement(name=name, value=value, unit=unit, device="board")

    return Roofline(
        rows=(
            row("fast", 10.0),
            row(HOSTILE, 30.0, runs_in="float32", roof=100.0),
            row("relu", 5.0, macs=0, runs_in=""),
        ),
        whole=row("whole", 45.0, macs=2 * 10**6, runs_in="", roof=160.0),
        peaks=MachinePeaks(
            int8=peak("peak_int8_gops", 400.0, "GOPS"),
            float32=peak("peak_float32_gops", 100.0, "GOPS"),
            bandwidth=peak("peak_bandwidth_gb_s", 10.0, "GB/s"),
        ),
        device="board",
        conditions={"runtime": "onnxruntime", "threads": 1},
    )


def test_what_takes_longest_comes_first_and_the_whole_last(found):
    rows = roofline_rows(found)
    assert [r[0] for r in rows][1:] == ["fast", "relu", "whole"]
    fast = dict(zip(ROOFLINE_HEADS, rows[1], strict=True))
    assert (fast["µs"], fast["time, %"], fast["GOPS"], fast["attainable"], fast["reached, %"]) == (
        "10.0", "22.2", "200", "400", "50",
    )  # fmt: skip
    assert rows[2][5:] == ("–",) * 4


def test_the_terminals_table_fits_80_columns(found):
    heads, rows = roofline_narrow(found)
    widths = [max(len(line[index]) for line in (heads, *rows)) for index in range(len(heads))]
    assert sum(widths) + 2 * len(widths) <= 80


def test_notes_tell_peaks_and_conditions_and_what_lies_above(found):
    notes = " ".join(roofline_notes(found))
    assert "peak, int8: 400 GOPS" in notes
    assert "Measured on board; runtime onnxruntime, threads 1." in notes
    assert "above what is attainable" not in notes
    above = found.model_copy(update={"rows": (row("quick", 2.0),)})
    assert "above what is attainable: quick" in " ".join(roofline_notes(above))


def test_the_picture_is_xml_with_both_roofs_and_a_dot_for_each_layer_that_multiplies(found):
    svg = roofline_page(found, "net", html=False)
    tree = ET.fromstring(svg)
    names = {"s": "http://www.w3.org/2000/svg"}
    assert len(tree.findall("s:circle", names)) == 2
    assert len(tree.findall("s:path", names)) == 2
    assert "\x1b" not in svg


def test_the_page_takes_nothing_as_markup(found):
    page = roofline_page(found, HOSTILE, html=True)
    assert "<script>" not in page
    assert "reached, %" in page


def test_without_a_peak_the_picture_says_why_there_is_none(found):
    missing = not_measured("peak_bandwidth_gb_s", "GB/s", "no onnxruntime there")
    bare = found.model_copy(update={"peaks": found.peaks.model_copy(update={"bandwidth": missing})})
    assert "Not drawn" in roofline_page(bare, "net", html=False)
    assert "peak bandwidth not measured: no onnxruntime there" in " ".join(roofline_notes(bare))


def test_the_document_holds_everything(found):
    told = json.loads(roofline_json(found))
    assert [one["macs"] for one in told["rows"]] == [10**6, 10**6, 0]
    assert told["peaks"]["int8"]["value"] == 400.0
    assert told["conditions"]["threads"] == 1


def test_a_report_tells_how_far_the_whole_is_and_what_takes_longest(found, sample_report):
    whole, longest = roofline_lines(found)
    assert whole == "Under the profiler 88.9 GOPS, 56 % of what its layers could reach here."
    assert longest.startswith("Longest: <script>")
    assert "\x1b" not in longest
    assert longest.endswith(
        "67 % of the time, at 67 % of its roof; fast 22 % of the time, at 50 % of its roof; relu 11 % of the time."
    )
    report = sample_report.model_copy(update={"roofline": found})
    markdown, page = to_markdown(report), to_html(report)
    assert "## Against the machine's peaks" in markdown
    assert "| whole |" in markdown
    assert "<script>" not in markdown.replace("\\<", "")
    assert 'id="plot-roofline"' in page
    assert "<script>" not in page
    assert 'id="plot-roofline"' not in to_html(sample_report)
