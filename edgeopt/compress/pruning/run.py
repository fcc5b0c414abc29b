"""The prune step: trace, score, choose, cut; in rounds, with training between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch.export import ExportedProgram

from edgeopt.bundle.document import PinnedLayer, PrunedRow, PrunedSection
from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.finetune import finetune_program
from edgeopt.compress.prune import between_rounds
from edgeopt.compress.pruning.channels import ChannelMap, trace_channels
from edgeopt.compress.pruning.choose import choose, least
from edgeopt.compress.pruning.cut import cut
from edgeopt.compress.pruning.importance import score_units
from edgeopt.core.events import Event, Progress
from edgeopt.core.fingerprint import hash_json
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.pruning import Prune
from edgeopt.targets.schema import Target

__all__ = ["channel_multiple", "prune_program", "scores_of"]

_BATCH = 32  # samples per gradient of the Taylor importance


def prune_program(model: TrainedModel, config: Prune, context: StepContext) -> StepResult:
    """Prune a program; ``PruneStep.run`` has checked that there is one.

    Raises:
        RecipeError: As ``choose``.
        DataError: The data does not fit the model.
    """
    if model.program is None:
        raise TypeError("PruneStep.run passes a program")
    start = trace_channels(model.program)
    made, training, events = model, between_rounds(config), list(_said(start))
    sections: list[Any] = []
    kept: dict[str, int] = {}
    for number in range(1, config.rounds + 1):
        part = f"round {number} of {config.rounds}: " if config.rounds > 1 else ""
        made, kept = _round(made, config, context, start=start, share=number / config.rounds, part=part)
        if training is not None and number < config.rounds:
            where = context.workspace / f"round-{number}" if context.workspace is not None else None
            between = finetune_program(made, training, dataclasses.replace(context, workspace=where))
            made = between.model
            events += between.events
            sections += between.training
    if made.program is None:
        raise TypeError("a cut program is one")
    parameters = sum(parameter.numel() for parameter in made.program.parameters())
    identity = hash_json(
        {"model": model.identity, "step": {"prune": config.model_dump(mode="json")}, "weights": made.identity}
    )
    pruned = _told(start, trace_channels(made.program), kept)
    return StepResult(
        model=dataclasses.replace(made, parameters=parameters, identity=identity),
        events=tuple(events),
        stats={"macs_before": pruned.macs, "macs_after": pruned.macs_kept, "parameters": parameters},
        training=tuple(sections),
        pruned=pruned,
    )


def scores_of(model: TrainedModel, channels: ChannelMap, config: Prune, context: StepContext) -> dict[str, Any]:
    """Score every unit as the recipe says, on the train split where ``taylor`` has one."""
    feed, classification = None, context.data is not None and context.data.task == "classification"
    if config.importance == "taylor":
        if context.data is None or model.program is None:
            raise TypeError("PruneStep.check asks for data")
        splits = context.data.splits
        split = splits["train"] if len(splits.get("train", ())) else splits["calibration"]
        feed = Feed.of(model, model.program, split, config.samples, _BATCH)
    return score_units(channels, config.importance, seed=context.seed, feed=feed, classification=classification)


def channel_multiple(config: Prune, target: Target) -> int:
    """What widths are kept multiples of."""
    return target.channel_multiple if config.round_to == "auto" else config.round_to


def _round(
    model: TrainedModel, config: Prune, context: StepContext, *, start: ChannelMap, share: float, part: str
) -> tuple[TrainedModel, dict[str, int]]:
    """The model after one round, and how many units of each group stay."""
    program: ExportedProgram | None = model.program
    if program is None:
        raise TypeError("a cut program is one")
    context.progress(Progress(stage=f"{part}find what hangs together", done=0, total=None))
    channels = trace_channels(program)
    context.progress(Progress(stage=f"{part}score {config.importance}", done=0, total=None))
    scores = scores_of(model, channels, config, context)
    multiple = channel_multiple(config, context.target)
    kept = choose(channels, config, scores, multiple=multiple, start=start, share=share)
    context.progress(Progress(stage=f"{part}cut", done=0, total=None))
    return dataclasses.replace(model, program=cut(program, channels, least(scores, kept), model.inputs)), kept


def _told(start: ChannelMap, end: ChannelMap, kept: Mapping[str, int]) -> PrunedSection:
    """What became of each group; a group whose layers all went with a branch has nothing left."""
    left = {name.rpartition(".")[0] or name for name, _ in end.tracer.made}
    rows = []
    for group in start.groups:
        count = kept.get(group.name, group.units) if left.intersection(group.layers) else 0
        rows.append(
            PrunedRow(
                name=group.name,
                layers=group.layers,
                units=group.units,
                kept=count,
                width=group.width,
                width_kept=group.width // group.units * count,
            )
        )
    pinned = tuple(PinnedLayer(name=one.name, reason=one.reason) for one in start.pinned)
    return PrunedSection(step="prune", macs=start.macs({}), macs_kept=end.macs({}), groups=tuple(rows), pinned=pinned)


def _said(channels: ChannelMap) -> list[Event]:
    """What there is no rule for; what else stays, ``pruned`` says."""
    events = []
    if channels.tracer.unknown:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(channels.tracer.unknown.items()))
        message = f"Channels that run into these operators stay, as there is no rule for them: {names}."
        events.append(Event(kind="fallback", stage="prune", message=message))
    return events
