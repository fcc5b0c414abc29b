"""The end of the road: choose, judge, report, write the bundle."""

from __future__ import annotations

import dataclasses
import datetime as dt
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeopt.bundle import layout
from edgeopt.bundle.document import (
    Candidate,
    DataSection,
    FlipRow,
    LadderSection,
    ModelSection,
    Report,
    SplitRow,
    TargetSection,
    TrainingSection,
)
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.bundle.manifest import (
    Contract,
    DataRecord,
    EngineRecord,
    InputRecord,
    Manifest,
    ModelRecord,
    OutputRecord,
)
from edgeopt.bundle.outcomes import OUTCOMES, Outcomes, write_outcomes
from edgeopt.bundle.write import write_bundle
from edgeopt.core.errors import GraphError
from edgeopt.data.contract import Dataset, InputContract
from edgeopt.gate.selection import select
from edgeopt.graph.io import graph_files
from edgeopt.model.trained import TrainedModel
from edgeopt.pipeline.candidates import Judged
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.engines import Built
from edgeopt.pipeline.float_stages import FloatStage
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.pictures import with_pictures
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.pipeline.waterfall import waterfall_of
from edgeopt.recipes.schema import Recipe
from edgeopt.report.write import write_report
from edgeopt.version import __version__

__all__ = ["ship"]

_SLICES = 20

_LIBRARIES = (
    "lightning-fabric",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "torchao",
)


def ship(
    context: RunContext,
    options: CompileOptions,
    plan: Plan,
    *,
    model: TrainedModel,
    data: Dataset | None,
    judged: Judged,
    samples: ParityInputs,
    ladder: LadderSection | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    preferred: Sequence[str] = (),
    stages: Sequence[FloatStage] = (),
) -> Bundle:
    """Ship the best candidate within the limits, with the evidence for all of them.

    Args:
        ladder: How the rungs went, where the recipe has a ladder.
        recipes: Which recipe made which candidate, by its id, where that is not the plan's.
        preferred: Ids in the order that decides where figures do not.
        stages: The float models, the original first, where each was measured.

    Raises:
        GraphError: None of the engines that the recipe asks for may be shipped; FP32 is not put in their place.
        BundleError: The bundle cannot be written.
    """
    _demand_one(judged)
    ranks = {name: rank for rank, name in enumerate(preferred)}
    ranked = sorted(judged.candidates, key=lambda c: ranks.get(c.id, len(ranks)))
    chosen, verdict, headline = select(ranked, plan.recipe.limits, plan.recipe.objective)
    recipe = (recipes or {}).get(chosen, plan.recipe)
    outcomes = judged.outcomes.get(chosen)
    candidates = tuple(
        _marked(c, shipped=c.id == chosen, flips=_flips(outcomes, data) if c.id == chosen else ())
        for c in judged.candidates
    )
    built = next(b for b in judged.built if b.planned.id == chosen)
    if data is None and plan.recipe_reason:
        headline = (plan.recipe_reason, *headline)
    if ladder is not None:
        headline = (*headline, ladder.summary) if ladder.ended == "met" else (ladder.summary, *headline)
    layers = built.graph.layers or next((b.graph.layers for b in judged.built if b.graph.layers), [])
    training = built.graph.training or _trainings(judged)
    started = time.perf_counter()

    def report() -> Report:
        return Report(
            edgeopt_version=__version__,
            created=_now(),
            command=options.command,
            seed=options.seed,
            headline=headline,
            model=_model_section(model),
            target=_target_section(plan),
            recipe=plan.recipe.model_dump(mode="json"),
            objective=plan.recipe.objective,
            data=_data_section(data),
            device=judged.info,
            candidates=candidates,
            verdict=verdict,
            parity=tuple(context.parity),
            mixed=tuple(context.mixed),
            pruning=tuple(context.pruning),
            pruned=tuple(context.pruned),
            layers=tuple(layers),
            stages=tuple(context.stages),
            events=tuple(context.events),
            training=tuple(training),
            trials=tuple(built.graph.trials or next((b.graph.trials for b in judged.built if b.graph.trials), [])),
            ladder=ladder,
            waterfall=waterfall_of(context, plan, stages, judged, built.planned.rules.name),
        )

    def fill(folder: Path) -> None:
        _fill(folder, plan, recipe, model, built, judged=judged, samples=samples)
        so_far = " so far" if ladder is not None and ladder.ended == "open" else ""
        context.record(f"write the bundle{so_far}", time.perf_counter() - started)
        write_report(report(), folder)

    def manifest(_: Path) -> Manifest:
        return _manifest(options, recipe, model, data, built, target=plan.target.name)

    destination = options.destination(model.name, plan.target.name)
    return load_bundle(write_bundle(destination, fill, manifest))


def _marked(candidate: Candidate, *, shipped: bool, flips: tuple[FlipRow, ...]) -> Candidate:
    """Only what the bundle holds can be built from it, and of the others the worst parts of the test split will do."""
    kept = candidate.slices if shipped else candidate.slices[:_SLICES]
    return candidate.model_copy(
        update={
            "shipped": shipped,
            "next_command": candidate.next_command if shipped else None,
            "slices": kept,
            "flips": flips,
        }
    )


def _flips(outcomes: Outcomes | None, data: Dataset | None) -> tuple[FlipRow, ...]:
    from edgeopt.measure.evaluation import flips

    return () if outcomes is None or data is None else with_pictures(flips(outcomes, data.classes), data)


def _trainings(judged: Judged) -> list[TrainingSection]:
    """Of every candidate, each once: those of one stage are also those of what was made from it."""
    every: list[TrainingSection] = []
    for built in judged.built:
        every += [section for section in built.graph.training if section not in every]
    return every


def _demand_one(judged: Judged) -> None:
    wanted = [c for c in judged.candidates if c.role == "candidate"]
    if wanted and all(c.status == "failed" for c in wanted):
        raise GraphError(
            f"No {' or '.join(dict.fromkeys(f'{c.precision} {c.stage}'.rstrip() for c in wanted))} engine may be shipped.",
            got="; ".join(f"{c.id}: {c.reason}" for c in wanted),
            fix="Choose another recipe (edgeopt recipes), or keep layers in float with --set steps.quantize.skip=[…].",
        )


def _fill(
    folder: Path,
    plan: Plan,
    recipe: Recipe,
    model: TrainedModel,
    built: Built,
    *,
    judged: Judged,
    samples: ParityInputs,
) -> None:
    """Everything but the reports and the manifest."""
    if built.engine is None:
        raise GraphError("The chosen candidate has no engine.", got=built.planned.id)
    for path in graph_files(built.graph.path):
        shutil.copyfile(path, folder / path.name)
    shutil.copytree(built.engine.directory, folder / layout.ENGINE)
    if built.graph.calibration is not None:
        shutil.copyfile(built.graph.calibration, folder / layout.CALIBRATION)
    layout.write_yaml(folder / layout.RECIPE, recipe)
    layout.write_yaml(folder / layout.TARGET, plan.target)
    count = min(layout.MAX_REFERENCE_SAMPLES, len(samples.arrays[0]))
    if (outcomes := judged.outcomes.get(built.planned.id)) is not None:
        write_outcomes(folder / OUTCOMES, outcomes)
    outputs = judged.outputs[built.planned.id] or built.graph.reference
    given = {spec.name: array[:count] for spec, array in zip(model.inputs, samples.arrays, strict=True)}
    wanted = {spec.name: array[:count] for spec, array in zip(model.outputs, outputs, strict=True)}
    layout.write_reference(folder, given, wanted)
    if built.engine.status == "not_built":  # whoever builds it on the device verifies it there
        layout.write_reference(folder / layout.ENGINE, given, wanted)


def _model_section(model: TrainedModel) -> ModelSection:
    return ModelSection(
        name=model.name,
        format=model.format,
        sha256=model.sha256,
        parameters=model.parameters,
        inputs=model.inputs,
        outputs=model.outputs,
    )


def _target_section(plan: Plan) -> TargetSection:
    target = plan.target
    return TargetSection(
        name=target.name, title=target.title, measured_here=plan.measured_here, reason=plan.measured_reason
    )


def _data_section(data: Dataset | None) -> DataSection | None:
    if data is None:
        return None
    return DataSection(
        name=data.name,
        task=data.task,
        fingerprint=data.fingerprint,
        classes=data.classes,
        splits=_splits(data),
        columns=tuple(data.splits["test"].columns),
    )


def _data_record(data: Dataset | None) -> DataRecord | None:
    if data is None:
        return None
    return DataRecord(
        name=data.name,
        task=data.task,
        columns=tuple(data.splits["test"].columns),
        fingerprint=data.fingerprint,
        splits=_splits(data),
    )


def _splits(data: Dataset) -> tuple[SplitRow, ...]:
    return tuple(
        SplitRow(name=split.name, samples=len(split), how=split.how, fingerprint=split.fingerprint)
        for split in data.splits.values()
    )


def _manifest(
    options: CompileOptions, recipe: Recipe, model: TrainedModel, data: Dataset | None, built: Built, *, target: str
) -> Manifest:
    engine, planned = built.engine, built.planned
    if engine is None:
        raise GraphError("The chosen candidate has no engine.", got=planned.id)
    meanings = data.contracts if data is not None else {}
    inputs = tuple(
        InputRecord(
            name=spec.name,
            dtype=spec.dtype,
            shape=spec.shape,
            **dataclasses.asdict(meanings.get(spec.name, InputContract())),
        )
        for spec in model.inputs
    )
    return Manifest(
        edgeopt_version=__version__,
        versions=_versions(),
        python=platform.python_version(),
        created=_now(),
        command=options.command,
        seed=options.seed,
        model=ModelRecord(name=model.name, format=model.format, sha256=model.sha256),
        target=target,
        recipe=recipe.name,
        runtime=engine.runtime,
        runtime_version=engine.runtime_version,
        precision=planned.precision,
        dialect=planned.dialect,
        engine=EngineRecord.of(engine),
        contract=Contract(
            inputs=inputs,
            outputs=tuple(OutputRecord(name=s.name, dtype=s.dtype, shape=s.shape) for s in model.outputs),
            classes=data.classes if data else (),
        ),
        data=_data_record(data),
    )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
