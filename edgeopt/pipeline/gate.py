"""Whether a bundle ships: its figures against limits, itself against a baseline."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from edgeopt.bundle.accuracy import drop_name
from edgeopt.bundle.baseline import Recorded, read_recorded
from edgeopt.bundle.baselines import find_baseline
from edgeopt.bundle.document import Candidate, LimitRow
from edgeopt.bundle.gate import GateResult, GateRow, GateSubject
from edgeopt.core.errors import BundleError, RecipeError, nearest_first
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement
from edgeopt.gate.against import baseline_rows, gate_row
from edgeopt.gate.comparable import demand_same_conditions, demand_same_model
from edgeopt.gate.limits import limit_rows
from edgeopt.gate.status import worst
from edgeopt.recipes.gate import BaselineLimits, GateLimits, OnInconclusive, load_gate_limits
from edgeopt.recipes.settings import Limits
from edgeopt.version import __version__

__all__ = ["gate_bundle", "subject_of"]

_AT_LEAST = {"agreement_pct": "agreement", "int8_macs_pct": "int8_macs"}
_AGAINST_FP32 = ("drop", "worst_slice", "agreement", "latency_ratio", "latency_p99_ratio")


def gate_bundle(
    path: Path,
    *,
    baseline: str | None = None,
    limits: Path | GateLimits | None = None,
    on_inconclusive: OnInconclusive | None = None,
    folder: Path = Path("baselines"),
    device: str = "local",
    seed: int = 0,
    progress: ProgressListener = ignore_progress,
) -> GateResult:
    """Judge a bundle by its recorded figures, and, where a baseline is given, beside that.

    Every file of the bundle is checked against its hash first. Latency against a baseline that is a bundle is measured
    now, both engines in turns; against a baseline file only what was recorded can be compared.

    Args:
        baseline: A bundle's folder, a baseline's folder or file, or a name in ``folder``.
        limits: A limits file. None: those of the bundle's own recipe; what they allow the outputs to lose against FP32
            is then also what may be lost against the baseline.
        on_inconclusive: None: as the limits file says, else ``fail``.
        folder: Of baselines.
        device: Where engines are run.

    Raises:
        BundleError: A bundle or baseline was changed, is missing, or the two cannot be compared.
        RecipeError: The limits are malformed, name what was not measured, or there are none.
    """
    candidate = read_recorded(path)
    bundle = candidate.bundle
    if bundle is None:
        raise BundleError("This is not a bundle.", got=path)
    asked, notes = _limits(limits, Limits.model_validate(bundle.report.recipe["limits"]), baseline)
    rows = list(_own_rows(bundle.report.shipped, asked.limits))
    other = None
    if baseline is not None:
        other = find_baseline(baseline, folder)
        demand_same_model(candidate, other)
        latency, told = _latency(candidate, other, asked.baseline, device=device, seed=seed, progress=progress)
        notes += told
        rows += baseline_rows(candidate, other, asked.baseline, latency, seed=seed)
    status = worst(row.status for row in rows)
    policy = on_inconclusive or asked.on_inconclusive
    return GateResult(
        edgeopt_version=__version__,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        bundle=subject_of(candidate, str(path)),
        baseline=subject_of(other, str(baseline)) if other is not None else None,
        status=status,
        summary=_summary(rows),
        on_inconclusive=policy,
        exit_code=4 if status == "FAIL" else 5 if status == "INCONCLUSIVE" and policy == "fail" else 0,
        rows=tuple(rows),
        notes=notes,
    )


def _limits(given: Path | GateLimits | None, own: Limits, baseline: str | None) -> tuple[GateLimits, tuple[str, ...]]:
    """What is asked, and what a reader must know of where it comes from."""
    if given is not None:
        asked = given if isinstance(given, GateLimits) else load_gate_limits(given)
        if baseline is None and not asked.baseline.is_empty:
            raise RecipeError(
                "The limits file limits what is lost against a baseline, and none was given.",
                fix="Give one with --baseline, or take the section `baseline` out.",
            )
        if baseline is not None and asked.baseline.is_empty:
            raise RecipeError(
                "A baseline was given, and the limits file says nothing of it.",
                fix="Add a section `baseline`, for example `baseline: {drop_pp: 0.5, latency_ratio: 1.05}`.",
            )
        return asked, ()
    like = BaselineLimits.like(own) if baseline is not None else BaselineLimits()
    if own == Limits() or (baseline is not None and like.is_empty):
        raise RecipeError(
            "The bundle's recipe sets no limit" + (" that a baseline could be held to." if baseline else "."),
            fix="Give a limits file with --limits, for example `schema_version: 1` and `limits: {drop_pp: 1.0}`.",
        )
    notes = ("The limits are those of the bundle's recipe.",)
    if baseline is not None:
        notes = (
            "The limits are those of the bundle's recipe; what the outputs may lose holds against the baseline too.",
        )
    return GateLimits(schema_version=1, limits=own, baseline=like), notes


def _own_rows(shipped: Candidate, limits: Limits) -> list[GateRow]:
    for metric in limits.drops:
        if shipped.figure(drop_name(metric)) is None and shipped.role != "reference":
            there = [m.name.removeprefix("drop_") for m in shipped.measurements if m.name.startswith("drop_")]
            there = ["accuracy_top1_pct" if name == "pp" else name for name in there]
            raise RecipeError(
                f"The limit `limits.drops.{metric}` needs a metric that the bundle's report does not have.",
                got=repr(metric),
                fix=f"It has, nearest first: {', '.join(nearest_first(metric, there)) or 'none'}.",
            )
    rows = [_own_row(_key(row), row) for row in limit_rows(shipped, limits.model_copy(update={"drops": {}}))]
    drops = limit_rows(shipped, Limits(drops=limits.drops))
    return rows + [_own_row(f"limits.drops.{name}", row) for name, row in zip(limits.drops, drops, strict=True)]


def _key(row: LimitRow) -> str:
    return f"limits.{_AT_LEAST.get(row.name, row.name)}"


def _own_row(key: str, row: LimitRow) -> GateRow:
    return gate_row(
        key,
        "fp32" if row.name.startswith(_AGAINST_FP32) else "absolute",
        row.figure,
        row.limit,
        at_most=row.name not in _AT_LEAST,
        status=row.status,
        message=row.message,
    )


def _latency(
    candidate: Recorded,
    baseline: Recorded,
    limits: BaselineLimits,
    *,
    device: str,
    seed: int,
    progress: ProgressListener,
) -> tuple[dict[str, Measurement], tuple[str, ...]]:
    """Ratios of latencies, and what a reader must know of them."""
    if not limits.of_latency:
        return {}, ()
    if candidate.bundle is not None and baseline.bundle is not None:
        from edgeopt.pipeline.gate_latency import ratios_now

        return ratios_now(candidate.bundle, baseline.bundle, device=device, seed=seed, progress=progress)
    from edgeopt.gate.recorded_latency import recorded_ratios

    told = demand_same_conditions(candidate, baseline)
    return recorded_ratios(candidate.document, baseline.document, seed=seed), (
        "Latencies against the baseline were recorded on two occasions, not measured in turns.",
        *told,
    )


def _summary(rows: list[GateRow]) -> str:
    status = worst(row.status for row in rows)
    if status == "PASS":
        return f"All {len(rows)} limits hold." if len(rows) > 1 else rows[0].text
    return " ".join(row.text for row in rows if row.status == status)


def subject_of(side: Recorded, path: str) -> GateSubject:
    """What a bundle or baseline is, for a document. ``path``: as it was given."""
    document = side.document
    return GateSubject(
        name=document.name,
        path=path,
        kind="bundle" if side.bundle is not None else "baseline",
        model=document.model.name,
        model_sha256=document.model.sha256,
        target=document.target,
        recipe=document.recipe,
        runtime=document.runtime,
        runtime_version=document.runtime_version,
        precision=document.precision,
        device=document.device.name,
        created=document.bundle_created,
        samples=document.samples,
    )
