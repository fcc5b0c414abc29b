"""What this machine can do at most, and in which steps of channels a convolution gets dearer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BackendError, DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement
from edgeopt.devices.base import Device
from edgeopt.recipes.schema import Measure
from edgeopt.targets.schema import Peaks, Source, Target

__all__ = ["HostPeaks", "measure_host", "multiple_of"]

_RUNTIME = "onnxruntime"
# One group's width is varied: 3 by 3, stride 1, on 28 by 28.
_CHANNELS_IN, _IMAGE = 64, 28
_WIDTHS = tuple(range(16, 68, 4))
_MULTIPLES = (4, 8, 16, 32)
_TELLS = 0.7  # of the residual of steps of 4: what a larger multiple has to get below, to be more than noise


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPeaks:
    """What was measured, and the experiments in words.

    Attributes:
        channel_multiple: None where no step could be told from noise.
    """

    peaks: Peaks
    channel_multiple: int | None
    sources: tuple[Source, ...]


def measure_host(
    target: Target, device: Device, *, seed: int = 0, progress: ProgressListener = ignore_progress
) -> HostPeaks:
    """Measure with ONNX Runtime, on one thread, each operation in a process of its own.

    Args:
        target: ``local``, filled in: its rules for ONNX Runtime are those that the operations run with.

    Raises:
        BackendError: The target does not name ONNX Runtime, or it is not installed here.
        DeviceError: An operation could not be run.
    """
    version = BACKENDS[_RUNTIME].available().version
    if version is None:
        raise BackendError(
            "A machine is measured with ONNX Runtime, which is not installed.", fix="pip install 'edgeopt[onnxruntime]'"
        )
    from edgeopt.graph.probes import write_conv
    from edgeopt.measure.peaks import measure_peaks

    progress(Progress(stage="measure peaks", done=0, total=None))
    found = measure_peaks(device, config=Measure(threads=1))
    int8, float32, copied = (_rate(one) for one in (found.int8, found.float32, found.bandwidth))

    def conv(width: int) -> Callable[[Path], None]:
        return lambda path: write_conv(path, _CHANNELS_IN, width, _IMAGE, seed=seed)

    image = np.random.default_rng(seed).standard_normal((1, _CHANNELS_IN, _IMAGE, _IMAGE)).astype("float32")
    writers = {str(width): conv(width) for width in _WIDTHS}
    blocks = _timed(target, device, writers, image, count=200, seed=seed, progress=progress)
    times = {width: float(np.median(blocks[str(width)])) for width in _WIDTHS}
    multiple = multiple_of(times)
    how = f"experiment: ONNX Runtime {version}, {device.name}, one thread"
    curve = ", ".join(f"{width}: {ms / times[_WIDTHS[-1]]:.2f}" for width, ms in times.items())
    told = f"A convolution gets dearer in steps of {multiple} channels" if multiple else "No step of channels shows"
    return HostPeaks(
        peaks=Peaks(gops_int8=int8, gflops_fp32=float32, copy_gb_per_s=copied, threads=1),
        channel_multiple=multiple,
        sources=(
            Source(
                fact=f"peaks: {int8} GOPS int8, {float32} GFLOPS float32, {copied} GB/s read and written.",
                source=f"{how}; {'; '.join(_words(one) for one in (found.int8, found.float32, found.bandwidth))}",
            ),
            Source(
                fact=f"{told}.",
                source=f"{how}; float32, 3 by 3, {_CHANNELS_IN} channels in, {_IMAGE} by {_IMAGE}, timed in turns; "
                f"median time by channels out, against {_WIDTHS[-1]}: {curve}",
            ),
        ),
    )


def multiple_of(times: Mapping[int, float]) -> int | None:
    """The multiple whose steps explain the times best: ``t = a + b · ⌈c / m⌉ · m``, by least squares.

    Args:
        times: Channels → time, at least every fourth count of channels, some of them between two multiples.

    Returns:
        8, 16 or 32; None where their residual is no clearly smaller than that of steps of 4, so of no steps.
    """
    widths = np.array(sorted(times), float)
    taken = np.array([times[int(width)] for width in widths])

    def residual(multiple: int) -> float:
        steps = np.ceil(widths / multiple) * multiple
        columns = np.stack([np.ones_like(steps), steps], axis=1)
        fitted, *_ = np.linalg.lstsq(columns, taken, rcond=None)
        return float(((columns @ fitted - taken) ** 2).sum())

    residuals = {multiple: residual(multiple) for multiple in _MULTIPLES}
    best = min(residuals, key=lambda multiple: residuals[multiple])
    return best if residuals[best] < _TELLS * residuals[_MULTIPLES[0]] else None


def _timed(
    target: Target,
    device: Device,
    writers: Mapping[str, Callable[[Path], None]],
    sample: np.ndarray,
    *,
    count: int,
    seed: int,
    progress: ProgressListener,
) -> dict[str, np.ndarray]:
    """Milliseconds of each operation's inferences, taken in turns; all read the same input ``x``."""
    from edgeopt.measure.latency import measure_latency

    rules = next((rules for rules in target.runtimes if rules.name == _RUNTIME), None)
    if rules is None:
        raise BackendError(f"The target {target.name!r} does not name ONNX Runtime.", got=target.name)
    with tempfile.TemporaryDirectory(prefix="edgeopt-peaks-") as scratch:
        engines: dict[str, Engine] = {}
        for name, write in writers.items():
            folder = Path(scratch) / name
            folder.mkdir()
            write(folder / "probe.onnx")
            (folder / "engine").mkdir()
            backend = BACKENDS[_RUNTIME]
            engines[name] = backend.compile(folder / "probe.onnx", target, rules, folder / "engine", len(sample))
        config = Measure(batch_sizes=(), latency_samples=count, warmup=5, warmup_limit_s=2.0, threads=1)
        measured = measure_latency(
            device,
            engines,
            sample={"x": sample},
            config=config,
            batch=len(sample),
            progress=progress,
            seed=seed,
            cold_starts=1,
        )
    if failed := next((one.failed for one in measured.values() if one.failed), ""):
        raise DeviceError("This machine could not be measured.", got=failed)
    return {name: one.blocks_ms for name, one in measured.items()}


def _rate(found: Measurement) -> float:
    if found.value is None:
        raise DeviceError("This machine could not be measured.", got=found.reason)
    return round(found.value, 1)


def _words(found: Measurement) -> str:
    return f"{found.conditions['what']}, {found.conditions['how']}"
