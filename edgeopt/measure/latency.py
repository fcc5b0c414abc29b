"""Engines side by side: latency, throughput, cold start, memory and size, each engine in a process of its own."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeopt.core.device import Host, demand_timing
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError, DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.core.measurement import Condition, Measurement, not_measured
from edgeopt.measure import figures, statistics
from edgeopt.measure.conditions import machine_conditions, other_load_pct, state_of
from edgeopt.measure.processes import Running, SampleFiles, start, take_turns
from edgeopt.measure.scenarios import further_scenarios
from edgeopt.recipes.schema import Measure

__all__ = ["EngineFigures", "MoreRounds", "latency_p99_ratio", "latency_ratio", "measure_latency", "paired_ratio"]

MoreRounds = Callable[[Mapping[str, np.ndarray]], int]

_FEWEST_ROUNDS = 5
_ENERGY_S = 2.0  # RAPL counts every millisecond, a power monitor averages over about 50
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
        warnings: What a reader must know of the figures, as sentences: a warm-up that never became steady, say.
        resident_mib: The process's memory over the timing: seconds since it began, MiB. Empty where unreadable.
    """

    measurements: tuple[Measurement, ...]
    blocks_ms: np.ndarray
    runtime_version: str = ""
    fallbacks: tuple[str, ...] = ()
    failed: str = ""
    warnings: tuple[str, ...] = ()
    resident_mib: tuple[tuple[float, float], ...] = ()

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
    more: MoreRounds | None = None,
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
        more: Asked with the blocks so far, by engine, how many further rounds to take; 0 ends it.

    Raises:
        DataError: There is no sample.
        DeviceError: Times measured on the device would mean nothing.
    """
    demand_timing(device)
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
            blocks = run.time(running, rounds, more)
            alive = {name: running[name] for name in blocks}
            rates = run.throughputs(alive, files)
            further = run.further(alive, files, blocks, rates)
        # Only now, alone on the machine: the processes of the timing have ended.
        for _ in range(cold_starts - 1):
            for name in blocks:
                run.start_again(name, files)
    run.finish()
    return {name: run.figures(name, running, blocks, rates, further) for name in engines}


def latency_ratio(candidate: EngineFigures, reference: EngineFigures, *, seed: int = 0) -> Measurement:
    """The candidate's median latency over the reference's: below 1 is faster.

    Both come from one ``measure_latency`` run, so their rounds can be paired.
    """
    return paired_ratio("latency_ratio", candidate, reference, seed=seed)


def latency_p99_ratio(candidate: EngineFigures, reference: EngineFigures, *, seed: int = 0) -> Measurement:
    """The candidate's p99 latency over the reference's, likewise; not measured where too few samples show a p99."""
    return paired_ratio("latency_p99_ratio", candidate, reference, q=0.99, seed=seed)


def paired_ratio(
    name: str, candidate: EngineFigures, reference: EngineFigures, *, q: float = 0.5, seed: int = 0
) -> Measurement:
    """The ratio of quantile ``q`` (0.5 or 0.99) of two engines that were timed in turns, under that name."""
    for figure in (candidate, reference):
        if figure.failed:
            return not_measured(name, "1", figure.failed)
    ours, theirs = candidate.blocks_ms, reference.blocks_ms
    if q == 0.5:
        value, interval = statistics.ratio_of_medians(ours, theirs, seed=seed)
    elif len(ours) < statistics.FEWEST_ROUNDS or ours.size < statistics.FEWEST_FOR_P99:
        reason = f"{ours.size} samples in {len(ours)} rounds do not show a p99; it takes {statistics.FEWEST_FOR_P99}"
        return not_measured(name, "1", f"{reason} in {statistics.FEWEST_ROUNDS} rounds or more")
    else:
        value, interval = statistics.ratio_of_quantiles(ours, theirs, q, seed=seed)
    p50 = candidate.figure("latency_p50_ms")
    return Measurement(
        name=name,
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
    loads_ms: dict[str, list[float]] = field(default_factory=dict)
    other_load: float | None = None
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
                running[name] = self._start(stack, name, files, warm=True)
            self.tick()
        return running

    def start_again(self, name: str, files: SampleFiles) -> None:
        """One more cold start."""
        with self._telling(name), ExitStack() as stack:
            self._start(stack, name, files, warm=False)
        self.tick()

    def time(
        self, running: Mapping[str, Running], rounds: int, more: MoreRounds | None = None
    ) -> dict[str, np.ndarray]:
        size = math.ceil(self.config.latency_samples / rounds)
        blocks, lost = take_turns(running, rounds=rounds, size=size, rng=self.rng, tick=self.tick)
        while more is not None and blocks and not lost and (further := more(blocks)):
            self.steps += further
            added, lost = take_turns(running, rounds=further, size=size, rng=self.rng, tick=self.tick)
            blocks = {name: np.concatenate([blocks[name], taken]) for name, taken in added.items()}
        self.failed.update({name: str(error) for name, error in lost.items()})
        for name in blocks:
            running[name].after = state_of(running[name].session)
        self.other_load = other_load_pct((running[name].before, running[name].after) for name in blocks)
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
                conditions = {
                    **one.conditions,
                    "scenario": "offline",
                    "batch": batch,
                    "block": size,
                    **_beside(name, taking),
                }
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

    def further(
        self,
        running: Mapping[str, Running],
        files: SampleFiles,
        blocks: Mapping[str, np.ndarray],
        rates: Mapping[str, list[Measurement]],
    ) -> dict[str, list[Measurement]]:
        """The other scenarios and energy: one engine after the other, alone."""
        found = {}
        for name, one in running.items():
            found[name] = further_scenarios(
                one,
                files,
                config=self.config,
                batch=self.batch,
                service_ms=float(blocks[name].mean()),
                rates=rates[name],
                device=self.device.name,
                seed=self.seed,
            )
            found[name].append(self.energy(one, files))
        return found

    def energy(self, one: Running, files: SampleFiles) -> Measurement:
        """Energy of an inference, where the device has a counter."""
        try:
            one.session.request("inputs", inputs=one.session.put(files.of(self.batch)), batch=self.batch)
            reply = one.session.request("energy", seconds=_ENERGY_S)
        except DeviceError as error:
            reply = {"unavailable": str(error)}
        return figures.energy(reply, {**one.conditions, "batch": self.batch}, self.device.name)

    def figures(
        self,
        name: str,
        running: Mapping[str, Running],
        blocks: Mapping[str, np.ndarray],
        rates: Mapping[str, list[Measurement]],
        further: Mapping[str, list[Measurement]],
    ) -> EngineFigures:
        size = figures.size(self.engines[name])
        if name in self.failed:
            absent = [not_measured(missing, unit, self.failed[name]) for missing, unit in figures.FIGURES.items()]
            return EngineFigures(measurements=(*absent, size), blocks_ms=np.empty((0, 0)), failed=self.failed[name])
        one, device = running[name], self.device.name
        at_batch: dict[str, Condition] = {
            **one.conditions,
            **machine_conditions(one.before, one.after),
            **({} if self.other_load is None else {"other_load_pct": self.other_load}),
            "batch": self.batch,
        }
        timing = {
            **at_batch,
            "scenario": "single-stream",
            **one.warmed,
            "block": blocks[name].shape[1],
            **_beside(name, blocks),
            "preemptions": one.preemptions,
        }
        return EngineFigures(
            measurements=(
                *figures.latency(blocks[name], timing, device, self.seed),
                *rates[name],
                *further[name],
                figures.cold_start(self.starts_ms[name], self.imports_ms[name], at_batch, device),
                figures.load(self.loads_ms[name], at_batch, device),
                figures.memory(one.memory, at_batch, device),
                size,
            ),
            blocks_ms=blocks[name],
            runtime_version=one.runtime_version,
            fallbacks=one.fallbacks,
            warnings=_warnings(one),
            resident_mib=tuple((seconds - one.resident[0][0], mib) for seconds, mib in one.resident),
        )

    def _start(self, stack: ExitStack, name: str, files: SampleFiles, *, warm: bool) -> Running:
        one = start(stack, self.device, self.engines[name], files, config=self.config, batch=self.batch, warm=warm)
        self.starts_ms.setdefault(name, []).append(one.cold_start_ms)
        self.imports_ms.setdefault(name, []).append(one.import_ms)
        self.loads_ms.setdefault(name, []).append(one.load_ms)
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


def _warnings(one: Running) -> tuple[str, ...]:
    if one.warmed.get("warmup_converged") is False:
        return (f"The latency was not steady yet after {one.warmed['warmup']} inferences of warm-up.",)
    return ()
