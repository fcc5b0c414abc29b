"""Does a candidate hold its limits? An answer only where the interval allows one."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.bundle.accuracy import drop_name
from edgeopt.bundle.document import Candidate, LimitRow, Verdict
from edgeopt.core.errors import RecipeError
from edgeopt.core.measurement import not_measured
from edgeopt.gate.coverage import INT8_MACS, judge_coverage
from edgeopt.gate.slices import WORST_SLICE, judge_slices
from edgeopt.gate.status import message_of, sentence, status_of, worst
from edgeopt.recipes.schema import Limits

__all__ = ["judge", "limit_rows", "point_holds", "sentence_of", "verdict_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How one field of ``Limits`` reads: the figure it judges, and how."""

    field: str
    figure: str
    unit: str
    scale: float = 1.0
    at_most: bool = True
    against_fp32: bool = False


# The recipe gives a share, the figure is in percent: hence the scale.
_RULES = (
    _Rule(field="drop_pp", figure="drop_pp", unit="pp", against_fp32=True),
    _Rule(field="worst_slice_drop_pp", figure=WORST_SLICE, unit="pp", against_fp32=True),
    _Rule(field="latency_ratio", figure="latency_ratio", unit="1", against_fp32=True),
    _Rule(field="latency_p99_ratio", figure="latency_p99_ratio", unit="1", against_fp32=True),
    _Rule(field="latency_p50_ms", figure="latency_p50_ms", unit="ms"),
    _Rule(field="latency_p99_ms", figure="latency_p99_ms", unit="ms"),
    _Rule(field="cold_start_ms", figure="cold_start_ms", unit="ms"),
    _Rule(field="agreement", figure="agreement_pct", unit="%", scale=100.0, at_most=False, against_fp32=True),
    _Rule(field="size_mib", figure="size_mib", unit="MiB"),
    _Rule(field="peak_memory_mib", figure="peak_memory_mib", unit="MiB"),
    _Rule(field="int8_macs", figure=INT8_MACS, unit="%", scale=100.0, at_most=False),
)
_AT_LEAST = frozenset(rule.figure for rule in _RULES if not rule.at_most)


def judge(candidate: Candidate, limits: Limits) -> Verdict:
    """Hold a candidate's figures against the limits. A figure on the limit itself holds it.

    A limit PASSes where the figure's whole interval holds it, FAILs where none of it does, and is INCONCLUSIVE where
    the limit lies inside the interval or the figure was not measured. Figures without an interval (a size) are taken
    as exact. The FP32 reference holds every limit that compares with FP32. The verdict is the worst of its limits.

    Raises:
        RecipeError: ``agreement`` is not a share.
    """
    return verdict_of(limit_rows(candidate, limits))


def limit_rows(candidate: Candidate, limits: Limits) -> tuple[LimitRow, ...]:
    """One row per limit that is set.

    Raises:
        RecipeError: ``agreement`` is not a share.
    """
    if limits.agreement is not None and not 0 <= limits.agreement <= 1:
        raise RecipeError(
            "The limit `agreement` is a share between 0 and 1.", got=limits.agreement, fix="Write 0.99 for 99 %."
        )
    rows = [
        _row(candidate, rule, float(limit) * rule.scale)
        for rule in _RULES
        if (limit := getattr(limits, rule.field)) is not None
    ]
    for metric, limit in limits.drops.items():
        name = drop_name(metric)
        figure = candidate.figure(name)
        rule = _Rule(field="drops", figure=name, unit=figure.unit if figure else "1", against_fp32=True)
        rows.append(_row(candidate, rule, limit))
    return tuple(rows)


def verdict_of(rows: tuple[LimitRow, ...]) -> Verdict:
    """The worst of its limits, and the sentences of those that are as bad."""
    if not rows:
        return Verdict(status="PASS", summary="No limits set.")
    status = worst(row.status for row in rows)
    telling = [sentence_of(row) for row in rows if row.status == status]
    held = sum(row.status == "PASS" for row in rows)
    summary = f"All {held} limits hold." if held > 1 else telling[0]
    return Verdict(status=status, summary=summary if status == "PASS" else " ".join(telling), limits=rows)


def point_holds(row: LimitRow) -> bool:
    """Whether the figure itself holds its limit, whatever its interval; one that was not measured misses nothing."""
    if row.figure.value is None or row.status == "PASS":
        return True
    return row.figure.value >= row.limit if row.name in _AT_LEAST else row.figure.value <= row.limit


def sentence_of(row: LimitRow) -> str:
    """The row in words that stand alone."""
    at_most = row.name not in _AT_LEAST
    return sentence(row.name, row.figure, row.limit, row.status, row.message, at_most=at_most)


def _row(candidate: Candidate, rule: _Rule, limit: float) -> LimitRow:
    figure = candidate.figure(rule.figure)
    if rule.against_fp32 and candidate.role == "reference":
        missing = not_measured(rule.figure, rule.unit, "this is the FP32 reference itself")
        return LimitRow(
            name=rule.figure,
            limit=limit,
            figure=figure or missing,
            status="PASS",
            message="Holds, since this is the FP32 reference itself.",
        )
    if rule.figure == WORST_SLICE:
        figure, status, message = judge_slices(candidate.slices, limit)
        return LimitRow(name=rule.figure, limit=limit, figure=figure, status=status, message=message)
    if rule.figure == INT8_MACS:
        figure, status, message = judge_coverage(candidate, limit)
        return LimitRow(name=rule.figure, limit=limit, figure=figure, status=status, message=message)
    if figure is None:
        why = candidate.reason or "the bundle has no such figure"
        figure = not_measured(rule.figure, rule.unit, why)
    status = status_of(figure, limit, at_most=rule.at_most)
    return LimitRow(
        name=rule.figure, limit=limit, figure=figure, status=status, message=message_of(figure, limit, status)
    )
