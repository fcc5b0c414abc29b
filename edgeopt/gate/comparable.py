"""Whether a candidate and a baseline can be compared at all; what cannot be is refused, with what differs."""

from __future__ import annotations

from edgeopt.bundle.baseline import Recorded
from edgeopt.bundle.outcomes import Outcomes
from edgeopt.core.errors import BundleError
from edgeopt.core.measurement import Condition, Measurement
from edgeopt.measure.statistics import FEWEST_SAMPLES

__all__ = ["demand_same_conditions", "demand_same_device", "demand_same_model", "demand_same_samples"]

_MUST_EQUAL = ("threads", "batch")


def demand_same_model(candidate: Recorded, baseline: Recorded) -> None:
    """Equal inputs, outputs and classes.

    Raises:
        BundleError: They differ; the message says where.
    """
    mine, theirs = candidate.document.contract, baseline.document.contract
    for what, ours, others in (
        ("inputs", [_spec(i) for i in mine.inputs], [_spec(i) for i in theirs.inputs]),
        ("outputs", [_spec(o) for o in mine.outputs], [_spec(o) for o in theirs.outputs]),
        ("classes", list(mine.classes), list(theirs.classes)),
    ):
        if ours != others:
            raise BundleError(
                f"The baseline's model has other {what}.",
                got=f"{_listed(others)} in the baseline {baseline.document.name!r}; {_listed(ours)} here",
                fix="Give a baseline of the same model.",
            )


def demand_same_samples(candidate: Recorded, baseline: Recorded) -> tuple[Outcomes, Outcomes]:
    """Both sides' outcomes, on the same samples in the same order; enough of them for an interval.

    Returns:
        The candidate's and the baseline's.

    Raises:
        BundleError: One has none, they are of other data, or too few.
    """
    mine, theirs = candidate.outcomes, baseline.outcomes
    for whose, side, outcomes in (("bundle", candidate, mine), ("baseline", baseline, theirs)):
        if outcomes is None:
            raise BundleError(
                f"The {whose} holds no outcomes of single samples, so the two cannot be paired.",
                got=side.directory,
                fix="Compile it again with data; or leave out the limits on drop, slices and agreement.",
            )
    if mine is None or theirs is None:
        raise AssertionError
    if mine.split != theirs.split or len(mine) != len(theirs) or mine.task != theirs.task:
        raise BundleError(
            "The baseline was judged on other data, so samples cannot be paired.",
            got=_difference(candidate, baseline),
            fix="Compile both with the same data and seed, or save the baseline anew from a bundle compiled with it.",
        )
    if len(mine) < FEWEST_SAMPLES:
        raise BundleError(
            f"The test split is too small: no interval can be had from fewer than {FEWEST_SAMPLES} samples.",
            got=f"{len(mine)} samples",
            fix="Give more test samples.",
        )
    return mine, theirs


def demand_same_device(candidate: Recorded, baseline: Recorded, what: str) -> None:
    """Figures recorded on one device.

    Raises:
        BundleError: On two.
    """
    mine, theirs = candidate.document.device.name, baseline.document.device.name
    if mine != theirs:
        raise BundleError(
            f"The {what} of the baseline was measured on another device.",
            got=f"{theirs} in the baseline {baseline.document.name!r}; {mine} here",
            fix=f"Compile both on one device, or leave out the limit on {what}.",
        )


def demand_same_conditions(candidate: Recorded, baseline: Recorded) -> tuple[str, ...]:
    """Latencies recorded under equal threads and batch, on one device.

    Returns:
        What differs and is only told: the runtime and its version.

    Raises:
        BundleError: They differ.
    """
    demand_same_device(candidate, baseline, "latency")
    mine, theirs = (side.document.figure("latency_p50_ms") for side in (candidate, baseline))
    for name in _MUST_EQUAL:
        ours, others = _condition(mine, name), _condition(theirs, name)
        if ours != others:
            raise BundleError(
                f"The baseline's latency was recorded with another number of {name}."
                if name == "threads"
                else f"The baseline's latency was recorded at another {name}.",
                got=f"{name} {others} in the baseline {baseline.document.name!r}; {ours} here",
                fix="Compile both with equal measure settings, or leave out the limits on latency.",
            )
    ours, others = (f"{side.document.runtime} {side.document.runtime_version}" for side in (candidate, baseline))
    return () if ours == others else (f"The baseline's latency was recorded with {others}, this one's with {ours}.",)


def _condition(figure: Measurement | None, name: str) -> Condition:
    return figure.conditions.get(name) if figure is not None else None


def _difference(candidate: Recorded, baseline: Recorded) -> str:
    mine, theirs = candidate.document, baseline.document
    if mine.data is None or theirs.data is None or candidate.outcomes is None or baseline.outcomes is None:
        return "one of them was compiled without data"
    parts = []
    if mine.data.name != theirs.data.name:
        parts.append(f"data {theirs.data.name!r} against {mine.data.name!r} here")
    if len(candidate.outcomes) != len(baseline.outcomes):
        parts.append(f"{len(baseline.outcomes)} test samples against {len(candidate.outcomes)}")
    if candidate.outcomes.task != baseline.outcomes.task:
        parts.append(f"task {baseline.outcomes.task} against {candidate.outcomes.task}")
    prints = f"test split {baseline.outcomes.split[:12]}… against {candidate.outcomes.split[:12]}…"
    return ", ".join([*parts, prints])


def _spec(record: object) -> str:
    shape = ", ".join(str(dim) for dim in getattr(record, "shape", ()))
    return f"{getattr(record, 'name', '')}:{getattr(record, 'dtype', '')}[{shape}]"


def _listed(values: list[str]) -> str:
    text = ", ".join(values[:5]) + (f", … ({len(values)})" if len(values) > 5 else "")
    return text or "none"
