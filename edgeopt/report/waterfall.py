"""What each stage of a recipe brought and cost, from FP32 to what is made, as rows of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeopt.bundle.document import Report, WaterfallRow, WaterfallSection
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import interval_text, plain, value_text

__all__ = ["WaterfallTable", "count_text", "share_text", "waterfall_table"]

NONE = "–"
_NARROW = {
    "stage": "stage",
    "drop, pp": "drop, pp",
    "agreement, %": "agreement, %",
    "MACs": "MACs",
    "latency p50, ms": "p50, ms",
    "ratio to FP32": "ratio",
    "size, MiB": "MiB",
    "minutes": "minutes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterfallTable:
    """The stages.

    Attributes:
        caption: How to read it.
        heads: Of the columns that have a figure in some row.
        rows: One text per head; a dash where there is no figure.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def narrow(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Heads and rows for a terminal; the other columns are in the Markdown and HTML reports."""
        kept = [index for index, head in enumerate(self.heads) if head in _NARROW]
        heads = tuple(_NARROW[self.heads[index]] for index in kept)
        return heads, tuple(tuple(row[index] for index in kept) for row in self.rows)


def waterfall_table(report: Report) -> WaterfallTable | None:
    """The table; None where the recipe has no float step."""
    section: WaterfallSection | None = report.waterfall
    if section is None:
        return None
    first = section.rows[0]
    labelled = any(_has(row.figure("drop_pp")) for row in section.rows)
    columns: list[tuple[str, Callable[[WaterfallRow], str]]] = [
        ("stage", lambda row: plain(row.name)),
        ("step", lambda row: plain(row.step) or NONE),
        ("accuracy, %", lambda row: _value(row.figure("accuracy_top1_pct"), interval=False)),
        ("drop, pp", lambda row: _value(row.figure("drop_pp"))),
        ("agreement, %", lambda row: NONE if labelled else _value(row.figure("agreement_pct"))),
        ("MACs", lambda row: count_text(row.figure("macs"), first.figure("macs"))),
        ("parameters", lambda row: count_text(row.figure("parameters"), first.figure("parameters"))),
        ("latency p50, ms", lambda row: _value(row.figure("latency_p50_ms"), interval=False)),
        ("ratio to FP32", lambda row: _value(row.figure("latency_ratio"))),
        ("size, MiB", lambda row: _value(row.figure("size_mib"), interval=False)),
        ("minutes", lambda row: _minutes(row.figure("wall_s"))),
    ]
    cells = [tuple(text(row) for row in section.rows) for _, text in columns]
    kept = [index for index, column in enumerate(cells) if any(cell != NONE for cell in column)]
    return WaterfallTable(
        caption=f"Every stage measured on {plain(section.runtime)}, interleaved; drop and ratio are to the model as it "
        "came, in FP32. Minutes: what making the stage took, when it was made.",
        heads=tuple(columns[index][0] for index in kept),
        rows=tuple(zip(*(cells[index] for index in kept), strict=True)),
    )


def count_text(count: Measurement | None, of: Measurement | None) -> str:
    """``20.4 M (0.50×)``: a count, and its share of the original's where it differs."""
    if count is None or count.value is None:
        return NONE
    share = share_text(count, of)
    return _short(count.value) + (f" ({share})" if share and of is not None and of.value != count.value else "")


def share_text(figure: Measurement, of: Measurement | None) -> str:
    """``0.50×``; empty where there is nothing to compare with."""
    if figure.value is None or of is None or not of.value:
        return ""
    return f"{figure.value / of.value:.2f}×"


def _short(count: float) -> str:
    """Three digits and a power of a thousand.

    >>> _short(40_812_000), _short(272_474), _short(812)
    ('40.8 M', '272 k', '812')
    """
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= factor:
            return f"{count / factor:.{2 if count < 10 * factor else 1 if count < 100 * factor else 0}f}{letter}"
    return f"{count:.0f}"


def _has(figure: Measurement | None) -> bool:
    return figure is not None and figure.value is not None


def _value(figure: Measurement | None, *, interval: bool = True) -> str:
    if figure is None or figure.value is None:
        return NONE
    return f"{value_text(figure)} {interval_text(figure) if interval else ''}".strip()


def _minutes(wall: Measurement | None) -> str:
    if wall is None or wall.value is None:
        return NONE
    minutes = wall.value / 60
    return f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2f}"
