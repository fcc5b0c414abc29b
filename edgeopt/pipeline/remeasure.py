"""A bundle measured again: on this machine as it is now, on data of another day."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.layout import ENGINE, RECIPE, TARGET, read_reference
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.core.device import demand_timing
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BundleError, DeviceError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.measurement import Condition, Measurement
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Split
from edgeopt.data.load import load_data
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.pipeline.on_device import demand_runtime, told_of_resuming
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Measure, Scenario
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules

if TYPE_CHECKING:
    from edgeopt.measure.latency import EngineFigures
    from edgeopt.measure.soak import Soak

__all__ = ["bench_bundle", "built_bundle", "evaluate_bundle", "setting_of", "soak_bundle"]

_AGAIN = "the same engine again"


def bench_bundle(
    path: Path,
    *,
    device: str | Device = "local",
    batches: tuple[int, ...] = (),
    threads: int | None = None,
    samples: int | None = None,
    scenarios: tuple[Scenario, ...] = (),
    qps: float | None = None,
    p99_ms: float | None = None,
    precision: float | None = None,
    progress: ProgressListener = ignore_progress,
) -> tuple[Measurement, ...]:
    """Latency, throughput, cold start, memory and size of a bundle's engine, in a fresh process.

    Args:
        batches: Batch sizes for throughput; empty: the recipe's.
        threads: Of the runtime; None: the recipe's.
        samples: Timed inferences; None: the recipe's.
        scenarios: Beside single-stream; empty: the recipe's.
        qps: Server's rate; None: the recipe's.
        p99_ms: Server's bound, for the highest rate that holds it; None: the recipe's.
        precision: Runs the engine against itself too, until that ratio is told to this share; None: the recipe's. The
            figure ``latency_noise_ratio`` has the condition ``inconclusive`` where the machine is too noisy for it.

    Raises:
        BundleError: The bundle's engine is not built, or it holds no reference inputs to run on.
        DeviceError: The engine cannot be loaded or run; another machine cannot be reached, or was lost for good.
    """
    from edgeopt.measure.compare import until_precise
    from edgeopt.measure.latency import measure_latency
    from edgeopt.measure.overhead import harness_overhead, runtime_clock

    bundle = built_bundle(path)
    wanted = {
        "batch_sizes": batches or None,
        "threads": threads,
        "latency_samples": samples,
        "scenarios": scenarios or None,
        "server_qps": qps,
        "server_p99_ms": p99_ms,
        "precision": precision,
    }
    config, sample, batch = setting_of(bundle, wanted)
    name = f"{bundle.manifest.runtime}-{bundle.manifest.precision}"
    engines, more = {name: bundle.engine}, None
    if config.precision is not None:
        engines[_AGAIN] = bundle.engine
        more = until_precise(config.precision, config.precision_limit_s, ((_AGAIN, name),))
    with opened(device, progress=progress) as where:
        demand_timing(where)
        demand_runtime(where, bundle)
        found = measure_latency(where, engines, sample=sample, config=config, batch=batch, progress=progress, more=more)
        if found[name].failed:
            raise DeviceError(found[name].failed, fix=f"`edgeopt verify {path}` says whether its files are whole.")
        figures = [*found[name].measurements]
        figures += [
            overhead(where, bundle.engine, sample=sample, config=config, batch=batch)
            for overhead in (harness_overhead, runtime_clock)
        ]
        if config.precision is not None:
            figures.append(_noise(found, name, config.precision))
        return tuple(told_of_resuming(where, figures))


def _noise(found: Mapping[str, EngineFigures], name: str, precision: float) -> Measurement:
    """The engine against itself, and whether the machine is too noisy for the precision."""
    from edgeopt.measure.compare import too_noisy
    from edgeopt.measure.latency import paired_ratio

    noise = paired_ratio("latency_noise_ratio", found[_AGAIN], found[name])
    why = too_noisy(noise, noise, precision)
    if noise.value is None:
        return noise
    said: dict[str, Condition] = {"precision": precision, **({"inconclusive": why} if why else {})}
    return replace(noise, conditions={**noise.conditions, **said})


def soak_bundle(
    path: Path,
    *,
    seconds: float,
    device: str | Device = "local",
    threads: int | None = None,
    progress: ProgressListener = ignore_progress,
) -> Soak:
    """A bundle's engine run for ``seconds`` without a pause: latency over time, time to throttle, steady state.

    Raises:
        BundleError: As for ``bench_bundle``.
    """
    from edgeopt.measure.soak import soak_engine

    bundle = built_bundle(path)
    config, sample, batch = setting_of(bundle, {"threads": threads})
    with opened(device, progress=progress) as where:
        demand_timing(where)
        demand_runtime(where, bundle)
        return soak_engine(
            where, bundle.engine, sample=sample, config=config, batch=batch, seconds=seconds, progress=progress
        )


def setting_of(bundle: Bundle, wanted: Mapping[str, object]) -> tuple[Measure, Mapping[str, np.ndarray], int]:
    """The recipe's ``measure`` with what is wanted otherwise, the bundle's own inputs, and the batch."""
    recipe = load_recipe(bundle.directory / RECIPE)
    changes = {key: value for key, value in wanted.items() if value is not None}
    reference = read_reference(bundle.directory)
    if reference is None:
        raise BundleError("The bundle holds no reference inputs to run on.", got=bundle.directory)
    batch = bundle.manifest.engine.batch or recipe.export.batch
    return recipe.measure.model_copy(update=changes), reference[0], batch


def evaluate_bundle(
    path: Path,
    *,
    data: str,
    reference: Path | None = None,
    device: str | Device = "local",
    samples: int | None = None,
    seed: int = 0,
    progress: ProgressListener = ignore_progress,
) -> tuple[Measurement, ...]:
    """Accuracy of a bundle's engine on the test split of ``data``; the paired drop where an FP32 reference is given.

    Args:
        reference: An FP32 bundle, or an ONNX file, of the same model.
        samples: Only the first so many of the split; None: all.

    Raises:
        BundleError: The bundle's engine is not built, or the reference has other inputs or outputs.
        DataError: The data does not fit the model.
    """
    from edgeopt.pipeline.evidence import judge_outputs

    bundle = built_bundle(path)
    contract = bundle.manifest.contract
    inputs = tuple(TensorSpec(name=i.name, dtype=i.dtype, shape=i.shape) for i in contract.inputs)
    outputs = tuple(TensorSpec(name=o.name, dtype=o.dtype, shape=o.shape) for o in contract.outputs)
    dataset = load_data(data, inputs=inputs, outputs=outputs, seed=seed)
    split = dataset.splits["test"]
    if samples is not None:
        split = split.first(samples)
        dataset = replace(dataset, splits={**dataset.splits, "test": split})
    with tempfile.TemporaryDirectory(prefix="edgeopt-eval-") as scratch, opened(device, progress=progress) as where:
        demand_runtime(where, bundle)
        mine = _outputs(where, bundle.engine, split, Path(scratch) / "mine", progress)
        theirs = mine
        if reference is not None:
            engine = _reference_engine(reference, bundle, Path(scratch) / "reference")
            theirs = _outputs(where, engine, split, Path(scratch) / "theirs", progress)
        conditions: dict[str, str | int | float | bool | None] = {"split": "test", "data": dataset.name}
        rows = judge_outputs(theirs, mine, dataset, where.info().name, conditions, seed=seed).measurements
    if reference is not None:
        return rows
    reason = "no FP32 reference was given (--reference)"
    against = ("drop", "agreement", "output_")
    return tuple(
        replace(row, value=None, interval=None, reason=reason) if row.name.startswith(against) else row for row in rows
    )


def built_bundle(path: Path) -> Bundle:
    """A bundle whose engine can be run.

    Raises:
        BundleError: It is not built yet.
    """
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
        other = built_bundle(reference)
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


def _outputs(
    device: Device, engine: Engine, split: Split, folder: Path, progress: ProgressListener
) -> dict[str, np.ndarray]:
    """By name, in the model's order."""
    from edgeopt.measure.outputs import collect_outputs

    folder.mkdir(parents=True)
    names = [spec.name for spec in engine.inputs]
    batch = engine.inputs[0].batch
    size = batch if isinstance(batch, int) else 1
    outputs = collect_outputs(device, engine, split, names, folder, size, progress)
    return {spec.name: np.array(outputs[spec.name]) for spec in engine.outputs}
