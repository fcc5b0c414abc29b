"""The float models on the way: the original, and what each float step of a recipe makes of the one before.

Each is stored, exported, and held against its own outputs in PyTorch. After pruning and recovery a model legitimately
computes something else than the original did: how much worse it is says the test split, not parity.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edgeopt.bundle.document import PrunedSection, TrainingSection
from edgeopt.compress.base import CUT_SHORT as ENDED_EARLY
from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_file
from edgeopt.data.contract import Dataset
from edgeopt.model.store import load_program, load_stored, save_model
from edgeopt.model.trained import count_parameters
from edgeopt.pipeline import records
from edgeopt.pipeline.cache import CUT_SHORT
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.graphs import Graph, Loaded, float_graph, versions
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.pipeline.steps import run_steps
from edgeopt.recipes.schema import FLOAT_STEPS, StepConfig, step_name

__all__ = ["FloatStage", "float_stages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatStage:
    """One float model.

    Attributes:
        step: The recipe's step that made it; empty for the model as it came.
        graph: Its FP32 export. Its trainings are those of all steps so far.
        macs: Multiply-accumulates per sample; None where they were not counted.
        seconds: What the step took when it was run; None for the model as it came.
    """

    step: str = ""
    loaded: Loaded
    graph: Graph
    macs: int | None = None
    seconds: float | None = None


def float_stages(
    context: RunContext, loaded: Loaded, plan: Plan, samples: ParityInputs, *, data: Dataset | None
) -> tuple[FloatStage, ...]:
    """Run the float steps of a recipe, each as a cached stage; the first stage is the model as it came.

    Raises:
        EdgeOptError: A step failed, or what it made does not compute the same as its export.
    """
    stages = [FloatStage(loaded=loaded, graph=float_graph(context, loaded, plan, samples))]
    if plan.recipe.float_steps:
        stages = [replace(stages[0], macs=_macs(context, loaded))]
    for config in plan.recipe.float_steps:
        stages.append(_next(context, stages[-1], config, plan, samples, data=data))
    return tuple(stages)


def _next(
    context: RunContext,
    before: FloatStage,
    config: StepConfig,
    plan: Plan,
    samples: ParityInputs,
    *,
    data: Dataset | None,
) -> FloatStage:
    name = step_name(config)
    key = {
        "model": before.loaded.model.identity,
        "original": before.loaded.original.model.identity if before.loaded.original else None,
        "step": {name: config.model_dump(mode="json")},
        "data": _fingerprints(data),
        "target": plan.target.model_dump(mode="json"),
        "seed": context.seed,
        "versions": versions(),
    }
    workspace = context.cache.workspace(name, key)

    def build(folder: Path) -> None:
        _make(folder, context, before.loaded, config, plan, data=data, workspace=workspace)

    folder = context.stage(name, f"{name}{plan.mark}", key, build)
    trained = records.read(folder / "training.json", list[TrainingSection])
    if all(section.ended != ENDED_EARLY for section in trained):
        shutil.rmtree(workspace, ignore_errors=True)
    events = records.read(folder / "events.json", list[Event])
    context.note([event for event in events if event not in context.events])
    if (folder / "pruned.json").is_file():
        pruned = records.read(folder / "pruned.json", PrunedSection)
        context.pruned += [] if pruned in context.pruned else [pruned]
    loaded = _loaded(folder / "model", before.loaded, FLOAT_STEPS[name])
    graph = float_graph(context, loaded, plan, samples)
    return FloatStage(
        step=name,
        loaded=loaded,
        graph=replace(graph, training=[*before.graph.training, *trained]),
        macs=_macs(context, loaded),
        seconds=records.read(folder / "seconds.json", float),
    )


def _make(
    folder: Path,
    context: RunContext,
    before: Loaded,
    config: StepConfig,
    plan: Plan,
    *,
    data: Dataset | None,
    workspace: Path,
) -> None:
    begun = time.perf_counter()
    original = before.original.opened() if before.original else None
    result = run_steps(context, before.opened(), plan, [config], original=original, data=data, workspace=workspace)
    program = result.model.program
    if program is None:
        raise GraphError(f"The step {step_name(config)} returned no program.")
    save_model(replace(result.model, parameters=count_parameters(program), events=()), folder / "model")
    records.write(folder / "events.json", list[Event], list(result.events))
    records.write(folder / "training.json", list[TrainingSection], list(result.training))
    if result.pruned is not None:
        records.write(folder / "pruned.json", PrunedSection, result.pruned)
    records.write(folder / "seconds.json", float, time.perf_counter() - begun)
    if any(section.ended == ENDED_EARLY for section in result.training):
        (folder / CUT_SHORT).touch()


def _loaded(folder: Path, before: Loaded, stage: str) -> Loaded:
    """The stored model under the name it came with.

    Its identity is that of its files, not of what was to make them: a training that the time limit cut short makes
    another model the next time, and what was made from this one must not be found for that.
    """
    model = load_stored(folder, with_program=False)
    identity = hash_file(folder / "model.json")
    named = replace(model, name=before.model.name, source=before.model.source, identity=identity)
    return Loaded(model=named, directory=folder, stage=stage, original=before.original or before)


def _macs(context: RunContext, loaded: Loaded) -> int | None:
    """Counted on the program; None where no layer's shapes are known, or the model came as ONNX."""
    if loaded.model.onnx_path is not None:
        return None

    def build(folder: Path) -> None:
        from edgeopt.compress.macs import multiplications
        from edgeopt.compress.normalize import normalize

        counts = multiplications(normalize(load_program(loaded.directory), split_attention=False))
        records.write(folder / "macs.json", dict[str, int], counts)

    key = {"model": loaded.model.identity, "torch": version("torch")}
    folder = context.stage("macs", f"count the multiplications of {loaded.name}", key, build)
    return sum(records.read(folder / "macs.json", dict[str, int]).values()) or None


def _fingerprints(data: Dataset | None) -> dict[str, str]:
    """Of what a step may read: never the test split."""
    splits = data.splits.items() if data is not None else ()
    return {name: split.fingerprint for name, split in splits if name != "test"}
