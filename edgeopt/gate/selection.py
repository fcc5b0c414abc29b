"""Which candidate is shipped, and what a reader must hear about it first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from edgeopt.bundle.document import Candidate, Verdict
from edgeopt.core.errors import BackendError
from edgeopt.core.measurement import Measurement
from edgeopt.gate.headline import headline
from edgeopt.gate.limits import judge
from edgeopt.recipes.schema import Limits

__all__ = ["Objective", "select"]

Objective = Literal["latency", "size", "accuracy"]

_SIZE_TIE = 1.01  # sizes within 1 % are one size
_FIGURES = {"latency": "latency_p50_ms", "size": "size_mib", "accuracy": "accuracy_top1_pct"}


def select(
    candidates: Sequence[Candidate], limits: Limits, objective: Objective
) -> tuple[str, Verdict, tuple[str, ...]]:
    """Choose the best candidate that does not FAIL its limits.

    The FP32 references compete too. Where the objective's figure is a tie, the next one decides:

    - ``latency``: the smallest p50. A tie is a p50 whose interval overlaps the fastest one's; then the more accurate
      is chosen (a speed that noise could explain is no reason to lose accuracy), then the smaller.
    - ``size``: the smallest engine. A tie is within 1 %; then the faster is chosen.
    - ``accuracy``: the highest accuracy (agreement with FP32 where there are no labels). Only an equal figure is a
      tie: noise is no reason to give accuracy away; then the faster is chosen.

    Where no candidate has the objective's figure (the target cannot be measured here), the recipe's is shipped: the
    first that is not a reference. Where every candidate FAILs, the one that misses the fewest limits is shipped, with
    its FAIL.

    Args:
        candidates: In the target's order of preference; ``failed`` ones are never shipped, nor stages on the way to what
            the recipe makes.

    Returns:
        The id of the shipped candidate, its verdict, and the findings that a reader must see first.

    Raises:
        BackendError: Every candidate failed.
    """
    candidates = [candidate for candidate in candidates if candidate.role != "stage"]
    verdicts = {candidate.id: judge(candidate, limits) for candidate in candidates}
    usable = [candidate for candidate in candidates if candidate.status != "failed"]
    if not usable:
        reasons = "; ".join(f"{candidate.id}: {candidate.reason}" for candidate in candidates) or "there are none"
        raise BackendError("No candidate could be built and run.", got=reasons)
    holding = [candidate for candidate in usable if verdicts[candidate.id].status != "FAIL"]
    eligible = holding or _least_missed(usable, verdicts)
    measured = [c for c in eligible if c.status == "measured" and _objective_value(c, objective) is not None]
    if measured:
        shipped = _CHOOSERS[objective](measured)
    else:
        shipped = next((c for c in eligible if c.role == "candidate"), eligible[0])
    findings = headline(shipped, candidates, verdicts, objective=objective, by_figures=bool(measured))
    return shipped.id, verdicts[shipped.id], findings


def _least_missed(usable: Sequence[Candidate], verdicts: dict[str, Verdict]) -> list[Candidate]:
    missed = {c.id: sum(row.status == "FAIL" for row in verdicts[c.id].limits) for c in usable}
    fewest = min(missed.values())
    return [candidate for candidate in usable if missed[candidate.id] == fewest]


def _objective_value(candidate: Candidate, objective: Objective) -> float | None:
    return _fidelity(candidate) if objective == "accuracy" else _value(candidate, _FIGURES[objective])


def _fastest(candidates: Sequence[Candidate]) -> Candidate:
    leader = min(candidates, key=lambda c: _known(_value(c, "latency_p50_ms")))
    tied = [c for c in candidates if _overlap(c.figure("latency_p50_ms"), leader.figure("latency_p50_ms"))]
    return min(tied, key=lambda c: (-(_fidelity(c) or 0.0), _known(_value(c, "size_mib"))))


def _smallest(candidates: Sequence[Candidate]) -> Candidate:
    smallest = min(_known(_value(c, "size_mib")) for c in candidates)
    tied = [c for c in candidates if _known(_value(c, "size_mib")) <= smallest * _SIZE_TIE]
    return min(tied, key=lambda c: _known(_value(c, "latency_p50_ms")))


def _most_accurate(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda c: (-(_fidelity(c) or 0.0), _known(_value(c, "latency_p50_ms"))))


_CHOOSERS: dict[str, Callable[[Sequence[Candidate]], Candidate]] = {
    "latency": _fastest,
    "size": _smallest,
    "accuracy": _most_accurate,
}


def _fidelity(candidate: Candidate) -> float | None:
    """Accuracy; without labels agreement with FP32, which FP32 itself has in full."""
    accuracy = _value(candidate, "accuracy_top1_pct")
    if accuracy is not None:
        return accuracy
    return 100.0 if candidate.role == "reference" else _value(candidate, "agreement_pct")


def _overlap(figure: Measurement | None, leader: Measurement | None) -> bool:
    if figure is None or leader is None or figure.value is None or leader.value is None:
        return False
    low = figure.interval.low if figure.interval else figure.value
    high = leader.interval.high if leader.interval else leader.value
    return low <= high


def _value(candidate: Candidate, name: str) -> float | None:
    figure = candidate.figure(name)
    return None if figure is None else figure.value


def _known(value: float | None) -> float:
    return float("inf") if value is None else value
