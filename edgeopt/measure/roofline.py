"""Each layer's achieved rate against what the machine can do (the roofline model).

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009: attainable = min(peak, bandwidth × operational intensity).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle.roofline import MachinePeaks, Roofline, RooflineRow
from edgeopt.core.device import Host, demand_timing
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.measure.peaks import measure_peaks
from edgeopt.measure.processes import SampleFiles, start
from edgeopt.recipes.schema import Measure

__all__ = ["LayerWork", "measure_roofline"]

_WARMUP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWork:
    """What a kernel is for.

    Attributes:
        name: The node that it computes; the kernel's own name where it computes none that multiplies.
        macs: Multiply-accumulates for one sample; 0 where it multiplies nothing.
        runs_in: ``int8``, or the float type that it multiplies in.
        weight_bytes: Of its constant operand in that type.
    """

    name: str
    macs: int
    runs_in: str
    weight_bytes: int = 0


def measure_roofline(
    device: Host,
    engine: Engine,
    *,
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
    work_of: Callable[[Sequence[Mapping[str, Any]]], Sequence[LayerWork]],
    peaks: MachinePeaks | None = None,
    runs: int = 50,
) -> Roofline:
    """Time every kernel of ``engine`` under its runtime's profiler, in a fresh process, and the machine's peaks.

    A profiler costs a few microseconds for each kernel: the sum of the rows is more than a latency.

    Args:
        work_of: Says of each row of the agent's ``layers`` what it computes.
        peaks: Those of the device with the threads of ``config``; None: they are measured.
        runs: Inferences; the median of each kernel counts.

    Raises:
        DeviceError: The engine cannot be run, its runtime has no profiler, or the device's times are no device's.
    """
    demand_timing(device)
    with tempfile.TemporaryDirectory(prefix="edgeopt-roofline-") as directory, ExitStack() as stack:
        files = SampleFiles(Path(directory), sample)
        one = start(stack, device, engine, files, config=config, batch=batch, warm=False)
        reply = one.session.request("layers", n=runs, warmup=_WARMUP)
        if "unavailable" in reply:
            raise DeviceError("The layers cannot be timed one by one.", got=str(reply["unavailable"]))
        conditions = one.conditions
    layers = reply["layers"]
    peaks = peaks or measure_peaks(device, config=config)
    rows = tuple(_row(layer, work, peaks, batch) for layer, work in zip(layers, work_of(layers), strict=True))
    return Roofline(
        rows=rows,
        whole=_whole(rows),
        peaks=peaks,
        device=device.name,
        conditions={**conditions, "batch": batch, "runs": runs, "how": "the runtime's own profiler, which adds time"},
    )


def _row(layer: Mapping[str, Any], work: LayerWork, peaks: MachinePeaks, batch: int) -> RooflineRow:
    us, moved, macs = float(layer["us"]), int(layer["bytes"]), work.macs * batch
    moved += 0 if layer["weights"] or not moved else work.weight_bytes
    intensity = 2 * macs / moved if moved else None
    return RooflineRow(
        name=work.name,
        op=str(layer["op"]),
        runs_in=work.runs_in,
        macs=macs,
        us=us,
        moved_bytes=moved,
        gops=2 * macs / us / 1e3 if us else 0.0,
        intensity=intensity,
        roof_gops=_roof(peaks, work.runs_in, intensity),
    )


def _roof(peaks: MachinePeaks, runs_in: str, intensity: float | None) -> float | None:
    if runs_in in ("float16", "bfloat16"):  # whose products are faster than float32's, by how much nobody has measured
        return None
    peak = (peaks.int8 if runs_in == "int8" else peaks.float32).value
    bandwidth = peaks.bandwidth.value
    if peak is None or bandwidth is None or intensity is None:
        return None
    return min(peak, bandwidth * intensity)


def _whole(rows: Sequence[RooflineRow]) -> RooflineRow:
    macs, us, moved = sum(r.macs for r in rows), sum(r.us for r in rows), sum(r.moved_bytes for r in rows)
    working = [row for row in rows if row.macs]
    # Kernels run one after another: at their roofs they would take the sum of their shortest times.
    known = working and all(row.roof_gops for row in working)
    shortest_us = sum(2 * row.macs / (row.roof_gops or 1) / 1e3 for row in working)
    return RooflineRow(
        name="whole",
        op="",
        runs_in="",
        macs=macs,
        us=us,
        moved_bytes=moved,
        gops=2 * macs / us / 1e3 if us else 0.0,
        intensity=2 * macs / moved if moved else None,
        roof_gops=2 * macs / shortest_us / 1e3 if known and shortest_us else None,
    )
