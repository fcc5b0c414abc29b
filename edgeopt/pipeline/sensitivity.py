"""The table of groups: what each costs in accuracy on the tuning split, and in time on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.bundle.document import GroupRow, MixedSection
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement
from edgeopt.data.contract import Split
from edgeopt.pipeline import records
from edgeopt.pipeline.graphs import versions
from edgeopt.pipeline.group_latency import GroupTimes
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.run import Run
from edgeopt.recipes.schema import LayerPrecision, Mixed

if TYPE_CHECKING:
    from edgeopt.compress.groups import Group
    from edgeopt.compress.score import Score
    from edgeopt.compress.sensitivity import Trials

__all__ = ["Table", "TrialsOnUse", "figures_of", "section_of", "sensitivity_table", "storable", "tuning_split"]


@dataclass(kw_only=True)
class TrialsOnUse:
    """The calibrated model, made when something must be scored and never where the cache has everything."""

    run: Run
    plan: Plan
    config: Mixed
    split: Split
    made: Any = None

    def open(self) -> Trials:
        """Calibrate, once."""
        from edgeopt.compress.base import StepContext
        from edgeopt.compress.quantize import quiet_loggers

        with quiet_loggers():
            from edgeopt.compress.sensitivity import Trials

        if self.made is None:
            run = self.run
            context = StepContext(
                data=run.data, target=self.plan.target, seed=run.context.seed, progress=run.context.progress
            )
            self.made = Trials(
                run.loaded.opened(),
                self.config,
                context,
                split=self.split,
                samples=self.config.tune_samples,
                classification=run.data is not None and run.data.task == "classification",
            )
        made: Trials = self.made
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Every group in every precision.

    Attributes:
        alone: Group → precision → score with the rest in float; ``without``: the rest in that precision, the group in
            float; empty where it was not asked for.
        everything: Precision → score with every group in it.
        key: Of its stage.
    """

    groups: tuple[Group, ...]
    alone: dict[str, dict[str, Score]]
    without: dict[str, dict[str, Score]]
    everything: dict[str, Score]
    reference: Score
    key: str


def tuning_split(run: Run) -> Split:
    """The split that choices are made on; the calibration split, with a warning, where there is none."""
    if run.data is None:
        raise TypeError("a recipe that quantizes was checked to have data")
    if len(run.data.splits.get("tune", ())):
        return run.data.splits["tune"]
    message = (
        "The data has no tuning split: sensitivities are measured on the calibration split, which the ranges fit best."
    )
    run.context.note([Event(kind="warning", stage="sensitivity", message=message)])
    return run.data.splits["calibration"]


def sensitivity_table(trials: TrialsOnUse, *, complement: bool = False) -> Table:
    """Score each group alone in each precision, and everything together, as a cached stage."""
    from edgeopt.compress.quantize import quiet_loggers

    with quiet_loggers():
        from edgeopt.compress.groups import Group
        from edgeopt.compress.score import Score

    run, plan, config = trials.run, trials.plan, trials.config
    precisions: list[LayerPrecision] = [p for p in config.candidates if p != "float"]
    rules = plan.target.quantization
    key = {
        "model": run.loaded.model.identity,
        "config": config.model_dump(mode="json", exclude={"budget", "margin", "metric", "max_minutes"}),
        "rules": rules.model_dump(mode="json") if rules else None,
        "calibration": run.data.splits["calibration"].fingerprint if run.data else None,
        "split": trials.split.fingerprint,
        "complement": complement,
        "seed": run.context.seed,
        "versions": versions(),
    }

    def build(folder: Any) -> None:
        made = trials.open()
        alone: dict[str, dict[str, Score]] = {}
        without: dict[str, dict[str, Score]] = {}
        for one in made.measure(precisions, complement=complement):
            alone.setdefault(one.group, {})[one.precision] = storable(one.alone)
            if one.without is not None:
                without.setdefault(one.group, {})[one.precision] = storable(one.without)
        everything = {p: storable(made.score({group.name: p for group in made.groups})) for p in precisions}
        records.write(folder / "groups.json", list[Group], list(made.groups))
        records.write(folder / "alone.json", dict[str, dict[str, Score]], alone)
        records.write(folder / "without.json", dict[str, dict[str, Score]], without)
        records.write(folder / "everything.json", dict[str, Score], {**everything, "float": storable(made.score({}))})

    folder = run.context.stage("sensitivity", "measure sensitivities", key, build)
    everything = records.read(folder / "everything.json", dict[str, Score])
    return Table(
        groups=tuple(records.read(folder / "groups.json", list[Group])),
        alone=records.read(folder / "alone.json", dict[str, dict[str, Score]]),
        without=records.read(folder / "without.json", dict[str, dict[str, Score]]),
        reference=everything.pop("float"),
        everything=everything,
        key=folder.name,
    )


def section_of(
    trials: TrialsOnUse, table: Table, times: Sequence[GroupTimes], timed: str, *, chosen: dict[str, str] | None = None
) -> MixedSection:
    """The table as the report has it; without a front."""
    device, name = trials.run.context.host, trials.split.name
    macs = sum(group.macs for group in table.groups) or 1
    figures: Callable[..., tuple[Measurement, ...]] = lambda score, **conditions: figures_of(  # noqa: E731
        score, table.reference, device, split=name, **conditions
    )
    rows = tuple(
        GroupRow(
            name=group.name,
            layers=group.layers,
            ops=group.ops,
            macs_share=group.macs / macs,
            weight_kib=group.weights * 4 / 1024,
            figures=(
                *(m for p, s in table.alone[group.name].items() for m in figures(s, precision=p, rest="float")),
                *(
                    m
                    for p, s in table.without.get(group.name, {}).items()
                    for m in figures(s, precision=p, rest="int8")
                ),
            ),
            latency=tuple(one.deltas[group.name] for one in times),
            chosen=chosen.get(group.name) if chosen is not None else None,
        )
        for group in table.groups
    )
    return MixedSection(
        budget={},
        metric=trials.config.metric,
        split=f"{table.reference.n} samples of the {name} split",
        timed=timed,
        groups=rows,
        everything=tuple(m for p, s in table.everything.items() for m in figures(s, precision=p, rest=p)),
    )


def storable(score: Score) -> Score:
    """The score with what JSON cannot hold cut off: an exact match is 999 dB."""
    return replace(score, sqnr_db=min(score.sqnr_db, 999.0), divergence=min(score.divergence, 1e300))


def figures_of(score: Score, reference: Score, device: str, **conditions: str | float) -> tuple[Measurement, ...]:
    """A score as measurements; ``reference`` is the float model's, which the drop is taken from."""
    kl = reference.agreement is not None
    values = [
        ("divergence", score.divergence, "nats" if kl else "1"),
        ("sqnr_db", score.sqnr_db, "dB"),
        ("agreement_pct", None if score.agreement is None else 100 * score.agreement, "%"),
        ("loss", score.loss, "nats"),
        (
            "drop_pp",
            None
            if score.accuracy is None or reference.accuracy is None
            else 100 * (reference.accuracy - score.accuracy),
            "pp",
        ),
    ]
    return tuple(
        Measurement(name=name, value=value, unit=unit, n=score.n, device=device, conditions=conditions)
        for name, value, unit in values
        if value is not None
    )
