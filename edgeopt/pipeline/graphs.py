"""From a loaded model to portable ONNX graphs, each held against PyTorch before it may go on."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeopt.bundle.document import LayerRow, ParityRow, TrainingSection
from edgeopt.compress.base import CUT_SHORT as ENDED_EARLY
from edgeopt.compress.base import Answers
from edgeopt.core.errors import GraphError, ModelError
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_file
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.data.contract import Dataset
from edgeopt.model.store import load_program
from edgeopt.pipeline import records
from edgeopt.pipeline.cache import CUT_SHORT
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.graph_folder import Graph, read_graph, write_graph
from edgeopt.pipeline.host import run_onnx
from edgeopt.pipeline.loaded import Loaded
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs, demand_finite, graph_batches
from edgeopt.pipeline.steps import grid_steps, run_steps
from edgeopt.recipes.schema import Convert, Quantize, step_name, training_of

__all__ = ["Graph", "Loaded", "float_graph", "half_graph", "quantized_graph", "versions"]

# One rounding that fell the other way moves a value by a step of its grid, and what follows with it.
_INT8_TOLERANCE = 0.1
_UNSEEN = "Without data no value was held against {}'s range; give --data to have it checked for overflow."


def float_graph(context: RunContext, loaded: Loaded, plan: Plan, samples: ParityInputs) -> Graph:
    """Export the model in FP32; stop if the graph does not compute what PyTorch computes."""
    key = {
        "model": loaded.model.identity,
        "export": plan.recipe.export.model_dump(mode="json"),
        "opset": plan.target.opset,
        "samples": samples.fingerprint(),
        "parity": plan.recipe.parity.model_dump(mode="json"),
        "versions": versions(),
        "stage": loaded.stage,
    }

    def build(folder: Path) -> None:
        if loaded.model.onnx_path is not None:
            _adopt_onnx(folder, loaded, samples)
        else:
            _export_float(folder, loaded, plan, samples)

    return read_graph(context.stage("export", f"export {loaded.name}", key, build), context)


def quantized_graph(
    context: RunContext, loaded: Loaded, plan: Plan, samples: ParityInputs, *, data: Dataset, base: Graph
) -> Graph:
    """Quantize as the recipe says, export, and hold the graph against ``base``'s FP32 PyTorch outputs.

    Args:
        loaded: The last float model.
        base: Its graph.
    """
    steps = grid_steps(plan.recipe)
    trains = any(training_of(config) is not None for config in steps)
    key = {
        "model": loaded.model.identity,
        "original": loaded.original.model.identity if loaded.original else None,
        "steps": [{step_name(config): config.model_dump(mode="json")} for config in steps],
        "train": data.splits["train"].fingerprint if trains else None,
        "tune": data.splits["tune"].fingerprint if "tune" in data.splits else None,
        "rules": plan.target.quantization.model_dump(mode="json") if plan.target.quantization else None,
        "calibration": data.splits["calibration"].fingerprint,
        "export": plan.recipe.export.model_dump(mode="json"),
        "opset": plan.target.opset,
        "samples": samples.fingerprint(),
        "parity": plan.recipe.parity.model_dump(mode="json"),
        "seed": context.seed,
        "versions": versions(),
    }

    workspace = context.cache.workspace("quantize", key) if trains else None

    def build(folder: Path) -> None:
        begun = time.perf_counter()
        _export_quantized(
            folder, context, loaded, plan, samples, data=data, base=base, workspace=workspace, begun=begun
        )
        trained = records.read(folder / "training.json", list[TrainingSection])
        if any(section.ended == ENDED_EARLY for section in trained):
            (folder / CUT_SHORT).touch()

    precision = plan.recipe.step(Quantize).precision
    label = f"{'train and ' if trains else ''}quantize to {precision}{plan.mark}"
    graph = read_graph(context.stage("quantize", label, key, build), context)
    if workspace is not None and all(section.ended != ENDED_EARLY for section in graph.training):
        shutil.rmtree(workspace, ignore_errors=True)
    return replace(graph, training=[*base.training, *graph.training])


def half_graph(
    context: RunContext, loaded: Loaded, plan: Plan, samples: ParityInputs, base: Graph, *, data: Dataset | None
) -> Graph:
    """Convert what is FP32 in ``base`` (FP32 or int8) to FP16 or BF16, inputs and outputs left as they are.

    Args:
        data: Whose calibration split says which values that type cannot hold; without it nothing does, and an event says so.
    """
    from edgeopt.graph.float_range import BFLOAT16, FLOAT16, float_reach
    from edgeopt.graph.half import convert_half

    config = plan.recipe.step(Convert)
    narrow = BFLOAT16 if config.dtype == "bfloat16" else FLOAT16
    seen = None if data is None else data.splits.get("calibration")

    def build(folder: Path) -> None:
        reach = (
            None
            if not seen
            else float_reach(
                base.path, graph_batches(base.path, loaded.model, seen, config.calibration_samples), run_onnx, narrow
            )
        )
        result = convert_half(
            base.path,
            folder / "model.onnx",
            narrow,
            keep_float32=config.keep_float32,
            reach=reach,
            overflow=config.overflow,
        )
        outputs = _ordered(run_onnx(folder / "model.onnx", samples.named(loaded.model)), loaded)
        row = _compare(
            base.reference, outputs, plan, samples, stage=f"convert {narrow.name}", kind="int8", whose=base.whose
        )
        _demand(row, lambda: None)
        if base.calibration is not None:
            shutil.copyfile(base.calibration, folder / "calibration.json")
        unseen = [Event(kind="note", stage=narrow.name, message=_UNSEEN.format(narrow.name))] if reach is None else []
        write_graph(
            folder,
            reference=base.reference,
            parity=[row],
            events=[*result.events, *unseen],
            layers=base.layers,
            training=base.training,
            trials=base.trials,
            whose=base.whose,
            seconds=base.seconds,
        )

    key = {
        "graph": hash_file(base.path),
        "calibration": None if seen is None else seen.fingerprint,
        "convert": config.model_dump(mode="json"),
        "samples": samples.fingerprint(),
        "parity": plan.recipe.parity.model_dump(mode="json"),
        "versions": versions(),
    }
    return read_graph(context.stage("half", f"convert to {narrow.name}", key, build), context)


def _export_float(folder: Path, loaded: Loaded, plan: Plan, samples: ParityInputs) -> None:
    from edgeopt.compress.sparse_weights import sparse_nodes
    from edgeopt.graph.export import export_onnx
    from edgeopt.graph.parity import first_difference
    from edgeopt.model.reference import reference_outputs

    model, path = loaded.model, folder / "model.onnx"
    program = load_program(loaded.directory)
    reference = reference_outputs(program, samples.arrays)
    whose = f"The {loaded.stage} model's outputs" if loaded.stage else "The model's own outputs"
    demand_finite(reference, whose, samples.rows, samples.origin)
    result = export_onnx(
        program,
        model.inputs,
        model.outputs,
        path,
        opset=plan.target.opset,
        sparse=sparse_nodes(replace(model, program=program)),
        simplify=plan.recipe.export.simplify,
        dynamic_batch=plan.recipe.export.dynamic_batch,
    )
    named = samples.named(model)
    outputs = _ordered(run_onnx(path, named), loaded)
    row = _compare(reference, outputs, plan, samples, stage=f"export {loaded.name}", kind="float", whose=loaded.whose)
    tolerance = plan.recipe.parity.float_max_abs
    _demand(row, lambda: first_difference(program, path, named, run_onnx, tolerance))
    write_graph(folder, reference=reference, parity=[row], events=list(result.events), whose=loaded.whose)


def _adopt_onnx(folder: Path, loaded: Loaded, samples: ParityInputs) -> None:
    """Take a model that came as ONNX: its own FP32 outputs are the reference."""
    from edgeopt.graph.io import load_onnx, save_onnx

    path = folder / "model.onnx"
    if loaded.model.onnx_path is None:
        raise ModelError("The model did not come as ONNX.")
    save_onnx(load_onnx(loaded.model.onnx_path), path)
    outputs = run_onnx(path, samples.named(loaded.model))
    reference = tuple(outputs[spec.name] for spec in loaded.model.outputs)
    demand_finite(reference, "The model's own outputs", samples.rows, samples.origin)
    write_graph(folder, reference=reference, parity=[], events=[])


def _export_quantized(
    folder: Path,
    context: RunContext,
    loaded: Loaded,
    plan: Plan,
    samples: ParityInputs,
    *,
    data: Dataset,
    base: Graph,
    workspace: Path | None,
    begun: float,
) -> None:
    from edgeopt.compress.sparse_weights import sparse_nodes
    from edgeopt.graph.calibration import calibrated_tensors
    from edgeopt.graph.export import export_onnx
    from edgeopt.graph.parity import compare, first_difference
    from edgeopt.model.reference import reference_outputs

    path, named = folder / "model.onnx", samples.named(loaded.model)
    config, steps = plan.recipe.step(Quantize), grid_steps(plan.recipe)
    original = loaded.original.opened() if loaded.original else None
    answers = Answers(inputs=samples.arrays, outputs=base.reference) if "tune" in data.splits else None
    result = run_steps(
        context,
        loaded.opened(),
        plan,
        steps,
        original=original,
        data=data,
        workspace=workspace,
        answers=answers,
    )
    program = result.model.program
    if program is None:
        raise GraphError("The quantize step returned no program.")
    exported = export_onnx(
        program,
        loaded.model.inputs,
        loaded.model.outputs,
        path,
        opset=plan.target.opset,
        ranges=result.ranges,
        weight_bits={d.node: 4 for d in result.decisions if d.node and d.precision in ("w4a8", "w4")},
        sparse=sparse_nodes(result.model),
        simplify=plan.recipe.export.simplify,
        dynamic_batch=plan.recipe.export.dynamic_batch,
    )
    made = time.perf_counter()
    quantized = reference_outputs(program, samples.arrays)
    demand_finite(quantized, "The quantized model's outputs", samples.rows, samples.origin)
    outputs = run_onnx(path, named)
    held = partial(_compare, base.reference, plan=plan, samples=samples, kind="int8", whose=base.whose)
    in_torch = held(quantized, stage="quantize (PyTorch)")
    on_graph = held(_ordered(outputs, loaded), stage="quantize (ONNX)")
    # Both compute the same Q/DQ: what is left is how each rounds a value that lies between two points of a grid.
    limits = plan.recipe.parity.model_copy(update={"int8_sqnr_db": plan.recipe.parity.export_sqnr_db})
    same = compare(
        quantized,
        _ordered(outputs, loaded),
        stage=f"export {config.precision}",
        against=f"the quantized program, {samples.origin}",
        kind="int8",
        limits=limits,
        classification=samples.classification,
    )
    layers = _layers(base, path, named, result.decisions)
    records.write(folder / "nodes.json", dict[str, str | None], {one.name: one.node for one in result.decisions})
    doubts = [event.message for event in result.events if event.kind == "warning" and event.stage == "calibrate"]
    _demand(in_torch, lambda: _worst(layers), doubts)
    _demand(on_graph, lambda: first_difference(program, path, named, run_onnx, _INT8_TOLERANCE), doubts)
    _demand(same, lambda: first_difference(program, path, named, run_onnx, _INT8_TOLERANCE))
    context.record(f"check {config.precision} against {loaded.name}{plan.mark}", time.perf_counter() - made)
    calibration = {
        "data": data.name,
        "split": "calibration",
        "fingerprint": data.splits["calibration"].fingerprint,
        "samples": min(config.calibration_samples, len(data.splits["calibration"])),
        "observer": config.observer,
        "tensors": [dataclasses.asdict(tensor) for tensor in calibrated_tensors(path)],
    }
    (folder / "calibration.json").write_text(json.dumps(calibration, indent=1, sort_keys=True))
    events = [*result.events, *exported.events]
    write_graph(
        folder,
        reference=base.reference,
        parity=[in_torch, on_graph, same],
        events=events,
        layers=layers,
        training=list(result.training),
        trials=list(result.trials),
        whose=base.whose,
        seconds=time.perf_counter() - begun,
    )


def _layers(base: Graph, path: Path, named: Mapping[str, np.ndarray], decisions: Any) -> list[LayerRow]:
    """One row per layer that the quantizer decided on, with the SQNR of its output in the exported graph."""
    from edgeopt.graph.parity import layer_sqnr

    quality = layer_sqnr(base.path, path, named, run_onnx)
    rows = []
    for decision in decisions:
        value = quality.decibels.get(decision.node)
        why = "not a layer with weights" if value is None else "its output is exactly FP32's"
        sqnr = (
            not_measured("sqnr_db", "dB", why)
            if value is None or math.isinf(value)
            else Measurement(name="sqnr_db", value=value, unit="dB", n=quality.samples)
        )
        rows.append(
            LayerRow(
                name=decision.name, op=decision.op, precision=decision.precision, reason=decision.reason, sqnr=sqnr
            )
        )
    return rows


def _worst(layers: list[LayerRow]) -> str | None:
    measured = [row for row in layers if row.sqnr.value is not None]
    return min(measured, key=lambda row: row.sqnr.value or 0.0).name if measured else None


def _ordered(outputs: Mapping[str, np.ndarray], loaded: Loaded) -> tuple[np.ndarray, ...]:
    return tuple(outputs[spec.name] for spec in loaded.model.outputs)


def _compare(
    reference: tuple[np.ndarray, ...],
    outputs: tuple[np.ndarray, ...],
    plan: Plan,
    samples: ParityInputs,
    *,
    stage: str,
    kind: Literal["float", "int8"],
    whose: str,
) -> ParityRow:
    from edgeopt.graph.parity import compare

    return compare(
        reference,
        outputs,
        stage=stage,
        against=f"{whose}, {samples.origin}",
        kind=kind,
        limits=plan.recipe.parity,
        classification=samples.classification,
    )


def _demand(row: ParityRow, find_node: Callable[[], str | None], doubts: Sequence[str] = ()) -> None:
    """Stop the run where a stage is outside its tolerance; ``doubts`` about the data are likelier than any layer."""
    if row.passed:
        return
    figures = ", ".join(f"{m.name} {m.value:.4g}" for m in row.figures if m.value is not None)
    node = find_node()
    where = f" First node that differs: {node}." if node else ""
    allowed = (
        f"Allowed: {row.tolerance}. Loosen it with --set parity.…, or leave the node out with "
        "--set steps.quantize.skip=[PATTERN]."
    )
    raise GraphError(
        f"Stage {row.stage!r} does not agree with {row.against}.{where}",
        got=figures,
        fix=" ".join((*(f"The data may be why: {doubt}" for doubt in doubts), allowed)),
    )


def versions() -> dict[str, str]:
    """Of the libraries that decide what a graph computes, for cache keys."""
    names = ("torch", "torchao", "onnx", "onnx-ir", "onnxscript", "numpy")
    return {name: version(name) for name in names}
