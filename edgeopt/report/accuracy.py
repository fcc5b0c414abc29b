"""Accuracy told whole: further metrics, parts of the test split, samples that changed sides; the same for every renderer."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.bundle.document import Candidate, FlipRow, Report, SliceRow
from edgeopt.core.measurement import Measurement
from edgeopt.report.axes import drawing, grid_x, grid_y, rotated
from edgeopt.report.format import figure, label, plain, value_text
from edgeopt.report.plots import Plot, style_of
from edgeopt.report.svg import Scale, element, text

__all__ = [
    "FLIP_HEADS",
    "METRIC_HEADS",
    "SLICE_HEADS",
    "flip_rows",
    "flip_words",
    "further_metrics",
    "metric_rows",
    "reliability_plot",
    "slice_rows",
    "worst_slice",
]

METRIC_HEADS = ("metric", "FP32", "shipped", "drop")
SLICE_HEADS = ("slice", "samples", "figure", "drop", "adjusted p")
FLIP_HEADS = ("sample", "right", "FP32", "candidate", "FP32's margin")
_MAIN = "drop_pp"


def further_metrics(report: Report) -> tuple[str, ...]:
    """Names of metrics and of their drops beside the one whose drop decides."""
    names = _metrics(report)
    measured = {m.name for c in report.candidates for m in c.measurements if m.value is not None}
    further = names if "accuracy_top1_pct" in measured else names[1:]
    same = [f"drop_{names[0]}"] if names and further != names and _MAIN in measured else []  # under two names
    return (*same, *(name for metric in further for name in (metric, f"drop_{metric}")))


def _metrics(report: Report) -> list[str]:
    """What there is a drop of, in order."""
    found = (
        m.name for c in report.candidates for m in c.measurements if m.name.startswith("drop_") and m.name != _MAIN
    )
    return list(dict.fromkeys(name.removeprefix("drop_") for name in found))


def metric_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """One row per further metric: FP32, what is shipped, the drop with its interval."""
    shipped, reference = report.shipped, _reference(report)
    rows = []
    for name in _metrics(report):
        theirs = reference.figure(name) if reference is not None else None
        mine, drop = shipped.figure(name), shipped.figure(f"drop_{name}")
        if mine is not None:
            rows.append((label(name), _short(theirs), _short(mine), _short(drop) if drop is not None else "–"))
    return rows


def _short(measurement: Measurement | None) -> str:
    return "–" if measurement is None else figure(measurement)


def _reference(report: Report) -> Candidate | None:
    """FP32 on the runtime of what is shipped."""
    same = (c for c in report.candidates if c.role == "reference" and c.runtime == report.shipped.runtime)
    return next(same, None)


def slice_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """One row per part of the test split, the worst drop first."""
    return [
        (_part(row), f"{row.samples:,}", figure(row.figure), figure(row.drop), _p(row.p_adjusted))
        for row in report.shipped.slices
    ]


def worst_slice(report: Report) -> str:
    """One sentence on the part of the test split that loses most; empty where none loses."""
    told = [row for row in report.shipped.slices if row.drop.value is not None]
    if len(told) < 2 or (told[0].drop.value or 0.0) <= 0:
        return ""
    worst = told[0]
    return (
        f"Worst of {len(told)} slices: {_part(worst)}, drop {figure(worst.drop)}, n {worst.samples:,}, "
        f"p {_p(worst.p_adjusted)} (adjusted for all slices, Holm)."
    )


def _part(row: SliceRow) -> str:
    return f"{plain(row.column)} = {plain(row.value)}"


def _p(measurement: Measurement) -> str:
    if measurement.value is None:
        return "–"
    return "< 0.001" if measurement.value < 0.001 else f"{measurement.value:.3f}"


def flip_words(report: Report) -> str:
    """How many samples changed sides, in which direction; empty where nothing was compared."""
    drop = report.shipped.figure(_MAIN)
    lost, won = (None, None) if drop is None else (drop.conditions.get(k) for k in _COUNTS)
    if drop is None or lost is None or won is None:
        return ""
    shown = len(report.shipped.flips)
    listed = f" {shown:,} whose prediction changed are listed, FP32's surest first." if shown else ""
    return f"Of {drop.n or 0:,} samples {lost:,} went from right to wrong and {won:,} from wrong to right.{listed}"


_COUNTS = ("only_fp32_right", "only_candidate_right")


def flip_rows(flips: Sequence[FlipRow]) -> list[tuple[str, str, str, str, str]]:
    """One row per sample."""
    return [
        (f"{row.index:,}", plain(row.label), plain(row.reference), plain(row.candidate), f"{row.margin:.3f}")
        for row in flips
    ]


def reliability_plot(report: Report) -> Plot | None:
    """Accuracy over confidence, FP32 and shipped; None where there is nothing to draw."""
    shipped, reference = report.shipped, _reference(report)
    if not shipped.reliability:
        return None
    left, right, top, bottom = 58.0, 420.0, 10.0, 290.0
    x, y = Scale(0.0, 1.0, left, right), Scale(0.0, 1.0, bottom, top)
    parts = [
        *grid_x(x, top, bottom, about=5),
        *grid_y(y, left, right, about=5),
        element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="zero"),
        text((left + right) / 2, bottom + 40, "confidence: the highest probability", anchor="middle", class_="axis"),
        rotated(16, (top + bottom) / 2, "accuracy"),
    ]
    drawn = [shipped] if reference is None or reference.id == shipped.id else [reference, shipped]
    for candidate in drawn:
        total = max(sum(row.samples for row in candidate.reliability), 1)
        for row in candidate.reliability:
            if not row.samples:
                continue
            words = f"confidence {row.confidence:.3f}, accuracy {row.accuracy:.3f}, {row.samples:,} samples"
            size = 3 + 9 * (row.samples / total) ** 0.5
            dot = element("circle", cx=x(row.confidence), cy=y(row.accuracy), r=size, class_="dot")
            title = element("title", f"{plain(candidate.id)}: {words}")
            parts.append(element("g", title, dot, class_=style_of(report, candidate)))
    error = shipped.figure("calibration_error_pct")
    return Plot(
        key="reliability",
        title="Reliability",
        caption=f"Accuracy of samples by confidence, 15 bins; larger dots hold more. Below the line: surer than right. "
        f"Calibration error of {plain(shipped.id)}: {value_text(error) if error else '–'} %.",
        legend=tuple((style_of(report, one), plain(one.id)) for one in drawn),
        svg=drawing(bottom + 50, "Reliability diagram: accuracy over confidence", parts),
        heads=("confidence", "samples", "mean confidence", "accuracy"),
        rows=tuple(
            (f"({r.low:.2f}, {r.high:.2f}]", f"{r.samples:,}", f"{r.confidence:.3f}", f"{r.accuracy:.3f}")
            for r in shipped.reliability
            if r.samples
        ),
    )
