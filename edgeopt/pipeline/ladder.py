"""Climb a ladder of recipes: try the next, keep the best, stop at the first that meets the limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from edgeopt.bundle.document import Candidate, LadderSection, RungRow
from edgeopt.bundle.load import Bundle
from edgeopt.core.errors import DataError, EdgeOptError, GraphError
from edgeopt.core.events import Event, Progress
from edgeopt.core.measurement import Measurement
from edgeopt.gate.rungs import judge_rung
from edgeopt.gate.selection import select
from edgeopt.pipeline.candidates import Judged, judge_candidates
from edgeopt.pipeline.engines import Built, build_engine
from edgeopt.pipeline.mixed import resolve_mixed
from edgeopt.pipeline.plan import Plan, PlannedRung
from edgeopt.pipeline.prune_search import resolve_pruning
from edgeopt.pipeline.run import Run, make_graphs
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.pipeline.ship import ship
from edgeopt.recipes.schema import Recipe, step_name

__all__ = ["climb"]

_FIGURES = ("accuracy_top1_pct", "drop_pp", "agreement_pct", "latency_p50_ms", "latency_ratio", "size_mib")
# Other steps leave each layer as large as it was, and in the type that a plain rung gives it.
_CHANGE_SPEED = {"convert", "mixed", "prune", "sparsify"}
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}  # every other precision has 8 or fewer

Ended = Literal["met", "top", "time", "interrupted", "open"]


@dataclass(kw_only=True)
class _Climb:
    """How far a ladder is climbed.

    Attributes:
        built: Every engine so far, the references first.
        judged: All of them, measured together at the last rung that could be judged.
        recipes: Which recipe made which candidate.
        met: Candidates of the rungs that meet the limits, the last rung's first.
        bound: Precisions that are accurate enough and miss only speed, and the rung that showed it.
        shipped: The candidate whose bundle is on the disk.
        time_up: Whether it was the time limit that interrupted a rung.
    """

    run: Run
    samples: ParityInputs
    built: list[Built] = field(default_factory=list)
    judged: Judged | None = None
    rows: list[RungRow] = field(default_factory=list)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    met: list[str] = field(default_factory=list)
    bound: dict[str, str] = field(default_factory=dict)
    errors: list[EdgeOptError] = field(default_factory=list)
    ended: Ended = "open"
    shipped: str = ""
    time_up: bool = False


def climb(run: Run, samples: ParityInputs) -> Bundle:
    """Try each rung of the plan until one meets the limits; the best so far is always on the disk.

    Ctrl-C, and the time limit once there is something to ship, end the climb with what there is.

    Raises:
        EdgeOptError: FP32 itself fails, or every rung does.
        KeyboardInterrupt: Before there was anything to ship.
    """
    state = _Climb(run=run, samples=samples)
    with _watched(state):
        _references(state)
        for rung in run.plan.rungs:
            _step_on(state, rung)
    if state.judged is None:
        raise state.errors[0] if state.errors else GraphError("No rung of the ladder could be tried.")
    if state.ended == "open":
        state.ended = "top"
    return _ship(state, state.judged)


def _references(state: _Climb) -> None:
    """Build FP32 for every runtime once: where that fails, every rung would."""
    run = state.run
    first = next(rung.plan for rung in run.plan.rungs if rung.plan is not None)
    plain = replace(first, recipe=_float_recipe(run.plan))
    graphs = make_graphs(run, plain, state.samples, run.stages(plain, state.samples))
    for planned in run.plan.candidates:
        if planned.role == "reference":
            state.built.append(build_engine(run.context, first, planned, graphs["fp32"]))
            state.recipes[planned.id] = _float_recipe(run.plan)


def _step_on(state: _Climb, rung: PlannedRung) -> None:
    """Try one rung, or write down why not."""
    plan = rung.plan
    if plan is None:
        state.rows.append(RungRow(name=rung.name, status="skipped", message=_sentence(rung.skip)))
    elif state.ended == "met":
        state.rows.append(RungRow(name=rung.name, status="not_needed", message="An earlier rung met the limits."))
    elif why := _why_not(state, plan):
        state.rows.append(RungRow(name=rung.name, status="skipped", message=_sentence(why)))
    else:
        begun = time.monotonic()
        try:
            _try(state, rung.name, plan, begun)
        except KeyboardInterrupt:
            if state.judged is None:
                raise
            state.ended = "time" if state.time_up else "interrupted"
            why = "The time was up." if state.time_up else "By Ctrl-C."
            # The rung may be done already: then it was the writing of its bundle that was interrupted.
            if all(row.name != rung.name for row in state.rows):
                state.rows.append(_row(state, rung.name, "interrupted", why, begun=begun))
        except EdgeOptError as error:
            if isinstance(error, DataError) and state.judged is None:
                raise  # the same data would fail every rung
            state.errors.append(error)
            # Not told as it happens: where every rung fails, the first error is the run's, and is said once.
            event = Event(kind="warning", stage=rung.name, message=f"The rung failed: {error}")
            state.run.context.events.append(event)
            state.rows.append(_row(state, rung.name, "failed", str(error), begun=begun))


def _why_not(state: _Climb, plan: Plan) -> str:
    """Why a rung is not tried after those before it."""
    if state.ended == "interrupted":
        return "the run was interrupted before"
    if state.ended == "time" or (state.judged is not None and _left_s(state) <= 0):
        state.ended = "time"
        return f"the time was up ({state.run.options.max_minutes:g} minutes)"
    earlier = state.bound.get(plan.precision)
    if earlier and not any(step_name(step) in _CHANGE_SPEED for step in plan.recipe.steps):
        return f"it computes the layers of {earlier} in the same type, and that is accurate enough but misses speed"
    return ""


def _try(state: _Climb, name: str, plan: Plan, begun: float) -> None:
    """Make the rung's engines, measure them beside all the earlier ones, and say how it went."""
    run, limits, objective = state.run, plan.recipe.limits, plan.recipe.objective
    plan = resolve_pruning(run, plan, state.samples)
    stages = run.stages(plan, state.samples)
    plan = resolve_mixed(run.at(stages[-1]), plan, state.samples)
    graphs = make_graphs(run, plan, state.samples, stages)
    built = [
        build_engine(run.context, plan, planned, graphs[planned.graph])
        for planned in plan.candidates
        if planned.role == "candidate"
    ]
    # All in one run, interleaved: what is compared was measured at the same time.
    everything = [*state.built, *built]
    judged = judge_candidates(run.context, plan, run.device, everything, samples=state.samples, data=run.data)
    state.built, state.judged = list(judged.built), _in_order(judged, run.plan)
    ids = [one.planned.id for one in built]
    state.recipes |= dict.fromkeys(ids, plan.recipe)
    outcome = judge_rung([c for c in judged.candidates if c.id in ids], limits, objective)
    state.rows.append(_row(state, name, outcome.status, outcome.message, begun=begun, candidate=outcome.candidate))
    if outcome.status == "met":
        state.met[:0] = ids
        if objective == "accuracy" or not _smaller_follows(state, plan):
            state.ended = "met"
            return
    if outcome.only_speed_misses:
        state.bound.setdefault(plan.precision, name)
    if outcome.status != "failed":
        best = select(_ranked(state, judged), limits, objective)[0]
        if best != state.shipped:
            _ship(state, judged)
            state.shipped = best


def _smaller_follows(state: _Climb, plan: Plan) -> bool:
    """Whether a rung still to come computes in a smaller type than this one."""
    done = {row.name for row in state.rows}
    bits = _BITS.get(plan.precision, 8)
    later = (rung.plan for rung in state.run.plan.rungs if rung.plan is not None and rung.name not in done)
    return any(_BITS.get(other.precision, 8) < bits for other in later)


def _ship(state: _Climb, judged: Judged) -> Bundle:
    run = state.run
    section = LadderSection(
        ended=state.ended,
        summary=_summary(state),
        max_minutes=run.options.max_minutes,
        rungs=tuple(state.rows),
    )
    return ship(
        run.context,
        run.options,
        run.plan,
        model=run.loaded.model,
        data=run.data,
        judged=judged,
        samples=state.samples,
        ladder=section,
        recipes=state.recipes,
        preferred=[candidate.id for candidate in _ranked(state, judged)],
    )


def _ranked(state: _Climb, judged: Judged) -> list[Candidate]:
    """In the order that decides where nothing was measured: what met the limits, then the later rungs' first."""
    newest = [one.planned.id for one in reversed(state.built)]
    order = [*state.met, *(name for name in newest if name not in state.met)]
    return sorted(judged.candidates, key=lambda c: order.index(c.id))


def _in_order(judged: Judged, plan: Plan) -> Judged:
    """The candidates as the plan lists them: each runtime's reference before the others."""
    order = [planned.id for planned in plan.candidates]
    return replace(judged, candidates=tuple(sorted(judged.candidates, key=lambda c: order.index(c.id))))


def _row(
    state: _Climb,
    name: str,
    status: Literal["met", "missed", "failed", "interrupted"],
    message: str,
    *,
    begun: float,
    candidate: Candidate | None = None,
) -> RungRow:
    now, host = time.monotonic(), state.run.context.host
    figures = [candidate.figure(figure) for figure in _FIGURES] if candidate is not None else []
    return RungRow(
        name=name,
        status=status,
        message=message,
        candidate=candidate.id if candidate is not None else None,
        figures=tuple(figure for figure in figures if figure is not None),
        wall=Measurement(name="wall_s", value=now - begun, unit="s", n=1, device=host),
        elapsed=Measurement(name="elapsed_s", value=now - state.run.started, unit="s", n=1, device=host),
    )


def _summary(state: _Climb) -> str:
    last = next((row for row in reversed(state.rows) if row.status not in ("skipped", "not_needed")), None)
    where = last.name if last is not None else "its first rung"
    if state.ended == "met":
        note = f" {last.message}" if last is not None and last.message else ""
        return f"The ladder stopped at {where}, which meets the limits.{note}"
    if state.ended == "interrupted":
        return f"Interrupted at {where}: this is the best so far."
    if state.ended == "time":
        return (
            f"The time limit of {state.run.options.max_minutes:g} minutes ended the ladder at {where}: the best so far."
        )
    if state.ended == "open":
        return f"Written after {where}, while the next rung is being tried: the best so far."
    met = [row.name for row in state.rows if row.status == "met"]
    return f"The ladder was climbed to its top; {', '.join(met) or 'no rung'} meets the limits."


def _float_recipe(plan: Plan) -> Recipe:
    """What makes the FP32 reference, should that be shipped."""
    return plan.recipe.model_copy(update={"name": "fp32", "ladder": (), "steps": ()})


def _left_s(state: _Climb) -> float:
    minutes = state.run.options.max_minutes
    return float("inf") if minutes is None else state.run.started + 60 * minutes - time.monotonic()


@contextmanager
def _watched(state: _Climb) -> Iterator[None]:
    """Interrupt a rung whose time is up, at its next sign of progress, as Ctrl-C would: nothing is left half made."""
    context, listener = state.run.context, state.run.context.listener

    def listen(progress: Progress) -> None:
        listener(progress)
        if state.judged is not None and _left_s(state) <= 0:
            state.time_up = True
            raise KeyboardInterrupt

    context.listener = listen
    try:
        yield
    finally:
        context.listener = listener


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
