"""What the harness itself costs: the same loop around a runner that computes nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgeopt.core.device import Host
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.core.spec import TensorSpec
from edgeopt.measure import statistics
from edgeopt.measure.processes import SampleFiles, start
from edgeopt.recipes.schema import Measure

__all__ = ["harness_overhead", "null_engine", "runtime_clock"]

_NAME = "harness_overhead_us"
_RUNTIME = "latency_runtime_p50_ms"
_BLOCKS, _SIZE = 20, 50


def harness_overhead(
    device: Host, engine: Engine, *, sample: Mapping[str, np.ndarray], config: Measure, batch: int, seed: int = 0
) -> Measurement:
    """The median time of an inference that does nothing but make the engine's outputs, in microseconds.

    It holds the clock, the call and the zeros of the outputs, so it is no less than what the harness adds to a latency.

    Args:
        engine: Whose inputs and outputs it takes.
        sample: Real samples, one array per input name.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-null-") as directory, ExitStack() as stack:
        nothing = null_engine(Path(directory) / "engine", engine.inputs, engine.outputs)
        files = SampleFiles(Path(directory), sample)
        try:
            one = start(stack, device, nothing, files, config=config, batch=batch, warm=True)
            taken = [one.session.request("time", n=_SIZE)["latency_ns"] for _ in range(_BLOCKS)]
        except DeviceError as error:
            return not_measured(_NAME, "us", str(error))
    blocks = np.array(taken, dtype=np.float64) / 1e3
    if not np.median(blocks):
        return not_measured(_NAME, "us", "it is less than a step of the device's clock", runtime="null", batch=batch)
    return Measurement(
        name=_NAME,
        value=float(np.median(blocks)),
        unit="us",
        interval=statistics.block_quantiles(blocks, [0.5], seed=seed)[0],
        n=blocks.size,
        device=device.name,
        conditions={"runtime": "null", "batch": batch, "what": "the timing loop around a runner that computes nothing"},
    )


def runtime_clock(
    device: Host, engine: Engine, *, sample: Mapping[str, np.ndarray], config: Measure, batch: int, seed: int = 0
) -> Measurement:
    """The median inference by the runtime's own clock: what an application in C++ sees, without Python's share.

    Its condition ``python_us`` is that share: the median of the difference to the same inferences by the harness's
    clock. Null where the runtime has no clock of its own.

    Args:
        sample: Real samples, one array per input name.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-clock-") as directory, ExitStack() as stack:
        files = SampleFiles(Path(directory), sample)
        try:
            one = start(stack, device, engine, files, config=config, batch=batch, warm=True)
            taken = [one.session.request("time", n=_SIZE) for _ in range(_BLOCKS)]
        except DeviceError as error:
            return not_measured(_RUNTIME, "ms", str(error))
    inside = [reply.get("runtime_ns") for reply in taken]
    if any(block is None for block in inside):
        return not_measured(_RUNTIME, "ms", f"{engine.runtime} has no clock of its own", runtime=engine.runtime)
    blocks = np.array(inside, dtype=np.float64) / 1e6
    outside = np.array([reply["latency_ns"] for reply in taken], dtype=np.float64) / 1e6
    return Measurement(
        name=_RUNTIME,
        value=float(np.median(blocks)),
        unit="ms",
        interval=statistics.block_quantiles(blocks, [0.5], seed=seed)[0],
        n=blocks.size,
        device=device.name,
        conditions={
            "runtime": engine.runtime,
            "batch": batch,
            "threads": config.threads,
            "python_us": round(1e3 * float(np.median(outside - blocks)), 1),
            "what": "by the runtime's own clock, in a process of its own, after the figures above",
        },
    )


def null_engine(directory: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Engine:
    """An engine of the ``null`` runner, written into ``directory``; where an engine's batch is named, so is this one's."""
    directory.mkdir(parents=True, exist_ok=True)

    def ports(specs: tuple[TensorSpec, ...]) -> dict[str, list[object]]:
        return {
            spec.name: [
                spec.dtype,
                ["batch" if i == 0 else n if isinstance(n, int) else 1 for i, n in enumerate(spec.shape)],
            ]
            for spec in specs
        }

    (directory / "null.json").write_text(json.dumps({"inputs": ports(inputs), "outputs": ports(outputs)}))
    return Engine(
        runtime="null",
        runtime_version="0",
        directory=directory,
        entry="null.json",
        status="built",
        inputs=inputs,
        outputs=outputs,
    )
