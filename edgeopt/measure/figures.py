"""From raw observations of one engine to figures that say what they mean."""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeopt.core.engine import Engine
from edgeopt.core.measurement import Condition, Measurement, not_measured
from edgeopt.measure import statistics

__all__ = ["FIGURES", "cold_start", "energy", "latency", "load", "memory", "size", "throughput"]

_QUANTILES = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
FIGURES = {
    **dict.fromkeys(_QUANTILES, "ms"),
    "peak_memory_mib": "MiB",
    "throughput_per_s": "1/s",
    "cold_start_ms": "ms",
    "load_ms": "ms",
}
"""Name → unit of what only a running engine can give."""

_MIB = 2**20


def latency(blocks_ms: np.ndarray, conditions: Mapping[str, Condition], device: str, seed: int) -> list[Measurement]:
    """Quantiles of ``blocks_ms``, float64 [rounds, samples per block]."""
    intervals = statistics.block_quantiles(blocks_ms, list(_QUANTILES.values()), seed=seed)
    return [
        Measurement(
            name=name,
            value=float(np.quantile(blocks_ms, q)),
            unit="ms",
            interval=interval,
            n=blocks_ms.size,
            device=device,
            conditions=conditions,
        )
        for (name, q), interval in zip(_QUANTILES.items(), intervals, strict=True)
    ]


def throughput(blocks_ms: np.ndarray, batch: int, conditions: Mapping[str, Condition], device: str) -> Measurement:
    """Samples per second: the batch over the mean time of an inference."""
    return Measurement(
        name="throughput_per_s",
        value=float(batch / blocks_ms.mean() * 1e3),
        unit="1/s",
        interval=statistics.rate(blocks_ms / 1e3, batch),
        n=blocks_ms.size,
        device=device,
        conditions=conditions,
    )


def cold_start(
    starts_ms: Sequence[float], imports_ms: Sequence[float], conditions: Mapping[str, Condition], device: str
) -> Measurement:
    """Load plus first inference, in fresh processes; the runtime's import is told apart."""
    return Measurement(
        name="cold_start_ms",
        value=plain.median(starts_ms),
        unit="ms",
        interval=statistics.median_of_few(starts_ms) if len(starts_ms) > 1 else None,
        n=len(starts_ms),
        device=device,
        conditions={
            **conditions,
            "what": "load + first inference in a fresh process; files in the page cache",
            "runtime_import_ms": round(plain.median(imports_ms), 3),
        },
    )


def load(loads_ms: Sequence[float], conditions: Mapping[str, Condition], device: str) -> Measurement:
    """Opening the engine, in fresh processes; the first part of the cold start."""
    return Measurement(
        name="load_ms",
        value=plain.median(loads_ms),
        unit="ms",
        interval=statistics.median_of_few(loads_ms) if len(loads_ms) > 1 else None,
        n=len(loads_ms),
        device=device,
        conditions=conditions,
    )


def memory(reply: Mapping[str, Any], conditions: Mapping[str, Condition], device: str) -> Measurement:
    """The peak over load and inference, above what the process held when the runtime was imported."""
    if "unavailable" in reply:
        return not_measured("peak_memory_mib", "MiB", str(reply["unavailable"]), **conditions)
    baseline, load_peak, run_peak = (float(reply[f"{key}_mib"]) for key in ("baseline", "load_peak", "run_peak"))
    return Measurement(
        name="peak_memory_mib",
        value=max(load_peak, run_peak, baseline) - baseline,
        unit="MiB",
        n=1,
        device=device,
        conditions={
            **conditions,
            "how": str(reply["how"]),
            "baseline_mib": round(baseline, 2),
            "load_peak_mib": round(load_peak - baseline, 2),
            "run_peak_mib": round(run_peak - baseline, 2),
        },
    )


def energy(reply: Mapping[str, Any], conditions: Mapping[str, Condition], device: str) -> Measurement:
    """Energy of one inference, all that the counter covers, idle power included."""
    name = "energy_per_inference_mj"
    if "unavailable" in reply:
        return not_measured(name, "mJ", str(reply["unavailable"]), **conditions)
    joules, n, seconds = float(reply["joules"]), int(reply["n"]), float(reply["seconds"])
    return Measurement(
        name=name,
        value=joules * 1e3 / n,
        unit="mJ",
        n=n,
        device=device,
        conditions={
            **conditions,
            "counter": str(reply["counter"]),
            "what": "the counter's whole reach, idle power included",
            "power_w": round(joules / seconds, 3),
            "seconds": round(seconds, 2),
        },
    )


def size(engine: Engine) -> Measurement:
    """All files of the engine on disk. The same on every device, so it names none."""
    files = [path for path in engine.directory.rglob("*") if path.is_file()]
    return Measurement(
        name="size_mib",
        value=sum(path.stat().st_size for path in files) / _MIB,
        unit="MiB",
        conditions={"files": len(files)},
    )
