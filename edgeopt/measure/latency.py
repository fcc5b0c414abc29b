"""Engines side by side: latency, throughput, cold start, memory and size, each engine in a process of its own."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeopt.core.device import Host
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError, DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.core.measurement import Condition, Measurement, not_measured
from edgeopt.measure import figures, statistics
from edgeopt.measure.processes import Running, SampleFiles, start, take_turns
from edgeopt.recipes.schema import Measure

__all__ = ["EngineFigures", "latency_ratio", "measure_latency"]

_FEWEST_ROUNDS = 5
_THROUGHPUT_BUDGET_MS = 500.0  # per engine and batch size


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """What was measured of one engine.

    Attributes:
        measurements: Figures, with the names that ``bundle.document.Candidate`` lists.
        blocks_ms: float64 [rounds, samples per block]: raw latencies; round i of all engines was taken in turns.
        runtime_version: As the agent reports it; empty where the engine failed.
        fallbacks: What the runtime did on its own.
        failed: Why the engine could not be loaded or run to the end; every figure but its size is then absent.
    """

    measurements: tuple[Measurement, ...]
    blocks_ms: np.ndarray
    runtime_version: str = ""
    fallbacks: tuple[str, ...] = ()
    failed: str = ""

    @property
    def latency_ms(self) -> tuple[float, ...]:
        """The raw samples, in the order they were taken."""
        return tuple(float(x) for x in self.blocks_ms.ravel())

    def figure(self, name: str) -> Measurement:
        """The first measurement of that name."""
        return next(m for m in self.measurements if m.name == name)


def measure_latency(
    device: Host,
    engines: Mapping[str, Engine],
    *,
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
    progress: ProgressListener = ignore_progress,
    seed: int = 0,
    cold_starts: int = 3,
) -> dict[str, EngineFigures]:
    """Measure engines against each other.

    Every engine has a fresh process; all are alive together, and blocks of timed inferences are taken in rounds, in
    an order drawn anew for each. Warm-up is never timed. An engine that fails is told of in its own figures and does
    not end the others' measurement.

    Args:
        engines: By the id of their candidate; every one is built.
        sample: Real samples, one array per input name. A batch larger than the sample repeats it.
        batch: What latency, cold start and memory are measured at; throughput is at ``config.batch_sizes``.
        seed: Of the order and of the bootstrap.
        cold_starts: Fresh processes per engine, at least 1.

    Raises:
        DataError: There is no sample.
    """
    if not sample or any(array.ndim == 0 or len(array) == 0 for array in sample.values()):
        raise DataError("There is no sample to measure with.", fix="Give at least one real sample per input.")
    rounds = max(_FEWEST_ROUNDS, math.ceil(config.latency_samples / config.block))
    run = _Run(
        device=device,
        engines=engines,
        config=config,
        batch=batch,
        seed=seed,
        progress=progress,
        steps=len(engines) * cold_starts + rounds + len(config.batch_sizes),
    )
    with tempfile.TemporaryDirectory(prefix="edgeopt-measure-") as directory:
        files = SampleFiles(Path(directory), sample)
        with ExitStack() as stack:
            running = run.start_all(stack, files)
            blocks = run.time(running, rounds)
            rates = run.throughputs({name: running[name] for name in blocks}, files)
        # Only now, alone on the machine: the processes of the timing have ended.
        for _ in range(cold_starts - 1):
            for name in blocks:
                run.start_again(name, files)
    run.finish()
    return {name: run.figures(name, running, blocks, rates) for name in engines}


def latency_ratio(candidate: EngineFigures, reference: EngineFigures, *, seed: int = 0) -> Measurement:
    """The candidate's median latency over the reference's: below 1 is faster.

    Both come from one ``measure_latency`` run, so their rounds can be paired.
    """
    for figure in (candidate, reference):
        if figure.failed:
            return not_measured("latency_ratio", "1", figure.failed)
    value, interval = statistics.ratio_of_medians(candidate.blocks_ms, reference.blocks_ms, seed=seed)
    p50 = candidate.figure("latency_p50_ms")
    return Measurement(
        name="latency_ratio",
        value=value,
        unit="1",
        interval=interval,
        n=candidate.blocks_ms.size,
        device=p50.device,
        conditions={key: text for key, text in p50.conditions.items() if key != "preemptions"},
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """One call of ``measure_latency``: what stays the same, and what is collected on the way."""

    device: Host
    engines: Mapping[str, Engine]
    config: Measure
    batch: int
    seed: int
    progress: ProgressListener
    steps: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    starts_ms: dict[str, list[float]] = field(default_factory=dict)
    imports_ms: dict[str, list[float]] = field(default_factory=dict)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def tick(self) -> None:
        self.done += 1
        self.progress(Progress(stage="measure", done=self.done, total=self.steps))

    def finish(self) -> None:
        """Say that it is over, also where engines that failed left steps out."""
        if self.done < self.steps:
            self.progress(Progress(stage="measure", done=self.steps, total=self.steps))

    def start_all(self, stack: ExitStack, files: SampleFiles) -> dict[str, Running]:
        running = {}
        for name in self.engines:
            with self._telling(name):
                running[name] = self._start(stack, name, files, self.config.warmup)
            self.tick()
        return running

    def start_again(self, name: str, files: SampleFiles) -> None:
        """One more cold start."""
        with self._telling(name), ExitStack() as stack:
            self._start(stack, name, files, 0)
        self.tick()

    def time(self, running: Mapping[str, Running], rounds: int) -> dict[str, np.ndarray]:
        size = math.ceil(self.config.latency_samples / rounds)
        blocks, lost = take_turns(running, rounds=rounds, size=size, rng=self.rng, tick=self.tick)
        self.failed.update({name: str(error) for name, error in lost.items()})
        return blocks

    def throughputs(self, running: dict[str, Running], files: SampleFiles) -> dict[str, list[Measurement]]:
        """Samples per second at each batch size; a batch that an engine cannot take is told of, not replaced."""
        rates: dict[str, list[Measurement]] = {name: [] for name in running}
        alive = dict(running)
        for batch in self.config.batch_sizes:
            refused: dict[str, DeviceError] = {}
            slowest_ms = 0.0
            for name, one in alive.items():
                try:
                    one.session.request("inputs", inputs=one.session.put(files.of(batch)), batch=batch)
                    one.session.request("warm", n=1)
                    slowest_ms = max(slowest_ms, one.session.request("time", n=1)["latency_ns"][0] / 1e6)
                except DeviceError as error:
                    refused[name] = error
            taking = {name: one for name, one in alive.items() if name not in refused}
            size = int(_THROUGHPUT_BUDGET_MS / _FEWEST_ROUNDS / slowest_ms) if slowest_ms else 0
            size = max(2, min(self.config.block, size))
            blocks, lost = take_turns(taking, rounds=_FEWEST_ROUNDS, size=size, rng=self.rng, tick=lambda: None)
            for name, one in running.items():
                conditions = {**one.conditions, "batch": batch, "block": size, **_beside(name, taking)}
                if name in blocks:
                    rates[name].append(figures.throughput(blocks[name], batch, conditions, self.device.name))
                else:
                    reason = str((refused | lost).get(name, "the engine's process had died at another batch size"))
                    rates[name].append(not_measured("throughput_per_s", "1/s", reason, batch=batch))
            # An answered error leaves the process alive; without a kind, the process itself is gone.
            alive = {name: one for name, one in alive.items() if name not in lost}
            alive = {name: one for name, one in alive.items() if name not in refused or refused[name].kind}
            self.tick()
        return rates

    def figures(
        self,
        name: str,
        running: Mapping[str, Running],
        blocks: Mapping[str, np.ndarray],
        rates: Mapping[str, list[Measurement]],
    ) -> EngineFigures:
        size = figures.size(self.engines[name])
        if name in self.failed:
            absent = [not_measured(missing, unit, self.failed[name]) for missing, unit in figures.FIGURES.items()]
            return EngineFigures(measurements=(*absent, size), blocks_ms=np.empty((0, 0)), failed=self.failed[name])
        one, device = running[name], self.device.name
        at_batch: dict[str, Condition] = {**one.conditions, "batch": self.batch}
        timing = {
            **at_batch,
            "warmup": self.config.warmup,
            "block": blocks[name].shape[1],
            **_beside(name, blocks),
            "preemptions": one.preemptions,
        }
        return EngineFigures(
            measurements=(
                *figures.latency(blocks[name], timing, device, self.seed),
                *rates[name],
                figures.cold_start(self.starts_ms[name], self.imports_ms[name], at_batch, device),
                figures.memory(one.memory, at_batch, device),
                size,
            ),
            blocks_ms=blocks[name],
            runtime_version=one.runtime_version,
            fallbacks=one.fallbacks,
        )

    def _start(self, stack: ExitStack, name: str, files: SampleFiles, warmup: int) -> Running:
        one = start(
            stack,
            self.device,
            self.engines[name],
            files,
            threads=self.config.threads,
            batch=self.batch,
            warmup=warmup,
        )
        self.starts_ms.setdefault(name, []).append(one.cold_start_ms)
        self.imports_ms.setdefault(name, []).append(one.import_ms)
        return one

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Note a failure with the engine it belongs to, and go on."""
        try:
            yield
        except DeviceError as error:
            self.failed[name] = str(error)


def _beside(name: str, engines: Mapping[str, object]) -> dict[str, Condition]:
    return {"interleaved_with": ", ".join(other for other in engines if other != name) or "nothing"}
