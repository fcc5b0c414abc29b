"""What an engine runs in int8, read on the machine that runs it: kernels are chosen by the CPU at hand."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeopt.bundle.coverage import CoverageSection
from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.coverage import Coverage
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Measurement
from edgeopt.devices.base import Device
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.coverage import told_coverage, with_macs
from edgeopt.pipeline.engines import Built
from edgeopt.pipeline.on_device import is_remote
from edgeopt.pipeline.plan import Plan

__all__ = ["candidate_coverage"]


def candidate_coverage(
    context: RunContext,
    plan: Plan,
    built: Built,
    where: tuple[Device, DeviceInfo],
    arrays: Sequence[np.ndarray],
    *,
    ran: bool,
) -> tuple[CoverageSection | None, tuple[Measurement, ...]]:
    """A candidate's coverage and its figures: from the device where engines run on another machine, else from here.

    Args:
        where: Where the candidates run.
        arrays: Samples, in the order of the engine's inputs.
        ran: Whether the candidate's own engine runs there.
    """
    engine, graph = built.engine, built.graph
    device, _ = where
    if engine is not None and engine.coverage is not None and ran and is_remote(device):
        there = _read(context, where, built, arrays, plan.recipe.export.batch)
        if there is not None:
            return told_coverage(replace(engine, coverage=there), graph, elsewhere=not plan.measured_here)
    return told_coverage(engine, graph, elsewhere=not plan.measured_here or is_remote(device))


def _read(
    context: RunContext,
    where: tuple[Device, DeviceInfo],
    built: Built,
    arrays: Sequence[np.ndarray],
    batch: int,
) -> Coverage | None:
    """None where the runtime there has no profiler, or the engine fails under it: what was read here stands, as a proxy."""
    (device, info), engine, portable = where, built.engine, built.graph.path
    if engine is None:
        return None
    compiled = engine.path if engine.path.suffix == ".onnx" else portable

    def build(folder: Path) -> None:
        told: Coverage | None = None
        with contextlib.suppress(DeviceError):
            told = with_macs(_ask(device, engine, compiled, arrays, batch), compiled, portable)
        records.write(folder / "coverage.json", Coverage | None, told)

    inputs = {"engine": built.key, "device": info.model_dump(mode="json", exclude={"conditions"}), "batch": batch}
    folder = context.stage("coverage", f"read on {device.name} what {built.planned.id} runs in int8", inputs, build)
    return records.read(folder / "coverage.json", Coverage | None)  # type: ignore[arg-type]


def _ask(device: Device, engine: Engine, compiled: Path, arrays: Sequence[np.ndarray], batch: int) -> Coverage | None:
    """One inference under the runtime's profiler, in a process of its own on the device.

    Raises:
        DeviceError: It cannot be run, or has no profiler.
    """
    from edgeopt.backends.coverage.work import coverage_of_layers
    from edgeopt.measure.processes import SampleFiles

    fixed = engine.inputs[0].batch
    sample = {spec.name: array for spec, array in zip(engine.inputs, arrays, strict=True)}
    with tempfile.TemporaryDirectory(prefix="edgeopt-coverage-") as scratch, ExitStack() as stack:
        files = SampleFiles(Path(scratch), sample)
        session = stack.enter_context(device.open(engine, threads=1))
        loaded = session.request(
            "load", runtime=engine.runtime, entry=session.entry, options=dict(engine.options), threads=1
        )
        session.request("first", inputs=session.put(files.of(fixed if isinstance(fixed, int) else batch)))
        reply = session.request("layers", n=1, warmup=0)
    if "unavailable" in reply:
        raise DeviceError("The layers cannot be told apart.", got=str(reply["unavailable"]))
    how = f"the kernels that {engine.runtime} {loaded['runtime_version']} ran on {device.name}"
    return coverage_of_layers(compiled, engine.runtime, reply["layers"], how)
