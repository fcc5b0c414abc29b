"""One candidate on this machine: run in the form that keeps its accuracy, and held against PyTorch and a second runtime."""

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.events import Event
from edgeopt.data.contract import Dataset, Split
from edgeopt.devices.base import Device
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.engines import Built, build_engine, build_witness
from edgeopt.pipeline.evidence import collect
from edgeopt.pipeline.form_race import Race, run_race
from edgeopt.pipeline.forms import Attempt, choose_form, portable_db
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.targets.schema import is_quantized

__all__ = ["Bench", "Trial", "batch_of", "hold_against_others", "outputs_of", "settle"]

_FORM_LOSS_DB = 0.5  # of a faster form, as SQNR against FP32 on the parity samples: what a dialect's own grids may cost
# And more of it where the form leaves so much that nobody tells the difference: (dB left, dB it may cost). At 35 dB the noise has
# 0.03 % of the outputs' power, at 40 as little as a dialect must keep, at 45 0.003 %.
_LOSSES_DB = ((45.0, 6.0), (40.0, 3.0), (35.0, 1.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where every candidate is tried: one device, one plan, the same samples.

    What stands in for an engine, or is compared with it, runs ``beside``: on this machine.
    """

    context: RunContext
    plan: Plan
    device: Device
    info: DeviceInfo
    beside: Device
    beside_info: DeviceInfo
    samples: ParityInputs
    data: Dataset | None


@dataclass(slots=True, kw_only=True)
class Trial:
    """What stands for a candidate on this machine.

    Attributes:
        engine: Its own engine, or, where that cannot run here, the portable graph on another runtime.
        stand_in: What the figures' conditions say of that; empty for the candidate's own engine.
        outputs: On the parity inputs.
        failure: Why the candidate may not be shipped.
    """

    built: Built
    engine: Engine | None
    key: str
    stand_in: str = ""
    outputs: tuple[np.ndarray, ...] = ()
    failure: str = ""


def settle(bench: Bench, built: Built) -> Trial:
    """Run a candidate in the form that keeps its accuracy on its own runtime and, of those, is the fastest on the device."""
    planned = built.planned
    if not is_quantized(planned.precision) or not (planned.rules.forms or planned.rules.faster_forms):
        return _try(bench, built)
    trials: dict[str, Trial] = {}

    def attempt(form: str) -> Attempt:
        one = built
        if form:
            one = build_engine(bench.context, bench.plan, dataclasses.replace(planned, form=form), built.graph)
        trial = trials[one.planned.dialect] = _try(bench, one)
        return _attempt(bench, trial)

    chosen, events = choose_form(attempt(""), planned.rules.forms, portable_db(built.graph.parity), attempt)
    bench.context.note([event for event in events if event not in bench.context.events])  # of earlier rungs too
    trial = trials[chosen.built.planned.dialect]
    trial.built = chosen.built
    return _faster(bench, trial, chosen, attempt, trials)


def _faster(
    bench: Bench, trial: Trial, chosen: Attempt, attempt: Callable[[str], Attempt], trials: Mapping[str, Trial]
) -> Trial:
    """The trial in one of the target's faster forms where one is: timed on the device, and no less accurate."""
    planned = trial.built.planned
    wanted = bench.plan.measured_here and bench.plan.recipe.measure.forms and not trial.stand_in and not trial.failure
    if not wanted or trial.engine is None or planned.form:  # a form taken for its accuracy stays
        return trial
    raced, events = {planned.dialect: chosen}, []
    for form in planned.rules.faster_forms if planned.precision == "int8" else ():
        if form == planned.dialect:
            continue
        other = attempt(form)
        engine, why = other.built.engine, _why_not_timed(bench, chosen, other)
        if engine is not None and any(_are_one_file(engine, one.built.engine) for one in raced.values()):
            continue
        if engine is None or why or trials[form].stand_in:
            message = f"The form {form} is not timed: {why or 'it does not run here'}."
            events.append(Event(kind="note", stage=f"compile {planned.id}", message=message))
        else:
            raced[form] = other
    if len(raced) > 1:
        sample = {spec.name: array for spec, array in zip(trial.engine.inputs, bench.samples.arrays, strict=True)}
        race = Race(
            context=bench.context,
            device=bench.device,
            info=bench.info,
            engines={form: (one.built.engine, trials[form].key) for form, one in raced.items() if one.built.engine},
            sample=sample,
            config=bench.plan.recipe.measure,
            batch=batch_of(trial.engine, bench.plan),
        )
        form, told = run_race(race)
        trial, events = trials[form], [*events, *told, *_loss_told(chosen, raced[form])]
    trial.built = dataclasses.replace(trial.built, events=[*trial.built.events, *events])
    bench.context.note([event for event in events if event not in bench.context.events])
    return trial


def _why_not_timed(bench: Bench, first: Attempt, other: Attempt) -> str:
    """Why a form may not be taken however fast it is; empty where it may."""
    if other.failure:
        return other.failure
    wanted, loss = bench.plan.recipe.limits.int8_macs, _loss_db(first, other)
    if loss > _allowed_db(other):
        return f"it is {loss:.1f} dB further from FP32"
    engine = other.built.engine
    share = None if engine is None or engine.coverage is None else engine.coverage.int8_macs_pct
    if wanted is not None and share is not None and share < 100 * wanted:
        return f"{share:.1f} % of its multiplications are in int8, and limits.int8_macs asks for {100 * wanted:g} %"
    return ""


def _allowed_db(form: Attempt) -> float:
    """How much of its SQNR a faster form may cost, by what is left of it."""
    left = form.sqnr_db or 0.0
    return next((loss for enough, loss in _LOSSES_DB if left >= enough), _FORM_LOSS_DB)


def _are_one_file(one: Engine, other: Engine | None) -> bool:
    """Whether two engines are the same: a form changes nothing in a net without what it is for."""
    return other is not None and filecmp.cmp(one.path, other.path, shallow=False)


def _loss_told(first: Attempt, taken: Attempt) -> Iterator[Event]:
    """What the form that is taken costs, where that is more than a dialect's own grids may."""
    if _loss_db(first, taken) > _FORM_LOSS_DB:
        planned = taken.built.planned
        message = f"In the form {planned.dialect} the outputs have {taken.sqnr_db:.1f} dB against FP32 instead of {first.sqnr_db:.1f}."
        yield Event(kind="note", stage=f"compile {planned.id}", message=message)


def _loss_db(first: Attempt, other: Attempt) -> float:
    """By how much less accurate the other is, as SQNR against FP32; 0 where either was not compared."""
    if first.sqnr_db is None or other.sqnr_db is None or np.isinf(other.sqnr_db):
        return 0.0
    return first.sqnr_db - other.sqnr_db


def _attempt(bench: Bench, trial: Trial) -> Attempt:
    """A trial's distance from FP32."""
    from edgeopt.graph.parity import compare

    if trial.failure or not trial.outputs:
        return Attempt(built=trial.built, sqnr_db=None, failure=trial.failure)
    row = compare(
        trial.built.graph.reference,
        trial.outputs,
        stage=trial.built.planned.id,
        against=trial.built.graph.whose,
        kind="int8",
        limits=bench.plan.recipe.parity,
        classification=bench.samples.classification,
    )
    level = next(figure.value for figure in row.figures if figure.name == "sqnr_db")
    failure = "" if row.passed else f"outside of {row.tolerance}"
    return Attempt(built=trial.built, sqnr_db=np.inf if level is None else level, failure=failure)


def _try(bench: Bench, built: Built) -> Trial:
    """Run a candidate on the parity inputs; where only the device can, run its portable graph instead."""
    name = built.planned.id
    trial = Trial(built=built, engine=built.engine, key=built.key, failure=built.failure)
    if built.engine is None:
        return trial
    if built.engine.status == "built":
        try:
            trial.outputs = outputs_of(bench, trial, bench.samples.split, f"run {name}")
        except DeviceError as error:
            if bench.plan.measured_here or bench.device is not bench.beside:  # it was to run there, nowhere else
                if built.planned.role == "reference":
                    raise
                trial.engine, trial.failure = None, f"it does not run: {error}"
                return trial
            message = f"The engine does not run on this machine ({error.what})"
            bench.context.note([Event(kind="note", stage=f"run {name}", message=message)])
        else:
            return trial
    witness = build_witness(bench.context, bench.plan, built)
    if witness is None:
        trial.engine = None
        return trial
    trial.engine, trial.key, trial.stand_in = witness.engine, witness.key, witness.label
    trial.outputs = outputs_of(bench, trial, bench.samples.split, f"run {name} as {witness.label}")
    return trial


def hold_against_others(bench: Bench, trial: Trial, trials: Sequence[Trial]) -> None:
    """Compare with PyTorch, and with another runtime on the same graph; outside its tolerance: not shipped."""
    from edgeopt.graph.parity import compare

    if trial.engine is None:
        return
    planned, graph = trial.built.planned, trial.built.graph
    kind: Literal["float", "int8"] = "float" if planned.precision == "fp32" else "int8"
    others = [(graph.reference, graph.whose)]
    if not trial.stand_in and (second := _second_opinion(bench, trial, trials)):
        others.append(second)
    for reference, whose in others:
        row = compare(
            reference,
            trial.outputs,
            stage=planned.id if not trial.stand_in else f"{planned.id} ({trial.stand_in})",
            against=f"{whose}, {bench.samples.origin}",
            kind=kind,
            limits=bench.plan.recipe.parity,
            classification=bench.samples.classification,
        )
        if row not in bench.context.parity:  # of an earlier rung, judged again beside the next
            bench.context.parity.append(row)
        if not row.passed:
            trial.failure = f"its outputs differ from those of {whose} by more than {row.tolerance}"
            event = Event(kind="warning", stage=planned.id, message=f"Not shipped: {trial.failure}.")
            bench.context.note([event] if event not in bench.context.events else [])


def _second_opinion(bench: Bench, trial: Trial, trials: Sequence[Trial]) -> tuple[tuple[np.ndarray, ...], str] | None:
    """What another runtime makes of the same graph: another candidate where there is one, else a witness."""
    planned = trial.built.planned
    for other in trials:
        same = other.built.graph.path == trial.built.graph.path and not other.stand_in and other.outputs
        if same and other.built.planned.rules.name != planned.rules.name:
            return other.outputs, other.built.planned.rules.name
    witness = build_witness(bench.context, bench.plan, trial.built)
    if witness is None:
        message = "No second runtime is installed here; the engine was compared with PyTorch only."
        bench.context.note([Event(kind="fallback", stage=planned.id, message=message)])
        return None
    stand = Trial(built=trial.built, engine=witness.engine, key=witness.key)
    label = f"run {planned.id}'s graph as {witness.label}"
    return outputs_of(bench, stand, bench.samples.split, label), witness.label


def outputs_of(bench: Bench, trial: Trial, split: Split, label: str) -> tuple[np.ndarray, ...]:
    """What its engine gives on a split, in the order of its outputs: on the device, or beside where it is another's.

    Raises:
        DeviceError: There is no engine, or it does not run.
    """
    if trial.engine is None:
        raise DeviceError("There is no engine to run.", got=trial.built.planned.id)
    own = trial.engine is trial.built.engine
    outputs = collect(
        bench.context,
        bench.device if own else bench.beside,
        bench.info if own else bench.beside_info,
        trial.engine,
        key=trial.key,
        split=split,
        label=label,
        batch=batch_of(trial.engine, bench.plan),
    )
    return tuple(outputs[spec.name] for spec in trial.engine.outputs)


def batch_of(engine: Engine, plan: Plan) -> int:
    """What an engine is run at: the recipe's batch, or its own where the model's is fixed."""
    batch = engine.inputs[0].batch
    return batch if isinstance(batch, int) else plan.recipe.export.batch
