"""A limit on what runs in int8: only the runtime that will run the artifact can prove it."""

from __future__ import annotations

from edgeopt.bundle.coverage import CoverageSection
from edgeopt.bundle.document import Candidate
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.gate.status import Status

__all__ = ["INT8_MACS", "judge_coverage"]

INT8_MACS = "int8_macs_pct"
_SHOWN = 4


def judge_coverage(candidate: Candidate, limit: float) -> tuple[Measurement, Status, str]:
    """Hold the share of multiply-accumulates in int8 against its smallest value.

    - FAIL: too few, by whoever told: a runtime runs no more in int8 than the graph plans. The message lists what is outside.
    - PASS: enough, read from the runtime on the machine that runs the artifact, or one that may stand for it.
    - INCONCLUSIVE: enough in the plan, or on a stand-in, or not told at all.

    Args:
        candidate: With its coverage, where the runtime told.
        limit: Percent.

    Returns:
        The figure that decided; status; message.
    """
    figure = candidate.figure(INT8_MACS)
    if figure is None:
        figure = not_measured(INT8_MACS, "%", candidate.reason or "the bundle has no such figure")
    if figure.value is None:
        return figure, "INCONCLUSIVE", "Cannot be told."
    source, how = figure.conditions.get("source"), str(figure.conditions.get("how", ""))
    if figure.value < limit:
        return figure, "FAIL", _outside(candidate.coverage) or "Missed."
    if source == "plan" or how.startswith("planned in the graph"):
        return figure, "INCONCLUSIVE", "The graph plans it; the runtime did not tell what it runs."
    if source == "stand-in":
        return figure, "INCONCLUSIVE", f"Holds on a stand-in ({how}); what will run it has not told."
    return figure, "PASS", "Holds."


def _outside(section: CoverageSection | None) -> str:
    if section is None or not section.outside:
        return ""
    parts = []
    for row in section.outside[:_SHOWN]:
        share = section.share_pct(row)
        amount = "" if share is None else f" ({share:.1f} % of the MACs)"
        parts.append(f"{row.op} {row.name}{amount}: {row.cause.rstrip('.')}")
    more = len(section.outside) - _SHOWN
    return f"Outside of int8: {'; '.join(parts)}{f'; and {more} more' if more > 0 else ''}."
