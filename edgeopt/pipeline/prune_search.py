"""The search for channel counts: measured staircases, measured damage, one integer program, the outcome timed as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeopt.bundle.pruning import CurveRow, PruningSection, StairPoint
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event, Progress
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline.graphs import float_graph
from edgeopt.pipeline.plan import Plan, PlannedCandidate
from edgeopt.pipeline.prune_variants import WHOLE, Kept, Variants
from edgeopt.pipeline.run import Run
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.recipes.schema import Prune

if TYPE_CHECKING:
    from edgeopt.compress.pruning.choose import Room

__all__ = ["resolve_pruning"]

_STAIRS = 3  # per group that are timed, beside the removal of a whole branch
_JUDGED = 256  # samples of the tuning split
_MORE = 4  # times the inferences, where the interval of a plan holds what is wanted
_TIGHTER = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78)  # of the wanted ratio: a product of ratios is only a model


def resolve_pruning(run: Run, plan: Plan, samples: ParityInputs) -> Plan:
    """The plan with ``latency_ratio`` of its prune step replaced by the ``widths`` that reach it with the least damage.

    The search goes into ``run.context.pruning``. A plan that asks for no latency is returned as it is.

    Raises:
        RecipeError: Nothing can be timed here; or no widths are faster, or fast enough, with the curves that show it.
    """
    config = plan.recipe.step(Prune)
    if config is None or config.latency_ratio is None:
        return plan
    _demand(run, plan, config)
    search = _Search.open(run, plan, samples, config)
    widths = search.result()
    run.context.pruning.append(search.section)
    run.context.note([Event(kind="note", stage="prune", message=search.section.summary)])
    done = config.model_copy(update={"latency_ratio": None, "widths": widths})
    steps = tuple(done if step is config else step for step in plan.recipe.steps)
    return replace(plan, recipe=plan.recipe.model_copy(update={"steps": steps}))


def _demand(run: Run, plan: Plan, config: Prune) -> None:
    wanted = f"steps.prune.latency_ratio: {config.latency_ratio:g}"
    if not plan.measured_here:
        raise RecipeError(
            "A latency ratio needs latencies, and they are not measured on the target.",
            got=f"{wanted}; {plan.measured_reason}",
            fix="Give macs_ratio instead (and latency_ratio=null), or run edgeopt on the device.",
        )
    if run.data is None:
        raise RecipeError(
            "A search for channel counts needs data to weigh them by.",
            got=wanted,
            fix="Give --data, or use macs_ratio.",
        )
    if run.loaded.model.onnx_path is not None:
        raise RecipeError(
            "Pruning needs the PyTorch program.",
            got=f"{run.loaded.model.name!r}, given as ONNX",
            fix="Give the model as a torch.export archive, or leave the prune step out.",
        )
    if plan.recipe.float_steps[0] is not config:
        raise RecipeError(
            "A latency ratio is searched for on the model as it came, so prune must be the first step.",
            got=wanted,
            fix="Put prune first, or give macs_ratio.",
        )


@dataclass(kw_only=True)
class _Search:
    """What is known.

    Attributes:
        damage: By (group, units that stay): divergence.
        ratios: By stair, what was timed on ``runtime``.
        outcomes: Likewise by plan, each timed on its own: the fastest of many noisy stairs would flatter itself. None:
            it did not run.
        longer: The plans that were timed again, for longer.
    """

    variants: Variants
    rooms: tuple[Room, ...]
    stairs: dict[str, tuple[int, ...]]
    runtime: PlannedCandidate
    damage: dict[tuple[str, int], Measurement]
    ratios: dict[Kept, Measurement]
    outcomes: dict[Kept, Measurement | None] = field(default_factory=dict)
    longer: set[Kept] = field(default_factory=set)
    section: PruningSection = field(init=False)

    @classmethod
    def open(cls, run: Run, plan: Plan, samples: ParityInputs, config: Prune) -> _Search:
        """Trace, score, weigh each stair, time each stair."""
        from edgeopt.compress.base import StepContext
        from edgeopt.compress.quantize import quiet_loggers

        with quiet_loggers():
            from edgeopt.compress.pruning.channels import trace_channels
            from edgeopt.compress.pruning.choose import rooms
            from edgeopt.compress.pruning.run import channel_multiple, scores_of

        model = run.loaded.opened()
        if model.program is None:
            raise TypeError("_demand refuses what has none")
        channels = trace_channels(model.program)
        step = StepContext(data=run.data, target=plan.target, seed=run.context.seed, progress=run.context.progress)
        scores = scores_of(model, channels, config, step)
        multiple = channel_multiple(config, plan.target)
        free = rooms(channels, config, multiple=multiple, branches=config.branches)
        stairs = {room.group.name: _some(room, branches=config.branches) for room in free}
        variants = Variants(
            run=run,
            plan=plan,
            samples=samples,
            config=config,
            model=model,
            channels=channels,
            scores=scores,
            graph=float_graph(replace(run.context, events=[], parity=[]), run.loaded, plan, samples),
        )
        damage = _weigh(variants, stairs)
        runtime = _fastest(variants)
        singles: list[Kept] = [((name, count),) for name, counts in stairs.items() for count in counts]
        return cls(
            variants=variants,
            rooms=free,
            stairs=stairs,
            runtime=runtime,
            damage=damage,
            ratios=variants.ratios(runtime, singles),
        )

    def result(self) -> dict[str, int]:
        """Units that stay, of every group that loses some; the whole interval of their ratio is within what is wanted.

        Raises:
            RecipeError: Nothing that was tried is fast enough, or it did not run.
        """
        wanted = float(self.variants.config.latency_ratio or 1.0)
        best: tuple[Kept, Measurement] | None = None
        for tighter in _TIGHTER:
            kept = self._solve(math.log(wanted * tighter))
            if kept is None:
                kept = self._solve(None)
            if not kept:
                break
            if kept not in self.outcomes:
                self.outcomes[kept] = self._timed(kept, wanted)
            measured = self.outcomes[kept]
            if measured is None:
                continue
            if best is None or _upper(measured) < _upper(best[1]):
                best = (kept, measured)
            if _upper(measured) <= wanted:
                self.section = self._section(kept, measured)
                return dict(kept)
        raise self._refusal(wanted, best)

    def _timed(self, kept: Kept, wanted: float) -> Measurement | None:
        """As one model; for longer, where so few inferences do not tell whether it is within ``wanted``."""
        found = self.variants.ratios(self.runtime, [kept]).get(kept)
        if found is None or found.value is None:
            return None
        if found.interval is not None and found.interval.low <= wanted < found.interval.high:
            longer = self.variants.ratios(self.runtime, [kept], times=_MORE).get(kept)
            if longer is not None and longer.value is not None:
                self.longer.add(kept)
                return longer
        return found

    def _solve(self, budget: float | None) -> Kept | None:
        """The least damage whose product of ratios is within ``budget`` (its logarithm); None: the fastest there is."""
        from edgeopt.compress.budget import Choice, choose

        names = list(self.stairs)
        options = {name: (None, *self.stairs[name]) for name in names}
        choices = [
            [Choice(cost=self._cost(name, count), load=self._gain(name, count)) for count in options[name]]
            for name in names
        ]
        if budget is None:
            choices = [[Choice(cost=one.load, load=0.0, tie=0.0) for one in group] for group in choices]
        found = choose(choices, math.inf if budget is None else budget)
        if found is None:
            return None
        picked = ((name, options[name][place]) for name, place in zip(names, found, strict=True))
        return self._without_swept(tuple((name, count) for name, count in picked if count is not None))

    def _without_swept(self, kept: Kept) -> Kept:
        """Without the groups inside of a branch that another one takes out: they would be counted twice."""
        from edgeopt.compress.pruning.choose import least

        def swept(names: list[str]) -> frozenset[str]:
            return self.variants.channels.swept(least(self.variants.scores, dict.fromkeys(names, 0)))

        sweeping = [name for name, count in kept if count == 0]
        for name in list(sweeping):
            others = [other for other in sweeping if other != name]
            if name in swept(others):
                sweeping = others
        gone = swept(sweeping)
        return tuple((name, count) for name, count in kept if name in sweeping or name not in gone)

    def _cost(self, name: str, count: int | None) -> float:
        return 0.0 if count is None else float(self.damage[name, count].value or 0.0)

    def _gain(self, name: str, count: int | None) -> float:
        """Logarithm of the ratio, where a difference can be told; what is not faster gains nothing."""
        ratio = None if count is None else self.ratios.get(((name, count),))
        if ratio is None or not ratio.value or (ratio.interval is not None and ratio.interval.high >= 1.0):
            return 0.0
        return min(0.0, math.log(ratio.value))

    def _section(self, kept: Kept, measured: Measurement) -> PruningSection:
        predicted = math.exp(sum(self._gain(name, count) for name, count in kept))
        config = self.variants.config
        longer = " (timed for longer, as fewer inferences did not tell)" if kept in self.longer else ""
        less = ", ".join(f"{name}: {self._units(name)} to {count}" for name, count in kept)
        return PruningSection(
            runtime=self.runtime.rules.name,
            precision=self.variants.precision,
            wanted=float(config.latency_ratio or 1.0),
            curves=self._curves(dict(kept)),
            predicted=predicted,
            measured=measured,
            summary=f"Widths for {config.latency_ratio:g} of the latency on {self.runtime.rules.name} "
            f"({self.variants.precision}), measured {_words(measured)}{longer}, predicted {predicted:.3f}: {less}.",
        )

    def _curves(self, kept: Mapping[str, int]) -> tuple[CurveRow, ...]:
        missing = not_measured("latency_ratio", "1", "it could not be run")
        return tuple(
            CurveRow(
                name=room.group.name,
                layers=room.group.layers,
                units=room.group.units,
                width=room.group.width,
                points=tuple(
                    StairPoint(
                        kept=count,
                        latency=self.ratios.get(((room.group.name, count),), missing),
                        divergence=self.damage[room.group.name, count],
                    )
                    for count in self.stairs[room.group.name]
                ),
                chosen=kept.get(room.group.name, room.group.units),
            )
            for room in self.rooms
        )

    def _units(self, name: str) -> int:
        return next(room.group.units for room in self.rooms if room.group.name == name)

    def _refusal(self, wanted: float, best: tuple[Kept, Measurement] | None) -> RecipeError:
        lines = [
            f"{row.name} ({row.units}): " + ", ".join(f"{point.kept} → {_words(point.latency)}" for point in row.points)
            for row in self._curves({})
        ]
        where = f"{self.runtime.rules.name}, {self.variants.precision}"
        curve = f"Units that stay → latency over the whole model's, {where}: " + "; ".join(lines)
        if best is None and self.outcomes:
            plans = "; ".join(", ".join(f"{name} at {count}" for name, count in kept) for kept in self.outcomes)
            return RecipeError(
                f"The pruned model could not be run on {where}, so that nothing is known of its latency.",
                got=f"{plans}. {curve}",
                fix="Use another runtime, or macs_ratio instead of latency_ratio.",
            )
        if best is None or (best[1].interval is not None and best[1].interval.high >= 1.0):
            return RecipeError(
                f"Pruning makes this model no faster on {where}.",
                got=f"{curve}" + (f". Best plan, as a whole: {_words(best[1])}" if best else ""),
                fix="Leave the prune step out, lower steps.prune.floor or round_to, or use another runtime.",
            )
        return RecipeError(
            f"Pruning does not come to {wanted:g} of the latency on {where}.",
            got=f"at best {_words(best[1])} with {', '.join(f'{name} at {count}' for name, count in best[0])}. {curve}",
            fix=f"Ask for no less than latency_ratio={math.ceil(100 * _upper(best[1])) / 100:g}, "
            "or lower steps.prune.floor or round_to.",
        )


def _some(room: Room, *, branches: bool) -> tuple[int, ...]:
    """A few of the counts that a group may have, evenly over them, and none at all where its branch may go."""
    smaller = room.counts[1:]
    count = min(_STAIRS, len(smaller))
    picked = [smaller[round((place + 1) * len(smaller) / count) - 1] for place in range(count)]
    return (*dict.fromkeys(picked), *((0,) if branches and room.group.branches else ()))


def _weigh(variants: Variants, stairs: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Measurement]:
    """Divergence on the tuning split of each stair, its units at zero."""
    from edgeopt.compress.calibrate import Feed
    from edgeopt.compress.pruning.choose import least
    from edgeopt.compress.pruning.mask import masked
    from edgeopt.compress.score import Judge

    data, program = variants.run.data, variants.model.program
    if data is None or program is None:
        raise TypeError("_demand refuses what has none")
    split = data.splits["tune" if len(data.splits.get("tune", ())) else "calibration"]
    feed = Feed.of(variants.model, program, split, _JUDGED, 64)
    judge = Judge(variants.channels.model, feed, classification=data.task == "classification")
    found: dict[tuple[str, int], Measurement] = {}
    total = sum(map(len, stairs.values()))
    for name, counts in stairs.items():
        for count in counts:
            score = judge.score(masked(variants.channels, least(variants.scores, {name: count})))
            found[name, count] = Measurement(
                name="divergence",
                value=score.divergence,
                unit="nats" if score.agreement is not None else "1",
                n=score.n,
                conditions={"split": split.name},
            )
            variants.run.context.listener(Progress(stage="weigh what each group holds", done=len(found), total=total))
    return found


def _fastest(variants: Variants) -> PlannedCandidate:
    """The runtime whose whole model is the fastest: the one that would be shipped."""
    timed: list[tuple[float, PlannedCandidate]] = []
    for planned in variants.runtimes():
        ratio: Any = variants.ratios(planned, [WHOLE]).get(WHOLE)
        if ratio is not None and ratio.conditions.get("p50_ms"):
            timed.append((float(ratio.conditions["p50_ms"]), planned))
    if not timed:
        raise RecipeError(
            "No runtime here runs the model, so that nothing can be timed.",
            got=", ".join(one.rules.name for one in variants.runtimes()) or "none",
            fix="Use macs_ratio instead of latency_ratio.",
        )
    return min(timed, key=lambda one: one[0])[1]


def _upper(ratio: Measurement) -> float:
    """What it is at most, as far as its interval tells."""
    if ratio.interval is not None:
        return ratio.interval.high
    return math.inf if ratio.value is None else ratio.value


def _words(ratio: Measurement) -> str:
    if ratio.value is None:
        return "not measured"
    around = f" [{ratio.interval.low:.3f}, {ratio.interval.high:.3f}]" if ratio.interval else ""
    return f"{ratio.value:.3f}{around}"
