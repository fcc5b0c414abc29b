"""Every engine held against FP32 and against a second runtime, then measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeopt.bundle.document import Candidate, DeviceInfo
from edgeopt.bundle.outcomes import Outcomes
from edgeopt.core.engine import Engine
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.data.contract import Dataset
from edgeopt.devices.base import Device
from edgeopt.devices.local import LocalDevice
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.coverage_there import candidate_coverage
from edgeopt.pipeline.engines import Built
from edgeopt.pipeline.evidence import Figures, judge_outputs, measure_speed, size_mib
from edgeopt.pipeline.on_device import is_remote
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs, demand_finite
from edgeopt.pipeline.trials import Bench, Trial, batch_of, hold_against_others, outputs_of, settle

if TYPE_CHECKING:  # SciPy, only where something is really judged
    from edgeopt.measure.evaluation import Evaluation

__all__ = ["Judged", "judge_candidates"]

_AGAINST_FP32 = ("drop_pp", "agreement_pct", "output_sqnr_db")
_SPEED = (
    ("latency_p50_ms", "ms"),
    ("latency_p99_ms", "ms"),
    ("latency_ratio", "1"),
    ("throughput_per_s", "1/s"),
    ("cold_start_ms", "ms"),
    ("peak_memory_mib", "MiB"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All candidates with their figures.

    Attributes:
        candidates: One per planned candidate, in order; none is marked as shipped yet.
        built: Likewise.
        outputs: What each candidate's engine gave on the parity inputs, by id.
        outcomes: What each sample of the test split came to, by id; of those that were judged by targets.
        info: What was measured on.
    """

    candidates: tuple[Candidate, ...]
    built: tuple[Built, ...]
    outputs: dict[str, tuple[np.ndarray, ...]]
    info: DeviceInfo
    outcomes: dict[str, Outcomes] = dataclasses.field(default_factory=dict)


def judge_candidates(
    context: RunContext,
    plan: Plan,
    device: Device,
    built: Sequence[Built],
    *,
    samples: ParityInputs,
    data: Dataset | None,
) -> Judged:
    """Run every engine on real samples; compare, evaluate, and time those that may stand for the target."""
    beside = LocalDevice() if is_remote(device) else device
    info = device.info()
    bench = Bench(
        context=context,
        plan=plan,
        device=device,
        info=info,
        beside=beside,
        beside_info=info if beside is device else beside.info(),
        samples=samples,
        data=data,
    )
    trials = [settle(bench, one) for one in built]
    for trial in trials:
        hold_against_others(bench, trial, trials)
    for trial in trials:
        reference = _reference_of(trial, trials)
        if reference.failure and not trial.failure:
            trial.failure = f"the FP32 reference of its runtime is not right: {reference.failure}"
    test = _test_outputs(bench, trials)  # before the clock: what is wrong here makes every time worthless
    figures = _speed(bench, trials)
    evaluations = {trial.built.planned.id: _judged(bench, trial, trials, test) for trial in trials}
    candidates = tuple(_candidate(bench, t, evaluations[t.built.planned.id], figures) for t in trials)
    return Judged(
        candidates=candidates,
        built=tuple(t.built for t in trials),
        outputs={trial.built.planned.id: trial.outputs for trial in trials},
        info=bench.info,
        outcomes={name: one.outcomes for name, one in evaluations.items() if one.outcomes is not None},
    )


def _test_outputs(bench: Bench, trials: Sequence[Trial]) -> dict[str, dict[str, np.ndarray]]:
    """Outputs on the whole test split, by candidate and name."""
    if bench.data is None:
        return {}
    test = bench.data.splits["test"]
    outputs = {}
    for trial in trials:
        planned = trial.built.planned
        if trial.engine is not None:
            arrays = outputs_of(bench, trial, test, f"evaluate {planned.id}")
            if planned.role == "reference":
                demand_finite(arrays, "The model's own outputs", test.indices, f"{len(test)} of the test split")
            outputs[planned.id] = {spec.name: a for spec, a in zip(trial.engine.outputs, arrays, strict=True)}
    return outputs


def _speed(bench: Bench, trials: Sequence[Trial]) -> dict[str, Figures]:
    engines = {t.built.planned.id: (t.engine, t.key) for t in trials if t.engine is not None and not t.stand_in}
    if not bench.plan.measured_here or not engines:
        return {}
    first = next(iter(engines.values()))[0]
    sample = {spec.name: array for spec, array in zip(first.inputs, bench.samples.arrays, strict=True)}
    references = {t.built.planned.id: f"{t.built.planned.rules.name}-fp32" for t in trials}
    references = {name: other for name, other in references.items() if name != other}
    return measure_speed(
        bench.context,
        bench.device,
        bench.info,
        engines,
        references=references,
        sample=sample,
        config=bench.plan.recipe.measure,
        batch=batch_of(first, bench.plan),
    )


def _reference_of(trial: Trial, trials: Sequence[Trial]) -> Trial:
    """The original in FP32 on the same runtime."""
    name = trial.built.planned.rules.name
    return next(t for t in trials if t.built.planned.rules.name == name and t.built.planned.role == "reference")


def _candidate(bench: Bench, trial: Trial, judged: Evaluation, figures: dict[str, Figures]) -> Candidate:
    planned, engine = trial.built.planned, trial.built.engine
    accuracy = judged.measurements
    if planned.role == "reference":  # compared with itself it says nothing
        accuracy = tuple(m for m in accuracy if m.name not in _AGAINST_FP32)
    speed, latency = _speed_figures(bench.plan, trial, figures)
    has_size = any(m.name == "size_mib" for m in speed)
    size = [size_mib(engine)] if engine is not None and not has_size else []
    status, reason = _status(bench.plan, trial, figures)
    ran, where = bool(trial.outputs) and not trial.stand_in, (bench.device, bench.info)
    told = candidate_coverage(bench.context, bench.plan, trial.built, where, bench.samples.arrays, ran=ran)
    return Candidate(
        id=planned.id,
        runtime=planned.rules.name,
        runtime_version=engine.runtime_version if engine else planned.availability.version or "",
        precision=planned.precision,
        dialect=planned.dialect,
        role=planned.role,
        stage=planned.stage,
        status=status,
        reason=reason,
        next_command=_next(engine),
        measurements=(*accuracy, *speed, *size, *told[1]),
        latency_ms=latency,
        classes=judged.classes,
        slices=judged.slices,
        reliability=judged.reliability,
        coverage=told[0],
        events=tuple(trial.built.events),
    )


def _status(
    plan: Plan, trial: Trial, figures: dict[str, Figures]
) -> tuple[Literal["measured", "not_built", "not_measured", "failed"], str]:
    if trial.failure:
        return "failed", trial.failure
    if trial.built.engine is not None and trial.built.engine.status == "not_built":
        return "not_built", trial.built.engine.why_not_built or "only the device can build this engine"
    measured = figures.get(trial.built.planned.id)
    if measured is not None:
        return ("failed", measured.failed) if measured.failed else ("measured", "")
    return "not_measured", plan.measured_reason


def _judged(bench: Bench, trial: Trial, trials: Sequence[Trial], test: dict[str, dict[str, np.ndarray]]) -> Evaluation:
    from edgeopt.measure.evaluation import Evaluation

    planned = trial.built.planned
    reference = _reference_of(trial, trials)
    mine, theirs = test.get(planned.id), test.get(reference.built.planned.id)
    if bench.data is None or mine is None or theirs is None:
        reason = "no data was given" if bench.data is None else "no runtime here can run the graph"
        names = (("accuracy_top1_pct", "%"), ("drop_pp", "pp"), ("agreement_pct", "%"), ("output_sqnr_db", "dB"))
        return Evaluation(measurements=tuple(not_measured(name, unit, reason) for name, unit in names))
    conditions: dict[str, Any] = {"split": "test", "runtime": trial.stand_in or planned.rules.name}
    where = bench.beside_info if trial.stand_in else bench.info
    return judge_outputs(theirs, mine, bench.data, where.name, conditions, seed=bench.context.seed)


def _speed_figures(
    plan: Plan, trial: Trial, figures: dict[str, Figures]
) -> tuple[tuple[Measurement, ...], tuple[float, ...]]:
    mine = figures.get(trial.built.planned.id)
    if mine is None:
        reason = trial.failure or plan.measured_reason
        return tuple(not_measured(name, unit, reason) for name, unit in _SPEED), ()
    return mine.measurements, mine.latency_ms


def _next(engine: Engine | None) -> str | None:
    """What is to be run on the device, seen from the bundle's folder."""
    return f"cd engine && {engine.next_command}" if engine is not None and engine.next_command else None
