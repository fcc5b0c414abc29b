"""The findings a reader must see first, the most important first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeopt.bundle.document import Candidate, Verdict

__all__ = ["headline"]

_CRITERION = {"latency": "fastest", "size": "smallest", "accuracy": "most accurate"}


def headline(
    shipped: Candidate,
    candidates: Sequence[Candidate],
    verdicts: Mapping[str, Verdict],
    *,
    objective: str,
    by_figures: bool,
) -> tuple[str, ...]:
    """Say first what did not turn out as hoped, then what is shipped, then why the others are not.

    Args:
        by_figures: Whether the choice rests on the objective's figure; else nothing was measured on the target.
    """
    return (
        *_not_faster(candidates),
        *_unasked_reference(shipped, candidates),
        *([] if by_figures else [_not_measured(shipped)]),
        _shipping(shipped, verdicts[shipped.id], _CRITERION[objective], by_figures=by_figures),
        *(_left_out(c, shipped, verdicts[c.id], objective) for c in candidates if c.id != shipped.id),
    )


def _not_faster(candidates: Sequence[Candidate]) -> list[str]:
    findings = []
    for candidate in candidates:
        ratio = candidate.figure("latency_ratio")
        if candidate.role == "reference" or ratio is None or ratio.value is None:
            continue
        low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (ratio.value, ratio.value)
        if high < 1:
            continue
        found = "is slower than" if low > 1 else "is not measurably faster than"
        findings.append(
            f"{candidate.precision} {found} FP32 on {ratio.device} with {candidate.runtime}: "
            f"{ratio.value:.2f} times its median latency ({low:.2f} to {high:.2f})."
        )
    return findings


def _unasked_reference(shipped: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """What was asked for is never silently replaced."""
    asked = [c.precision for c in candidates if c.role == "candidate"]
    if shipped.role != "reference" or not asked:
        return []
    return [f"The FP32 reference is shipped, not the recipe's {' or '.join(dict.fromkeys(asked))}."]


def _not_measured(shipped: Candidate) -> str:
    reason = f": {shipped.reason}" if shipped.reason else ""
    next_step = f" Next: {shipped.next_command}" if shipped.next_command else ""
    return f"Not measured on the target{reason}.{next_step}".replace("..", ".")


def _shipping(shipped: Candidate, verdict: Verdict, criterion: str, *, by_figures: bool) -> str:
    if verdict.status == "FAIL":
        return f"No candidate holds the limits. Shipped: {shipped.id}{_figures(shipped)}. {verdict.summary}"
    if not by_figures:
        return f"Shipped: {shipped.id}, as the recipe asks{_figures(shipped)}."
    return f"Shipped: {shipped.id}, the {criterion} within the limits{_figures(shipped)}."


def _figures(shipped: Candidate) -> str:
    parts = []
    for name, form in (
        ("latency_p50_ms", "p50 {:.3g} ms"),
        ("latency_ratio", "{:.2f} times FP32's latency"),
        ("accuracy_top1_pct", "top-1 {:.2f} %"),
        ("drop_pp", "drop {:.2f} pp"),
        ("size_mib", "{:.3g} MiB"),
    ):
        figure = shipped.figure(name)
        against_itself = shipped.role == "reference" and name in {"drop_pp", "latency_ratio"}
        if figure is not None and figure.value is not None and not against_itself:
            parts.append(form.format(figure.value))
    return f": {', '.join(parts)}" if parts else ""


def _left_out(candidate: Candidate, shipped: Candidate, verdict: Verdict, objective: str) -> str:
    return f"Not shipped: {candidate.id}: {_why_left_out(candidate, shipped, verdict, objective)}"


def _why_left_out(candidate: Candidate, shipped: Candidate, verdict: Verdict, objective: str) -> str:
    if candidate.status != "measured":
        reason = f": {candidate.reason.rstrip('.')}" if candidate.reason else ""
        return f"{candidate.status.replace('_', ' ')}{reason}."
    if verdict.status == "FAIL":
        return verdict.summary
    name, unit = {
        "latency": ("latency_p50_ms", "ms p50"),
        "size": ("size_mib", "MiB"),
        "accuracy": ("accuracy_top1_pct", "% top-1"),
    }[objective]
    own, best = candidate.figure(name), shipped.figure(name)
    if own is None or best is None or own.value is None or best.value is None:
        return "the objective's figure was not measured."
    behind = own.value > best.value if objective != "accuracy" else own.value < best.value
    rule = "" if behind else "; within the noise or equal, and behind in the figure that decides ties"
    return f"{own.value:.4g} against {best.value:.4g} {unit}{rule}."
