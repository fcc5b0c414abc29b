"""How an engine is asked, in MLPerf LoadGen's words: multi-stream, offline, server.

MLPerf Inference Rules, "Scenarios": single-stream sends the next query as soon as the one before is answered (that is
``measure_latency``'s own timing); multi-stream sends queries of N samples, one after the other, and is told by p99 (here
as there) of the time per query; offline has all samples at once, and is told by samples per second; server sends queries
of one sample at Poisson arrivals, and is told by the rate it holds within a bound on p99.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.measure import statistics
from edgeopt.measure.processes import Running, SampleFiles
from edgeopt.recipes.schema import Measure

__all__ = ["further_scenarios", "poisson_schedule"]

_BLOCKS = 20
_FEWEST_QUERIES, _MOST_QUERIES = 400, 20_000
_QUARTER = 0.25
_STEPS = 7  # bisections of a rate: from a range of 1 : 20 to 2.4 %
_CONFIRMATIONS, _BACK = 8, 0.85  # each time that a rate fails on other arrivals, it is lowered to so much
_SLOWEST, _FASTEST = 0.05, 1.0  # of what the engine can do one after another
_NAMES = {"multi-stream": "multi_stream_p99_ms", "offline": "offline_per_s", "server": "server_p99_ms"}


def further_scenarios(
    one: Running,
    files: SampleFiles,
    *,
    config: Measure,
    batch: int,
    service_ms: float,
    rates: list[Measurement],
    device: str,
    seed: int,
) -> list[Measurement]:
    """Every scenario of ``config`` but single-stream, on an engine that is alive and warm.

    Args:
        batch: What the engine was measured at; server sends so many samples per query.
        service_ms: Its mean latency at ``batch``.
        rates: Its throughput over the batch sizes.
        seed: Of the arrivals and of the bootstrap.

    Returns:
        Figures; of a scenario that the engine cannot run, one that says why.
    """
    found = []
    asked = _Asked(one=one, files=files, config=config, batch=batch, service_ms=service_ms, device=device, seed=seed)
    ways: dict[str, Callable[[], list[Measurement]]] = {
        "multi-stream": asked.multi_stream,
        "offline": lambda: [_best(rates)],
        "server": asked.server,
    }
    for scenario in dict.fromkeys(config.scenarios):
        if scenario not in ways:
            continue
        try:
            found += ways[scenario]()
        except DeviceError as error:
            unit = "1/s" if scenario == "offline" else "ms"
            found.append(not_measured(_NAMES[scenario], unit, str(error), scenario=scenario))
    return found


def poisson_schedule(qps: float, queries: int, seed: int) -> list[int]:
    """Arrivals of a Poisson process, ns from the start on, ascending. The same seed gives the same pattern at any rate."""
    gaps = np.random.default_rng(seed).exponential(1.0, queries)
    schedule: list[int] = np.cumsum(gaps / qps * 1e9).astype(np.int64).tolist()
    return schedule


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One engine, and how it is to be asked."""

    one: Running
    files: SampleFiles
    config: Measure
    batch: int
    service_ms: float
    device: str
    seed: int

    def multi_stream(self) -> list[Measurement]:
        """Queries of N samples: one inference at batch N; N inferences where the engine's batch is fixed."""
        samples, session = self.config.samples_per_query, self.one.session
        try:
            self._at(samples)
            per, taken_at, how = 1, samples, f"one inference at batch {samples}"
        except DeviceError as error:
            if error.kind != "BatchError":
                raise
            self._at(self.batch)
            per, taken_at = -(-samples // self.batch), self.batch
            how = f"{per} inferences at batch {self.batch}"
        session.request("warm", n=max(1, self.config.warmup // per))
        size = -(-self.config.latency_samples // _BLOCKS)
        taken = [session.request("time", n=size, per=per)["latency_ns"] for _ in range(_BLOCKS)]
        blocks = np.array(taken, dtype=np.float64) / 1e6
        more: dict[str, Condition] = {
            "batch": taken_at,
            "scenario": "multi-stream",
            "samples_per_query": samples,
            "query": how,
        }
        return self._quantiles("multi_stream", blocks, more)

    def server(self) -> list[Measurement]:
        """p99 under Poisson arrivals; the highest rate that holds a bound where one is given and no rate is."""
        self._at(self.batch)
        self.one.session.request("warm", n=max(1, self.config.warmup))
        capacity = 1e3 / self.service_ms
        if self.config.server_qps is not None:
            return self._served(self.config.server_qps, "as asked")
        if self.config.server_p99_ms is None:
            return self._served(capacity / 2, "half of what one inference after another gives")
        return self._search(capacity, self.config.server_p99_ms)

    def _search(self, capacity: float, bound_ms: float) -> list[Measurement]:
        """Bisect the rate, always with the same pattern of arrivals; then confirm, for longer and with another."""
        holds, fails = 0.0, 0.0
        low, high = _SLOWEST * capacity, _FASTEST * capacity
        rate = low
        for _ in range(_STEPS + 1):
            latency = self._arrive(rate, self.seed, self.config.server_seconds / 4)[0]
            if float(np.quantile(latency, 0.99)) <= bound_ms:
                holds = low = rate
            else:
                fails = high = rate
            if not holds:
                reason = f"p99 exceeds {bound_ms:g} ms already at {rate:.3g} queries per second"
                return [
                    not_measured("server_qps", "1/s", f"{reason}, a twentieth of what it can do", scenario="server")
                ]
            rate = float(np.sqrt(low * high))
        for trial in range(_CONFIRMATIONS):
            confirmed = self._served(holds, "the highest that held the bound", seed=self.seed + 1 + trial)
            p99 = confirmed[-1]
            if p99.value is not None and p99.value <= bound_ms:
                break
            fails, holds = holds, holds * _BACK
        else:
            reason = f"no rate from {fails:.3g} queries per second down held a p99 of {bound_ms:g} ms twice"
            return [not_measured("server_qps", "1/s", reason, scenario="server"), *confirmed]
        return [
            Measurement(
                name="server_qps",
                value=holds,
                unit="1/s",
                interval=Interval(low=holds, high=fails or holds, method="search: the last to hold, the first not to"),
                n=p99.n,
                device=self.device,
                conditions={**p99.conditions, "p99_bound_ms": bound_ms, "p99_confirmed_ms": round(p99.value, 4)},
            ),
            *confirmed,
        ]

    def _served(self, qps: float, how: str, *, seed: int | None = None) -> list[Measurement]:
        latency, service, seconds = self._arrive(qps, self.seed if seed is None else seed, self.config.server_seconds)
        size = len(latency) // _BLOCKS
        blocks = latency[: size * _BLOCKS].reshape(_BLOCKS, size)
        more: dict[str, Condition] = {
            "scenario": "server",
            "qps": round(qps, 3),
            "rate": how,
            "arrivals": "Poisson; latency from the scheduled arrival",
            "qps_reached": round(len(latency) / seconds, 3),
            "utilisation": round(float(service.sum()) / 1e3 / seconds, 3),
        }
        quarter = int(len(latency) * _QUARTER)
        if float(np.median(latency[-quarter:])) > 3 * float(np.median(latency[:quarter])):
            more["backlog"] = "growing: the engine does not keep up with this rate"
        return self._quantiles("server", blocks, more)

    def _arrive(self, qps: float, seed: int, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Latency and service time in ms of each query, and the seconds that it all took."""
        queries = int(np.clip(qps * seconds, _FEWEST_QUERIES, _MOST_QUERIES))
        reply = self.one.session.request("serve", schedule_ns=poisson_schedule(qps, queries, seed))
        latency, service = (np.array(reply[key], dtype=np.float64) / 1e6 for key in ("latency_ns", "service_ns"))
        return latency, service, float(reply["seconds"])

    def _at(self, batch: int) -> None:
        session = self.one.session
        session.request("inputs", inputs=session.put(self.files.of(batch)), batch=batch)

    def _quantiles(self, stem: str, blocks: np.ndarray, more: Mapping[str, Condition]) -> list[Measurement]:
        qs = (0.5, 0.9, 0.99)
        intervals = statistics.block_quantiles(blocks, qs, seed=self.seed)
        return [
            Measurement(
                name=f"{stem}_p{round(100 * q)}_ms",
                value=float(np.quantile(blocks, q)),
                unit="ms",
                interval=interval,
                n=blocks.size,
                device=self.device,
                conditions={**self.one.conditions, "batch": self.batch, **more},
            )
            for q, interval in zip(qs, intervals, strict=True)
        ]


def _best(rates: list[Measurement]) -> Measurement:
    """Offline's figure: the throughput at the best batch of the sweep."""
    measured = [rate for rate in rates if rate.value is not None]
    if not measured:
        reason = rates[0].reason if rates else None
        return not_measured("offline_per_s", "1/s", reason or "no batch size was asked for", scenario="offline")
    best = max(measured, key=lambda rate: rate.value or 0.0)
    swept = ", ".join(str(rate.conditions["batch"]) for rate in measured)
    return Measurement(
        name="offline_per_s",
        value=best.value,
        unit="1/s",
        interval=best.interval,
        n=best.n,
        device=best.device,
        conditions={**best.conditions, "best_of_batches": swept},
    )
