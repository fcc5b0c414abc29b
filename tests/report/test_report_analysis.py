"""An analysis as tables, pictures and a page: complete, well-formed, and text where a name tries to be more."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from edgeopt.bundle.analysis import (
    Analysis,
    LayerCost,
    LiveTensor,
    MemorySection,
    PinnedLayer,
    PrunableGroup,
    PruningSection,
    Totals,
)
from edgeopt.bundle.document import ModelSection
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement
from edgeopt.core.spec import TensorSpec
from edgeopt.report.analysis import count_text, group_table, layer_table, summary_lines
from edgeopt.report.analysis_page import analysis_files, to_html, to_svg
from edgeopt.report.analysis_plots import analysis_plots
from edgeopt.report.terminal_analysis import print_analysis

RATIOS = (0.25, 0.5, 0.75)
HOSTILE = "<script>alert(1)</script>\x1b[31m[bold]|`*_\u202e"
SVG = "{http://www.w3.org/2000/svg}"


def layer(name, op="conv2d", macs=1000, parameters=100, live=4096):
    return LayerCost(
        name=name,
        op=op,
        output_shape=(1, 8, 4, 4),
        macs=macs,
        parameters=parameters,
        weight_bytes=4 * parameters,
        output_bytes=512,
        live_bytes=live,
    )


def group(name, *divergences, units=16, exact=True):
    figures = []
    for ratio, value in zip(RATIOS, divergences, strict=False):
        conditions = {"ratio": ratio, "removed": round(ratio * units), "split": "tune"}
        for figure, amount, unit in (("divergence", value, "nats"), ("drop_pp", 10 * value, "pp")):
            figures.append(Measurement(name=figure, value=amount, unit=unit, n=97, conditions=conditions))
    return PrunableGroup(name=name, layers=(name,), units=units, width=units, exact=exact, figures=tuple(figures))


def make(*, layers=None, groups=None, split="97 samples of the tune split", reason=None, **more):
    layers = layers or (
        layer("stem", macs=2_000_000, parameters=432, live=20480),
        layer("stem.norm", "batch_norm", None, 32, 49152),
        layer("stem.act", "relu_", None, 0, 32768),
        layer("head", "linear", 320, 330, 160),
    )
    groups = (group("stem +1", 0.02, 0.2, 2.5), group("body", 0.0, 0.001, 0.05)) if groups is None else groups
    fields = {
        "edgeopt_version": "1.2.3",
        "model": ModelSection(
            name="net",
            format="pt2",
            sha256="0" * 64,
            parameters=794,
            inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 4, 4)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 10)),),
        ),
        "batch": 1,
        "sizes": {"batch": 1},
        "layers": layers,
        "totals": Totals(
            macs=sum(one.macs or 0 for one in layers),
            parameters=sum(one.parameters for one in layers),
            weight_bytes=sum(one.weight_bytes for one in layers),
            output_bytes=sum(one.output_bytes for one in layers),
        ),
        "memory": MemorySection(
            peak_bytes=49152,
            peak_layer="stem.norm",
            live=(LiveTensor(name="stem", size_bytes=24576), LiveTensor(name="stem.norm", size_bytes=24576)),
            with_weights_bytes=52328,
        ),
        "pruning": PruningSection(
            importance="l2",
            ratios=RATIOS,
            split=split,
            reason=reason,
            groups=groups,
            pinned=(PinnedLayer(name="head", reason="it is an output of the model"),),
        ),
        "events": (Event(kind="note", stage="analyze", message="Open dimensions have the size of the export."),),
    }
    return Analysis.model_validate({**fields, **more})


def hostile():
    return make(
        layers=(layer(HOSTILE, HOSTILE), layer(f"2{HOSTILE}")),
        groups=(group(HOSTILE, 0.1, 0.2, 0.3),),
        events=(Event(kind="note", stage="analyze", message=HOSTILE),),
        memory=MemorySection(
            peak_bytes=4096,
            peak_layer=HOSTILE,
            live=(LiveTensor(name=HOSTILE, size_bytes=4096),),
            with_weights_bytes=1,
        ),
    )


def terminal(found, width, **options):
    stream = io.StringIO()
    print_analysis(found, Console(file=stream, width=width, highlight=False, color_system=None), **options)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_what_fits_and_names_what_does_not(golden, width):
    text = terminal(make(), width)
    golden(f"analysis_{width}.txt", text)
    assert max(map(len, text.splitlines())) <= width
    assert ("No room for" in text) == (width == 80)


def test_all_lists_ops_that_only_move_values():
    assert "stem.act" not in terminal(make(), 120)
    assert "1 op without multiplications" in terminal(make(), 120)
    assert "stem.act" in terminal(make(), 120, every=True)


def test_the_tables_hold_every_figure():
    heads, rows = layer_table(make())
    assert all(len(row) == len(heads) for row in rows)
    assert rows[0] == ("stem", "conv2d", "1×8×4×4", "2.00 M", "100.0%", "432", "1.69 KiB", "512 B", "20.0 KiB")
    assert rows[-1][:4] == ("total", "", "", "2.00 M")
    heads, rows = group_table(make().pruning)
    assert heads == ("group", "units", "width", "exact", "KL", "drop, pp")
    assert rows[0] == ("stem +1", "16", "16", "yes", "0.02 / 0.2 / 2.5", "0.2 / 2.0 / 25.0")


def test_what_was_not_measured_is_said():
    found = make(groups=(group("stem"),), split=None, reason="no data was given (--data)")
    assert "not measured: no data was given (--data)" in " ".join(summary_lines(found))
    assert [plot.missing for plot in analysis_plots(found)] == ["", "", "no data was given (--data)"]
    assert "no data was given" in to_html(found)
    onnx = make(memory=None, pruning=None, layers=(layer("conv", "Conv", live=None),))
    assert [plot.missing for plot in analysis_plots(onnx)] == [
        "",
        "the schedule was not followed",
        "there is no PyTorch program",
    ]
    assert "Conv" in terminal(onnx, 100)


def test_the_picture_is_well_formed_and_has_a_bar_per_cost_and_a_curve_per_group():
    drawing = ET.fromstring(to_svg(make()))
    assert len([r for r in drawing.iter(f"{SVG}rect") if r.get("class") == "fill"]) == 2 * 3
    assert len([p for p in drawing.iter(f"{SVG}polyline") if p.get("class") == "curve"]) == 2
    titles = [t.text for t in drawing.iter(f"{SVG}title")]
    assert "stem.norm: 48.0 KiB live" in titles
    assert any(t.startswith("stem +1: 0.02 at 25%") for t in titles)


def test_many_groups_and_layers_stay_readable():
    names = [f"body.{i}.conv" for i in range(300)]
    found = make(
        layers=tuple(layer(name, macs=1 + i) for i, name in enumerate(names)),
        groups=tuple(group(name, 1e-6 * i, 1e-3 * i, 0.1 * i) for i, name in enumerate(names)),
    )
    costs, _, sensitivity = analysis_plots(found)
    assert "40 largest of 300 layers" in costs.caption
    assert len(sensitivity.legend) == 7
    assert sensitivity.legend[-1] == ("key-float", "294 less sensitive")
    ET.fromstring(to_svg(found))


@pytest.mark.parametrize("values", [(0.1, 0.1, 0.1), (0.0, 0.0, 0.5), (1e-300, 1.0, 1e300), (0.0, 0.0, 0.0)])
def test_curves_of_odd_values_are_drawn_or_said(values):
    (*_, plot) = analysis_plots(make(groups=(group("stem", *values),)))
    assert bool(plot.missing) == (not any(values))
    ET.fromstring(to_svg(make(groups=(group("stem", *values),))))


def test_hostile_names_are_text_everywhere():
    found = hostile()
    for text in (to_html(found), to_svg(found)):
        assert "<script>" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\x1b" not in terminal(found, 200)
    ET.fromstring(to_svg(found))


def test_the_page_asks_for_nothing_and_is_the_same_each_time():
    page = to_html(make())
    assert page == to_html(make())
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<script" not in page
    assert "{{" not in page


def test_one_file_or_a_folder_of_all():
    assert list(analysis_files(make(), Path("a.svg"))) == [Path("a.svg")]
    assert {path.name for path in analysis_files(make(), Path("out"))} == {
        "analysis.json",
        "analysis.svg",
        "analysis.html",
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (45_600, "45.6 k"), (7_890_000, "7.89 M"), (123e9, "123 G")],
)
def test_counts_have_three_digits(count, text):
    assert count_text(int(count)) == text
