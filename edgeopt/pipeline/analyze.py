"""A model's costs, layer by layer, and what could be removed from it: what ``edgeopt analyze`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeopt.bundle.analysis import (
    Analysis,
    LayerCost,
    LiveTensor,
    MemorySection,
    PinnedLayer,
    PrunableGroup,
    PruningSection,
    Totals,
)
from edgeopt.bundle.document import ModelSection
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.events import Event, Progress, ProgressListener, ignore_progress
from edgeopt.data.contract import Dataset, Split
from edgeopt.data.load import check_data
from edgeopt.devices.local import LocalDevice
from edgeopt.model.store import load_program
from edgeopt.model.trained import TrainedModel
from edgeopt.pipeline import records
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.graphs import versions
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.reading import read_data, read_model
from edgeopt.pipeline.sensitivity import figures_of, storable
from edgeopt.recipes.pruning import Importance
from edgeopt.version import __version__

if TYPE_CHECKING:
    from edgeopt.compress.profile import Profile
    from edgeopt.compress.removal import Removal, RemovalTrials
    from edgeopt.compress.score import Score

__all__ = ["RATIOS", "analyze_model"]

RATIOS = (0.25, 0.5, 0.75)
_ONNX = (
    "An ONNX file has no PyTorch program: its layers are listed, but not what is live while they run, nor what can be "
    "removed. Give the model as .pt2, TorchScript or a state dict with its factory for these."
)


def analyze_model(
    options: CompileOptions,
    *,
    sizes: Mapping[str, int] | None = None,
    importance: Importance = "l2",
    ratios: Sequence[float] = RATIOS,
    samples: int = 512,
    progress: ProgressListener = ignore_progress,
) -> Analysis:
    """Look at a model, without training, exporting or changing it.

    Args:
        options: As for ``compile``; target and recipe are not read. Without data nothing is said of accuracy.
        sizes: Of open dimensions, by name; the batch is 1, and another one is as it was exported.
        importance: What says which units of a group go first.
        ratios: Shares of each group's units, in (0, 1).
        samples: How many of the tuning split sensitivities are the mean over.
        progress: Told how far it is.

    Raises:
        EdgeOptError: The model or the data cannot be read, do not fit each other, or an argument is out of range.
    """
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise EdgeOptError("A ratio is a share of a group's units.", got=list(ratios), fix="Give numbers in (0, 1).")
    if options.data is not None:
        check_data(options.data)
    with closing(StageCache(enabled=options.use_cache)) as cache:
        context = RunContext(cache=cache, host=LocalDevice().info().name, seed=options.seed, listener=progress)
        loaded = read_model(context, options)
        if loaded.model.onnx_path is not None:
            if sizes:
                raise EdgeOptError(
                    "Sizes are chosen for PyTorch programs only.", got=dict(sizes), fix="Leave them out."
                )
            context.note([Event(kind="warning", stage="analyze", message=_ONNX)])
            return _of_onnx(loaded.model, context)
        from edgeopt.compress.quantize import quiet_loggers

        with quiet_loggers():
            from edgeopt.compress.profile import profile
            from edgeopt.compress.removal import RemovalTrials

        program = load_program(loaded.directory)
        found = profile(program, loaded.model.inputs, sizes)
        _note_sizes(context, loaded.model, found, sizes or {})
        data = read_data(context, options, loaded) if options.data is not None else None
        try:
            trials = RemovalTrials(loaded.model, program)
        except Exception as error:  # noqa: BLE001  whatever a graph makes the walk raise: the layers are known without it
            pruning = _untraced(context, error, importance=importance, ratios=tuple(ratios))
        else:
            pruning = _pruning(
                context, loaded.model, trials, data, importance=importance, ratios=tuple(ratios), samples=samples
            )
        layers = tuple(
            LayerCost(
                name=one.name,
                op=one.op,
                output_shape=one.output_shape,
                macs=one.macs,
                parameters=one.parameters,
                weight_bytes=one.weight_bytes,
                output_bytes=one.output_bytes,
                live_bytes=one.live_bytes,
            )
            for one in found.layers
        )
        memory = MemorySection(
            peak_bytes=found.memory.peak,
            peak_layer=found.peak_layer,
            live=tuple(
                LiveTensor(name=found.names.get(buffer.node, buffer.node), size_bytes=buffer.size)
                for buffer in found.memory.buffers
            ),
            with_weights_bytes=found.memory.peak + found.weight_bytes,
        )
        return _document(
            loaded.model, context, layers, batch=found.batch, sizes=dict(found.sizes), memory=memory, pruning=pruning
        )


def _of_onnx(model: TrainedModel, context: RunContext) -> Analysis:
    from edgeopt.graph.costs import node_costs

    if model.onnx_path is None:
        raise TypeError("only for an ONNX file")
    fixed = model.inputs[0].batch if model.inputs else 1
    batch = fixed if isinstance(fixed, int) else 1
    layers = tuple(
        LayerCost(
            name=one.name,
            op=one.op,
            output_shape=one.output_shape,
            macs=None if one.macs is None else round(one.macs / batch),
            parameters=one.parameters,
            weight_bytes=one.weight_bytes,
            output_bytes=one.output_bytes,
            live_bytes=None,
        )
        for one in node_costs(model.onnx_path)
    )
    return _document(model, context, layers, batch=batch, sizes={}, memory=None, pruning=None)


def _document(model: TrainedModel, context: RunContext, layers: tuple[LayerCost, ...], **sections: Any) -> Analysis:
    return Analysis(
        edgeopt_version=__version__,
        model=ModelSection(
            name=model.name,
            format=model.format,
            sha256=model.sha256,
            parameters=model.parameters,
            inputs=model.inputs,
            outputs=model.outputs,
        ),
        layers=layers,
        totals=Totals(
            macs=sum(layer.macs or 0 for layer in layers),
            parameters=sum(layer.parameters for layer in layers),
            weight_bytes=sum(layer.weight_bytes for layer in layers),
            output_bytes=sum(layer.output_bytes for layer in layers),
        ),
        events=tuple(context.events),
        **sections,
    )


def _note_sizes(context: RunContext, model: TrainedModel, found: Profile, given: Mapping[str, int]) -> None:
    batch = next((spec.batch for spec in model.inputs if spec.batch is not None), None)
    assumed = [f"{name} = {size}" for name, size in found.sizes.items() if name not in given and name != batch]
    if assumed:
        message = f"Open dimensions have the size of the export: {', '.join(assumed)}. --size NAME=N gives another."
        context.note([Event(kind="note", stage="analyze", message=message)])
    if found.batch > 1:
        message = f"Shapes and bytes are of a batch of {found.batch}; MACs are per sample."
        context.note([Event(kind="note", stage="analyze", message=message)])


def _pruning(
    context: RunContext,
    model: TrainedModel,
    trials: RemovalTrials,
    data: Dataset | None,
    *,
    importance: Importance,
    ratios: tuple[float, ...],
    samples: int,
) -> PruningSection:
    reason = None if data is not None else "no data was given (--data)"
    if not trials.groups:
        reason = "the model has no group of which anything could be removed"
    reference: Score | None = None
    rows: list[Removal] = []
    split: Split | None = None
    if data is not None and trials.groups:
        split = _split(context, data)
        reference, rows = _sensitivities(
            context,
            model,
            trials,
            split,
            learn_from=data.splits["calibration"],
            importance=importance,
            ratios=ratios,
            samples=samples,
            classification=data.task == "classification",
        )
    return PruningSection(
        importance=importance,
        ratios=ratios,
        split=f"{reference.n} samples of the {split.name} split" if reference and split else None,
        reason=reason,
        groups=tuple(
            PrunableGroup(
                name=group.name,
                layers=group.layers,
                units=group.units,
                width=group.width,
                exact=group.exact,
                figures=tuple(
                    measured
                    for row in rows
                    if row.group == group.name and reference is not None and split is not None
                    for measured in figures_of(
                        row.score,
                        reference,
                        context.host,
                        ratio=row.ratio,
                        removed=row.removed,
                        split=split.name,
                    )
                ),
            )
            for group in trials.groups
        ),
        pinned=tuple(PinnedLayer(name=pinned.name, reason=pinned.reason) for pinned in trials.pinned),
    )


def _untraced(
    context: RunContext, error: Exception, *, importance: Importance, ratios: tuple[float, ...]
) -> PruningSection:
    """Said, instead of groups."""
    reason = f"channels could not be followed through this graph ({type(error).__name__}: {error})"
    message = f"What could be removed is not known: {reason}. Layers and memory do not depend on it."
    context.note([Event(kind="warning", stage="analyze", message=message)])
    return PruningSection(importance=importance, ratios=ratios, split=None, reason=reason, groups=(), pinned=())


def _split(context: RunContext, data: Dataset) -> Split:
    if len(data.splits.get("tune", ())):
        return data.splits["tune"]
    message = "The data has no tuning split: sensitivities are measured on the calibration split."
    context.note([Event(kind="warning", stage="sensitivity", message=message)])
    return data.splits["calibration"]


def _sensitivities(
    context: RunContext,
    model: TrainedModel,
    trials: RemovalTrials,
    split: Split,
    *,
    learn_from: Split,
    importance: Importance,
    ratios: tuple[float, ...],
    samples: int,
    classification: bool,
) -> tuple[Score, list[Removal]]:
    """Every group at every ratio, and the model as it is: a cached stage, each group of which is one too."""
    from edgeopt.compress.removal import BATCH, Removal, RemovalJudge
    from edgeopt.compress.score import Score

    key = {
        "model": model.identity,
        "importance": importance,
        "ratios": ratios,
        "samples": samples,
        "batch": BATCH,
        "classification": classification,
        "split": split.fingerprint,
        "learn_from": learn_from.fingerprint if importance == "taylor" else None,
        "seed": context.seed,
        "versions": versions(),
    }

    def build(folder: Any) -> None:
        judge = RemovalJudge(
            trials,
            split,
            learn_from=learn_from,
            importance=importance,
            samples=samples,
            classification=classification,
            seed=context.seed,
        )
        rows: list[Removal] = []
        for done, group in enumerate(trials.groups):
            context.progress(Progress(stage="groups", done=done, total=len(trials.groups)))

            def of_group(folder: Any, group: Any = group) -> None:
                found = [replace(one, score=storable(one.score)) for one in judge.removals(group, ratios)]
                records.write(folder / "removals.json", list[Removal], found)

            # a run that was stopped goes on from here
            place = context.cache.stage("removal-of-group", {**key, "group": [group.name, group.units]}, of_group)
            rows += records.read(place.directory / "removals.json", list[Removal])
        records.write(folder / "reference.json", Score, storable(judge.reference))
        records.write(folder / "removals.json", list[Removal], rows)

    names = [[group.name, group.units] for group in trials.groups]
    folder = context.stage("removal", "measure sensitivities", {**key, "groups": names}, build)
    return records.read(folder / "reference.json", Score), records.read(folder / "removals.json", list[Removal])
