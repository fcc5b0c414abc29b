"""The findings a reader must see first, the most important first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeopt.bundle.document import Candidate, Verdict

__all__ = ["headline"]

# By objective: the figure that decides, how it is written, what its being worse is called.
_BEHIND = {
    "latency": ("latency_p50_ms", "p50 {} ms", "slower"),
    "size": ("size_mib", "{} MiB", "larger"),
    "accuracy": ("accuracy_top1_pct", "top-1 {} %", "less accurate"),
}
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
        *_left_out(shipped, candidates, verdicts, objective, by_figures=by_figures),
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
            f"{_made(candidate)} {found} FP32 on {ratio.device} with {candidate.runtime}: "
            f"{ratio.value:.2f} times its median latency ({low:.2f} to {high:.2f})."
        )
    return findings


def _unasked_reference(shipped: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """What was asked for is never silently replaced."""
    asked = [_made(c) for c in candidates if c.role == "candidate"]
    if shipped.role != "reference" or not asked:
        return []
    return [f"The FP32 reference is shipped, not the recipe's {' or '.join(dict.fromkeys(asked))}."]


def _made(candidate: Candidate) -> str:
    """``int8``; ``fp32 finetuned`` of a recipe that ends in a float model."""
    return f"{candidate.precision} {candidate.stage}".rstrip()


def _not_measured(shipped: Candidate) -> str:
    reason = f": {shipped.reason.rstrip('.')}" if shipped.reason else ""
    return f"Not measured on the target{reason}."


def _shipping(shipped: Candidate, verdict: Verdict, criterion: str, *, by_figures: bool) -> str:
    if verdict.status == "FAIL":
        return f"No candidate holds the limits. Shipped: {shipped.id}{_figures(shipped)}. {verdict.summary}"
    if not by_figures:
        return f"Shipped: {shipped.id}, as the recipe asks{_figures(shipped)}."
    return f"Shipped: {shipped.id}, the {criterion} within the limits{_figures(shipped)}."


def _figures(shipped: Candidate) -> str:
    parts = [
        _speed(shipped),
        "" if shipped.role == "reference" else _drop(shipped),
        _value(shipped, "accuracy_top1_pct", "top-1 {} %"),
        _value(shipped, "size_mib", "{} MiB"),
    ]
    text = ", ".join(part for part in parts if part)
    return f": {text}" if text else ""


def _speed(shipped: Candidate) -> str:
    """How fast, and how that compares with FP32 where the interval tells."""
    p50 = _value(shipped, "latency_p50_ms", "p50 {} ms")
    ratio = shipped.figure("latency_ratio")
    if shipped.role == "reference" or ratio is None or not ratio.value:
        return p50
    low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (ratio.value, ratio.value)
    if low <= 1 <= high:
        words = "as fast as FP32"
    else:
        words = f"{1 / ratio.value:.2f}× faster than FP32" if high < 1 else f"{ratio.value:.2f}× slower than FP32"
    return f"{words} ({p50})" if p50 else words


def _drop(shipped: Candidate) -> str:
    drop = shipped.figure("drop_pp")
    if drop is None or drop.value is None:
        return ""
    text = f"drop {_signed(drop.value)} pp"
    if drop.interval is not None:
        text += f" [{_signed(drop.interval.low)}, {_signed(drop.interval.high)}]"
    return text


def _signed(value: float) -> str:
    """Two decimals; a minus as wide as a plus, and none on a zero."""
    text = f"{abs(value):.2f}"
    return f"−{text}" if value < 0 and float(text) else text


def _value(candidate: Candidate, name: str, form: str) -> str:
    found = candidate.figure(name)
    return "" if found is None or found.value is None else _written(form, found.value)


def _written(form: str, value: float) -> str:
    """A share with two decimals, anything else with three digits."""
    share = form.endswith("%")
    return form.format(f"{value:.2f}" if share else f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip("."))


def _left_out(
    shipped: Candidate,
    candidates: Sequence[Candidate],
    verdicts: Mapping[str, Verdict],
    objective: str,
    *,
    by_figures: bool,
) -> list[str]:
    """Why the others are not shipped, equal reasons in one line; the FP32 of a target not measured needs none."""
    reasons: dict[str, list[str]] = {}
    behind: list[tuple[float, str]] = []
    name, form, words = _BEHIND[objective]
    best = shipped.figure(name)
    for candidate in candidates:
        same = (candidate.status, candidate.reason) == (shipped.status, shipped.reason)
        if candidate.id == shipped.id or (not by_figures and same and verdicts[candidate.id].status != "FAIL"):
            continue
        own = candidate.figure(name)
        if candidate.status != "measured":
            reason = f": {candidate.reason.rstrip('.')}" if candidate.reason else ""
            reasons.setdefault(f"{candidate.status.replace('_', ' ')}{reason}.", []).append(candidate.id)
        elif verdicts[candidate.id].status == "FAIL":
            reasons.setdefault(verdicts[candidate.id].summary, []).append(candidate.id)
        elif own is None or best is None or own.value is None or best.value is None:
            reasons.setdefault("the objective's figure was not measured.", []).append(candidate.id)
        elif own.value > best.value if objective != "accuracy" else own.value < best.value:
            behind.append((own.value, f"{candidate.id} ({_written(form, own.value)})"))
        else:
            rule = "within the noise or equal, and behind in the figure that decides ties."
            reasons.setdefault(f"{_written(form, own.value)}, {rule}", []).append(candidate.id)
    lines = []
    if behind:
        behind.sort(reverse=objective == "accuracy")
        lines.append(f"Not shipped, {words}: {', '.join(text for _, text in behind)}.")
    return [*lines, *(f"Not shipped: {', '.join(whose)}: {why}" for why, whose in reasons.items())]
