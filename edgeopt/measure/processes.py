"""The live side of a measurement: one process per engine, blocks of timed inferences taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.core.device import Host, Session
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Condition
from edgeopt.measure.conditions import state_of
from edgeopt.recipes.schema import Measure

__all__ = ["Running", "SampleFiles", "start", "take_turns"]

_REWARM = 2  # untimed inferences at the start of a block: the engine before has emptied the caches


@dataclass(slots=True, kw_only=True)
class Running:
    """An engine whose process is alive, and what it told on the way there.

    Attributes:
        before: The machine's state when the timing was about to begin.
        after: Likewise when it was over; empty until then.
        resident: The process's memory over time: seconds of this machine's monotonic clock, MiB.
    """

    session: Session
    import_ms: float
    load_ms: float
    cold_start_ms: float
    runtime_version: str
    fallbacks: tuple[str, ...]
    conditions: dict[str, Condition]
    memory: Mapping[str, Any]
    warmed: dict[str, Condition]
    preemptions: int | None = field(default=0)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    resident: list[tuple[float, float]] = field(default_factory=list)

    def note_resident(self, mib: object) -> None:
        """One more reading of the process's memory; None where the device cannot tell."""
        if isinstance(mib, int | float):
            self.resident.append((time.monotonic(), float(mib)))


class SampleFiles:
    """A sample as files that agents read, one per batch size."""

    def __init__(self, directory: Path, sample: Mapping[str, np.ndarray]) -> None:
        self._directory, self._sample = directory, sample

    def of(self, batch: int) -> Path:
        """A file of the first ``batch`` samples, repeated from the start where there are fewer."""
        file = self._directory / f"sample-{batch}.npz"
        if not file.exists():
            chosen = {name: array[np.arange(batch) % len(array)] for name, array in self._sample.items()}
            with file.open("wb") as target:
                np.savez(target, **chosen)  # type: ignore[arg-type]  # its stub takes the names for options
        return file


def start(
    stack: ExitStack, device: Host, engine: Engine, files: SampleFiles, *, config: Measure, batch: int, warm: bool
) -> Running:
    """Open a process, load the engine, run it for the first time, warm it, and read its memory.

    Args:
        stack: Ends the process.
        warm: Whether to warm it as ``config`` says; if not, one inference is all.

    Raises:
        DeviceError: The engine cannot be loaded, or cannot run at ``batch``.
    """
    threads = config.threads
    session = stack.enter_context(device.open(engine, threads=threads))
    loaded = session.request(
        "load", runtime=engine.runtime, entry=session.entry, options=dict(engine.options), threads=threads
    )
    first = session.request("first", inputs=session.put(files.of(batch)))
    warmed: dict[str, Condition] = _warm(session, config) if warm else {}
    memory = session.request("memory")
    running = Running(
        session=session,
        import_ms=float(loaded["import_ms"]),
        load_ms=float(loaded["load_ms"]),
        cold_start_ms=float(first["cold_start_ms"]),
        runtime_version=str(loaded["runtime_version"]),
        fallbacks=tuple(str(text) for text in loaded["fallbacks"]),
        memory=memory,
        warmed=warmed,
        conditions={
            "runtime": engine.runtime,
            "runtime_version": str(loaded["runtime_version"]),
            "threads": threads or "all",
        },
        before=state_of(session) if warm else {},
    )
    running.note_resident(running.before.get("rss_mib"))
    return running


def _warm(session: Session, config: Measure) -> dict[str, Condition]:
    """Warm up until it is steady; what that took, as conditions."""
    within = config.warmup_within_pct
    limits = (
        {} if within is None else {"within_pct": within, "most": config.warmup_most, "limit_s": config.warmup_limit_s}
    )
    reply = session.request("warm", n=config.warmup, **limits)
    warmed: dict[str, Condition] = {"warmup": int(reply["n"])}
    if reply["converged"] is not None:
        warmed["warmup_converged"] = bool(reply["converged"])
    return warmed


def take_turns(
    running: Mapping[str, Running],
    *,
    rounds: int,
    size: int,
    rng: np.random.Generator,
    tick: Callable[[], None],
) -> tuple[dict[str, np.ndarray], dict[str, DeviceError]]:
    """Time one block per engine and round, in an order drawn anew for each round.

    Returns:
        Milliseconds, float64 [rounds, size], of every engine that lasted; and what ended the others.
    """
    blocks: dict[str, list[list[int]]] = {name: [] for name in running}
    lost: dict[str, DeviceError] = {}
    names = list(running)
    for _ in range(rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            if name in lost:
                continue
            try:
                blocks[name].append(_block(running[name], size))
            except DeviceError as error:
                lost[name] = error
        tick()
    taken = {name: np.array(taken, dtype=np.float64) / 1e6 for name, taken in blocks.items() if name not in lost}
    return taken, lost


def _block(one: Running, size: int) -> list[int]:
    one.session.request("warm", n=_REWARM)
    reply = one.session.request("time", n=size)
    preempted = reply.get("preemptions")
    one.preemptions = None if preempted is None or one.preemptions is None else one.preemptions + int(preempted)
    one.note_resident(reply.get("rss_mib"))
    latency: list[int] = reply["latency_ns"]
    return latency
