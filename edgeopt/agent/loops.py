"""The loops that inferences are timed in. Nothing of the host takes part, so no line between the two is ever timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, Iterator

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["arrivals", "timed", "warmed"]

_WINDOW = 10  # inferences whose median is one level
_ALIKE = 3  # so many levels in a row must agree
_SPIN_NS = 200_000  # a sleep may end late by about so much; the rest of a wait is spent looking at the clock


def warmed(run: Callable[[], Any], least: int, within_pct: float | None, most: int, limit_s: float) -> dict[str, Any]:
    """Run ``least`` times; then on, until the medians of three successive windows agree.

    A median does not see a few stragglers, and three windows tell a level from a slow drift better than two.

    Args:
        run: One inference.
        least: At least so many.
        within_pct: How far apart the three medians may be, in % of the lowest; None: no more than ``least``.
        most: No more than so many (or ``least``).
        limit_s: Nor longer than this, once ``least`` have been run.

    Returns:
        ``n``, ``seconds``, ``converged`` (None where it was not asked for).
    """
    clock, start = time.perf_counter_ns, time.perf_counter_ns()
    if within_pct is None:
        for _ in range(least):
            run()
        return {"n": least, "seconds": (clock() - start) / 1e9, "converged": None}
    window: list[int] = []
    levels: list[int] = []
    n, converged = 0, False
    while n < least or not converged:
        if n >= least and (n >= most or clock() - start > limit_s * 1e9):
            break
        before = clock()
        run()
        window.append(clock() - before)
        n += 1
        if len(window) == _WINDOW:
            levels.append(sorted(window)[_WINDOW // 2])
            window = []
            last = levels[-_ALIKE:]
            converged = len(last) == _ALIKE and max(last) <= min(last) * (1 + within_pct / 100)
    return {"n": n, "seconds": (clock() - start) / 1e9, "converged": converged}


def timed(run: Callable[[], Any], n: int, per: int, own: Callable[[], int] | None = None) -> dict[str, Any]:
    """``n`` queries of ``per`` inferences, each query timed; the garbage collector rests meanwhile.

    Args:
        own: What the runtime's own clock says of its last inference, in ns; asked between queries of one inference.
    """
    clock = time.perf_counter_ns
    latency = [0] * n
    inside = [0] * n if own is not None and per == 1 else None
    with _no_garbage_collection():
        before = _preemptions()
        if per == 1:
            for i in range(n):
                start = clock()
                run()
                latency[i] = clock() - start
                if inside is not None and own is not None:
                    inside[i] = own()
        else:
            for i in range(n):
                start = clock()
                for _ in range(per):
                    run()
                latency[i] = clock() - start
        after = _preemptions()
    taken = None if before is None or after is None else after - before
    return {"latency_ns": latency, "runtime_ns": inside, "preemptions": taken}


def arrivals(run: Callable[[], Any], schedule_ns: Sequence[int]) -> dict[str, Any]:
    """One worker, one inference per arrival, first come first served.

    A latency is counted from the scheduled arrival, whatever the worker was doing then: a stall makes every query
    that should have come meanwhile late, as it would in service ("coordinated omission" would hide that).

    Args:
        run: One inference.
        schedule_ns: When queries arrive, from the start on; ascending.

    Returns:
        ``latency_ns`` (waiting and service) and ``service_ns`` of each query; ``seconds`` of the whole.
    """
    clock = time.perf_counter_ns
    latency, service = [0] * len(schedule_ns), [0] * len(schedule_ns)
    with _no_garbage_collection():
        begin = clock()
        for i, offset in enumerate(schedule_ns):
            due = begin + offset
            ahead = due - clock()
            if ahead > _SPIN_NS:
                time.sleep((ahead - _SPIN_NS) / 1e9)
            while clock() < due:
                pass
            start = clock()
            run()
            end = clock()
            latency[i], service[i] = end - due, end - start
        seconds = (clock() - begin) / 1e9
    return {"latency_ns": latency, "service_ns": service, "seconds": seconds}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _preemptions() -> int | None:
    """Involuntary context switches of this process so far."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
