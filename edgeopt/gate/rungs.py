"""Did a rung of a ladder meet the limits, and which of its candidates speaks for it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeopt.bundle.document import Candidate, LimitRow, Verdict
from edgeopt.gate.limits import judge, point_holds
from edgeopt.gate.selection import Objective, select
from edgeopt.recipes.schema import Limits

__all__ = ["RungOutcome", "judge_rung"]

_ACCURACY = ("drop_pp", "agreement_pct")
_NAMES = {"drop_pp": "the drop", "agreement_pct": "the agreement", "latency_ratio": "the latency"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RungOutcome:
    """How a rung went.

    Attributes:
        message: Which limits are missed, or what could not be told, or why it failed.
        candidate: The one that speaks for it; None where all failed.
        only_speed_misses: It missed, and yet every candidate is accurate enough: more accuracy would change nothing.
    """

    status: Literal["met", "missed", "failed"]
    message: str
    candidate: Candidate | None
    only_speed_misses: bool = False


def judge_rung(candidates: Sequence[Candidate], limits: Limits, objective: Objective) -> RungOutcome:
    """Hold a rung's candidates, no references among them, against the limits; one that meets them is enough.

    A figure whose interval reaches past its limit counts by the figure itself: a test split too small to tell is no
    larger on the next rung. The message says so.
    """
    usable = [candidate for candidate in candidates if candidate.status != "failed"]
    if not usable:
        reasons = "; ".join(f"{c.id}: {c.reason.rstrip('.')}" for c in candidates)
        return RungOutcome(status="failed", message=f"{reasons}.", candidate=None)
    verdicts = {candidate.id: judge(candidate, limits) for candidate in usable}
    meeting = [c for c in usable if all(map(point_holds, verdicts[c.id].limits))]
    name, verdict, _ = select(meeting or usable, limits, objective)
    chosen = next(c for c in usable if c.id == name)
    if meeting:
        return RungOutcome(status="met", message=_untold(verdict), candidate=chosen)
    accurate = all(point_holds(row) for v in verdicts.values() for row in v.limits if row.name in _ACCURACY)
    missed = ", ".join(f"{row.name} {_text(row)}" for row in verdict.limits if not point_holds(row))
    return RungOutcome(status="missed", message=f"{missed}.", candidate=chosen, only_speed_misses=accurate)


def _untold(verdict: Verdict) -> str:
    """What the interval leaves open although the figure holds."""
    parts = []
    for row in verdict.limits:
        if row.status != "INCONCLUSIVE":
            continue
        name = _NAMES.get(row.name, row.name)
        if row.figure.value is None:
            parts.append(f"{name} was not measured")
        elif row.name in _ACCURACY:
            parts.append(f"{name} is inside, but the test split of {row.figure.n or 0:,} samples cannot tell for sure")
        else:
            parts.append(f"{name} is inside, but its interval reaches past the limit")
    return f"{'; '.join(parts)}.".capitalize() if parts else ""


def _text(row: LimitRow) -> str:
    value = "not measured" if row.figure.value is None else f"{row.figure.value:.3g}"
    return f"{value} (limit {row.limit:.4g})"
