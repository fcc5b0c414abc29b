"""A bundle measured again: on this machine as it is now, on data of another day."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.layout import ENGINE, RECIPE, TARGET, read_reference
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BundleError, DeviceError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Split
from edgeopt.data.load import load_data
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.pipeline.on_device import demand_runtime, is_remote, told_of_resuming
from edgeopt.recipes.load import load_recipe
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules

__all__ = ["bench_bundle", "evaluate_bundle"]


def bench_bundle(
    path: Path,
    *,
    device: str | Device = "local",
    batches: tuple[int, ...] = (),
    threads: int | None = None,
    samples: int | None = None,
    progress: ProgressListener = ignore_progress,
) -> tuple[Measurement, ...]:
    """Latency, throughput, cold start, memory and size of a bundle's engine, in a fresh process.

    Args:
        batches: Batch sizes for throughput; empty: the recipe's.
        threads: Of the runtime; None: the recipe's.
        samples: Timed inferences; None: the recipe's.

    Raises:
        BundleError: The bundle's engine is not built, or it holds no reference inputs to run on.
        DeviceError: Another machine cannot be reached, cannot run the engine, or was lost for good.
    """
    from edgeopt.measure.latency import measure_latency

    bundle = _built(path)
    recipe = load_recipe(bundle.directory / RECIPE)
    wanted = {"batch_sizes": batches or None, "threads": threads, "latency_samples": samples}
    config = recipe.measure.model_copy(update={key: value for key, value in wanted.items() if value is not None})
    reference = read_reference(bundle.directory)
    if reference is None:
        raise BundleError("The bundle holds no reference inputs to run on.", got=bundle.directory)
    name = f"{bundle.manifest.runtime}-{bundle.manifest.precision}"
    batch = bundle.manifest.engine.batch or recipe.export.batch
    with opened(device, progress=progress) as where:
        demand_runtime(where, bundle)
        figures = measure_latency(
            where, {name: bundle.engine}, sample=reference[0], config=config, batch=batch, progress=progress
        )
        if figures[name].failed and is_remote(where):
            raise DeviceError(figures[name].failed)
        return tuple(told_of_resuming(where, figures[name].measurements))


def evaluate_bundle(
    path: Path,
    *,
    data: str,
    reference: Path | None = None,
    device: str | Device = "local",
    seed: int = 0,
    progress: ProgressListener = ignore_progress,
) -> tuple[Measurement, ...]:
    """Accuracy of a bundle's engine on the test split of ``data``; the paired drop where an FP32 reference is given.

    Args:
        reference: An FP32 bundle, or an ONNX file, of the same model.

    Raises:
        BundleError: The bundle's engine is not built, or the reference has other inputs or outputs.
        DataError: The data does not fit the model.
    """
    from edgeopt.measure.classification import evaluate, evaluate_unlabelled

    bundle = _built(path)
    contract = bundle.manifest.contract
    inputs = tuple(TensorSpec(name=i.name, dtype=i.dtype, shape=i.shape) for i in contract.inputs)
    outputs = tuple(TensorSpec(name=o.name, dtype=o.dtype, shape=o.shape) for o in contract.outputs)
    dataset = load_data(data, inputs=inputs, outputs=outputs, seed=seed)
    split = dataset.splits["test"]
    with tempfile.TemporaryDirectory(prefix="edgeopt-eval-") as scratch, opened(device, progress=progress) as where:
        demand_runtime(where, bundle)
        mine = _first_output(where, bundle.engine, split, Path(scratch) / "mine", progress)
        theirs = mine
        if reference is not None:
            engine = _reference_engine(reference, bundle, Path(scratch) / "reference")
            theirs = _first_output(where, engine, split, Path(scratch) / "theirs", progress)
        host = where.info().name
        conditions: dict[str, str | int | float | bool | None] = {"split": "test", "data": dataset.name}
        if dataset.task == "unlabelled":
            rows = evaluate_unlabelled(theirs, mine, device=host, conditions=conditions)
        else:
            parts = [batch.labels for batch in split.batches(1024) if batch.labels is not None]
            labels = np.concatenate(parts)
            rows, _ = evaluate(theirs, mine, labels, dataset.classes, device=host, conditions=conditions)
    if reference is not None:
        return tuple(rows)
    reason = "no FP32 reference was given (--reference)"
    alone = {"accuracy_top1_pct"}
    return tuple(row if row.name in alone else replace(row, value=None, interval=None, reason=reason) for row in rows)


def _built(path: Path) -> Bundle:
    bundle = load_bundle(path)
    if bundle.engine.status == "not_built":
        raise BundleError(
            "The bundle's engine is not built yet.",
            got=path,
            fix=f"On its device, in the bundle: cd {ENGINE} && {bundle.engine.next_command}",
        )
    return bundle


def _reference_engine(reference: Path, bundle: Bundle, scratch: Path) -> Engine:
    """The FP32 model as an engine of the same runtime."""
    if reference.is_dir():
        other = _built(reference)
        if other.manifest.precision != "fp32":
            raise BundleError("The reference bundle is not FP32.", got=other.manifest.precision)
        return other.engine
    scratch.mkdir(parents=True)
    target = find_target(str(bundle.directory / TARGET))
    rules = next((r for r in target.runtimes if r.name == bundle.manifest.runtime), None)
    rules = rules or RuntimeRules(
        name=bundle.manifest.runtime, dialect="float", versions="", precisions=("fp32",), opset_max=target.opset
    )
    batch = bundle.manifest.engine.batch or 1
    return BACKENDS[rules.name].compile(reference, target, rules, scratch, batch)


def _first_output(device: Device, engine: Engine, split: Split, folder: Path, progress: ProgressListener) -> np.ndarray:
    from edgeopt.measure.outputs import collect_outputs

    folder.mkdir(parents=True)
    names = [spec.name for spec in engine.inputs]
    batch = engine.inputs[0].batch
    size = batch if isinstance(batch, int) else 1
    outputs = collect_outputs(device, engine, split, names, folder, size, progress)
    return np.array(outputs[engine.outputs[0].name])
