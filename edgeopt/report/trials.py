"""What each technique of post-training quantization brought, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.bundle.document import Report, TrialRow
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import plain, value_text

__all__ = ["TRIAL_CAPTION", "TRIAL_HEADS", "trial_lines"]

TRIAL_HEADS = ("technique", "", "divergence", "SQNR, dB", "agreement, %", "seconds")
TRIAL_CAPTION = "On the tuning split, against FP32: before → after. What did not help was dropped."
_NONE = "–"


def trial_lines(report: Report) -> tuple[tuple[str, ...], ...]:
    """One row per technique, in the order they were tried; a cell per head of ``TRIAL_HEADS``."""
    return tuple(_line(row) for row in report.trials)


def _line(row: TrialRow) -> tuple[str, ...]:
    name = plain(row.name) + (f" ({plain(row.detail)})" if row.detail else "")
    status = ("kept" if row.kept else "dropped") if row.after else "idle"
    figures = (_pair(row, name) for name in ("divergence", "sqnr_db", "agreement_pct"))
    seconds = _NONE if row.wall is None or row.wall.value is None else f"{row.wall.value:.1f}"
    return (name, status, *figures, seconds)


def _pair(row: TrialRow, name: str) -> str:
    before, after = _find(row.before, name), _find(row.after, name)
    return f"{value_text(before)} → {value_text(after)}" if before is not None and after is not None else _NONE


def _find(figures: Sequence[Measurement], name: str) -> Measurement | None:
    return next((figure for figure in figures if figure.name == name), None)
