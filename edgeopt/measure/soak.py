"""An engine run for a long time: latency over time, and when the machine began to slow down for good."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.core.device import Host, demand_timing
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError, DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.measure import statistics
from edgeopt.measure.conditions import machine_conditions, state_of
from edgeopt.measure.processes import Running, SampleFiles, start
from edgeopt.recipes.schema import Measure

__all__ = ["Soak", "SoakWindow", "soak_engine", "throttled_from"]

_WINDOWS = 60  # of the whole run, at most
_BLOCK_S = 0.5  # how long the agent runs before it is asked again; Ctrl-C waits no longer
_FIRST_S = 60.0
_FEWEST_FIRST = 3  # windows that make the initial level
_FEWEST_WINDOWS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakWindow:
    """A stretch of the run: when it began and how long it was, its latencies, and the machine's state at its end."""

    start_s: float
    seconds: float
    n: int
    p50_ms: float
    p99_ms: float
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None
    rss_mib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What became of the latency.

    Attributes:
        windows: In the order of time.
        measurements: ``soak_first_p50_ms``, ``soak_steady_p50_ms``, ``soak_steady_ratio``, ``time_to_throttle_s`` and
            ``memory_growth_mib``.
        interrupted: Why it ended before its time; empty where it did not.
        threshold_pct: How far the level must rise to be called throttling.
    """

    windows: tuple[SoakWindow, ...]
    measurements: tuple[Measurement, ...]
    asked_s: float
    threshold_pct: float
    interrupted: str = ""


def soak_engine(
    device: Host,
    engine: Engine,
    *,
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
    seconds: float,
    threshold_pct: float = 10.0,
    progress: ProgressListener = ignore_progress,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Soak:
    """Run an engine for ``seconds`` without a pause. Ctrl-C ends it with what there is.

    It is not warmed up first: how it warms is the first thing that a soak shows.

    Args:
        sample: Real samples, one array per input name.
        threshold_pct: The window's median that has left the initial level by more than this, for good, is throttling.

    Raises:
        DataError: There is no sample.
        DeviceError: The engine cannot be run, or failed before there was a window; or times mean nothing there.
    """
    demand_timing(device)
    if not sample or any(len(array) == 0 for array in sample.values()):
        raise DataError("There is no sample to measure with.", fix="Give at least one real sample per input.")
    run = _Soaking(seconds=seconds, clock=clock, progress=progress)
    with tempfile.TemporaryDirectory(prefix="edgeopt-soak-") as directory, ExitStack() as stack:
        one = start(stack, device, engine, SampleFiles(Path(directory), sample), config=config, batch=batch, warm=False)
        first = state_of(one.session)
        try:
            run.go(one, first)
        except (KeyboardInterrupt, DeviceError) as error:
            run.close_window({})
            if not run.windows:
                raise
            run.why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
    conditions: dict[str, Condition] = {
        **one.conditions,
        **machine_conditions(first, run.last),
        "batch": batch,
        "scenario": "single-stream",
        "soak_s": round(run.passed, 1),
    }
    return Soak(
        windows=tuple(run.windows),
        measurements=tuple(
            _figures(
                run.windows,
                run.blocks,
                threshold_pct=threshold_pct,
                conditions=conditions,
                device=device.name,
                seed=seed,
            )
        ),
        asked_s=seconds,
        threshold_pct=threshold_pct,
        interrupted=run.why,
    )


def throttled_from(levels: np.ndarray, initial: float, threshold_pct: float) -> int | None:
    """The first window from which on every level is above the initial one by more than ``threshold_pct``; else None.

    A level is the median of a window and its two neighbours, so that one window that another process disturbed (or that
    was spared) neither makes nor unmakes a change; the last two windows at least must be above.

    Args:
        levels: Each window's median latency, float64 [windows].
    """
    padded = np.concatenate([levels[:1], levels, levels[-1:]])
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)
    below = np.flatnonzero(smooth <= initial * (1 + threshold_pct / 100))
    begins = int(below[-1]) + 1 if len(below) else 0
    return begins if begins <= len(levels) - 2 else None


@dataclass(slots=True, kw_only=True)
class _Soaking:
    """The run as it goes."""

    seconds: float
    clock: Callable[[], float]
    progress: ProgressListener
    passed: float = 0.0
    why: str = ""
    windows: list[SoakWindow] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)  # of every closed window, ms
    last: dict[str, Any] = field(default_factory=dict)
    _open: list[int] = field(default_factory=list)
    _begun: float = 0.0

    def go(self, one: Running, before: Mapping[str, Any]) -> None:
        self.last = dict(before)
        width = max(self.seconds / _WINDOWS, 2 * _BLOCK_S)
        begin, size = self.clock(), 1
        while self.passed < self.seconds:
            latency = one.session.request("time", n=size)["latency_ns"]
            self._open += latency
            self.passed = self.clock() - begin
            size = max(1, round(_BLOCK_S * 1e9 / (sum(latency) / len(latency))))
            if self.passed - self._begun >= width or self.passed >= self.seconds:
                self.close_window(state_of(one.session))
            done = min(int(self.passed), max(1, int(self.seconds)))
            self.progress(Progress(stage="soak", done=done, total=max(1, int(self.seconds))))

    def close_window(self, state: Mapping[str, Any]) -> None:
        """Make a window of what was taken since the last one."""
        if not self._open:
            return
        taken = np.array(self._open, dtype=np.float64) / 1e6
        counts = state.get("throttle_count"), self.last.get("throttle_count")
        self.windows.append(
            SoakWindow(
                start_s=round(self._begun, 3),
                seconds=round(self.passed - self._begun, 3),
                n=len(taken),
                p50_ms=float(np.median(taken)),
                p99_ms=float(np.quantile(taken, 0.99)),
                frequency_mhz=state.get("frequency_mhz"),
                temperature_c=state.get("temperature_c"),
                throttled=None if None in counts else int(counts[0] or 0) - int(counts[1] or 0),
                rss_mib=state.get("rss_mib"),
            )
        )
        self.blocks.append(taken)
        self.last = {**self.last, **state}
        self._open, self._begun = [], self.passed


def _figures(
    windows: list[SoakWindow],
    blocks: list[np.ndarray],
    *,
    threshold_pct: float,
    conditions: dict[str, Condition],
    device: str,
    seed: int,
) -> list[Measurement]:
    names = {
        "soak_first_p50_ms": "ms",
        "soak_steady_p50_ms": "ms",
        "soak_steady_ratio": "1",
        "time_to_throttle_s": "s",
        "memory_growth_mib": "MiB",
    }
    if len(windows) < _FEWEST_WINDOWS:
        reason = f"{len(windows)} windows are too few; it takes {_FEWEST_WINDOWS}"
        return [not_measured(name, unit, reason) for name, unit in names.items()]
    levels = np.array([window.p50_ms for window in windows])
    minute = sum(window.start_s + window.seconds <= _FIRST_S for window in windows)
    # In a short soak a minute is most of it: then its first tenth, three windows at least.
    first = max(_FEWEST_FIRST, min(minute, max(len(windows) // 10, 1) if minute > len(windows) // 3 else minute))
    last = max(_FEWEST_FIRST, len(windows) // 4)
    initial, steady = _level(blocks[:first], seed), _level(blocks[-last:], seed + 1)
    ratio = statistics.ratio_of_windows(levels[-last:], levels[:first])
    noted = {"first_s": round(windows[first - 1].start_s + windows[first - 1].seconds, 1), "windows": len(windows)}

    def made(name: str, value: float, interval: Interval | None, n: int, **more: Condition) -> Measurement:
        return Measurement(
            name=name,
            value=value,
            unit=names[name],
            interval=interval,
            n=n,
            device=device,
            conditions={**conditions, **noted, **more},
        )

    began = throttled_from(levels, initial[0], threshold_pct)
    if began is None:
        reason = f"the latency never left its first level by more than {threshold_pct:g} % for good"
        throttle = not_measured("time_to_throttle_s", "s", reason, **conditions)
    else:
        at = windows[began]
        between = Interval(
            low=windows[began - 1].start_s if began else 0.0, high=at.start_s + at.seconds, method="windows it lies in"
        )
        throttle = made("time_to_throttle_s", at.start_s, between, len(windows), threshold_pct=threshold_pct)
    resident = [window.rss_mib for window in windows if window.rss_mib is not None]
    if len(resident) < _FEWEST_WINDOWS:
        growth = not_measured("memory_growth_mib", "MiB", "the device does not tell the process's memory", **conditions)
    else:
        quarter = max(1, len(resident) // 4)
        grown = float(np.median(resident[-quarter:]) - np.median(resident[:quarter]))
        growth = made("memory_growth_mib", grown, None, len(resident), peak_mib=max(resident))
    return [
        made("soak_first_p50_ms", *initial, sum(len(block) for block in blocks[:first])),
        made("soak_steady_p50_ms", *steady, sum(len(block) for block in blocks[-last:])),
        made("soak_steady_ratio", *ratio, len(windows)),
        throttle,
        growth,
    ]


def _level(blocks: list[np.ndarray], seed: int) -> tuple[float, Interval]:
    """The median of windows, and the range of their medians resampled as wholes."""
    medians = np.array([np.median(block) for block in blocks])
    drawn = np.random.default_rng(seed).choice(medians, (2000, len(medians)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    value = float(np.median(medians))
    return value, Interval(low=float(low), high=float(high), method=f"bootstrap over {len(medians)} windows")
