"""The rungs of a ladder as rows of text, and as a picture: what each brought, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.bundle.document import LadderSection, Report, RungRow
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import interval_text, plain, value_text

__all__ = ["RUNG_HEADS", "RUNG_STATUS", "RungLine", "rung_lines"]

RUNG_HEADS = (
    "rung",
    "",
    "accuracy, %",
    "drop, pp",
    "latency p50, ms",
    "ratio to FP32",
    "size, MiB",
    "minutes",
    "so far",
)
RUNG_STATUS = {
    "met": "met",
    "missed": "missed",
    "failed": "failed",
    "skipped": "skipped",
    "interrupted": "interrupted",
    "not_needed": "not needed",
}
_NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class RungLine:
    """One rung.

    Attributes:
        cells: One text per head of ``RUNG_HEADS``; a dash where there is no figure.
        message: Which limits it missed, what could not be told, why it failed or was skipped; may be empty.
    """

    name: str
    status: str
    cells: tuple[str, ...]
    message: str


def rung_lines(report: Report) -> tuple[RungLine, ...]:
    """Every rung, in order; none where the recipe has no ladder."""
    section: LadderSection | None = report.ladder
    return tuple(_line(row) for row in section.rungs) if section is not None else ()


def _line(row: RungRow) -> RungLine:
    name, status = plain(row.name), RUNG_STATUS[row.status]
    cells = (
        name,
        status,
        _value(row, "accuracy_top1_pct", interval=False),
        _value(row, "drop_pp"),
        _value(row, "latency_p50_ms", interval=False),
        _value(row, "latency_ratio"),
        _value(row, "size_mib", interval=False),
        _minutes(row.wall),
        _minutes(row.elapsed),
    )
    who = f"{plain(row.candidate)}: " if row.candidate and row.message else ""
    return RungLine(name=name, status=status, cells=cells, message=who + plain(row.message))


def _value(row: RungRow, name: str, *, interval: bool = True) -> str:
    found = row.figure(name)
    if found is None or found.value is None:
        return _NONE
    span = interval_text(found) if interval else ""
    return f"{value_text(found)} {span}".strip()


def _minutes(wall: Measurement | None) -> str:
    return _NONE if wall is None or wall.value is None else f"{wall.value / 60:.1f}"
