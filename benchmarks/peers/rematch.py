"""edgeopt and the best peer of each runtime once more: chosen by one timing, compared by another."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.devices.registry import open_device
from edgeopt.measure.latency import measure_latency
from edgeopt.recipes.schema import Measure
from peers.engines import RUNTIMES
from peers.evaluation import Row
from peers.nets import Net
from peers.verdict import Rematch, pair

__all__ = ["play_again"]


def play_again(net: Net, rows: Sequence[Row], samples: int, pairs: int) -> dict[str, Rematch]:
    """Time both engines of each runtime in ``pairs`` pairs of fresh processes, all in turns: one thread, batch 1."""
    chosen = {runtime: found for runtime in RUNTIMES if (found := pair(rows, runtime)) is not None}
    engines = {row.entry.id: row.entry.engine for two in chosen.values() for row in two if row.entry.engine is not None}
    first = next(net.test.batches(8, 8))
    ratios: dict[str, list[float]] = {runtime: [] for runtime in chosen}
    for turn in range(pairs):
        made = measure_latency(
            open_device("local"),
            engines,
            sample=dict(zip(net.input_names, first.inputs, strict=True)),
            config=Measure(batch_sizes=(), threads=1, latency_samples=samples),
            batch=1,
            seed=turn,
            cold_starts=1,
        )
        for runtime, (own, peer) in chosen.items():
            times = [made[row.entry.id] for row in (own, peer)]
            p50 = [None if one.failed else one.figure("latency_p50_ms").value for one in times]
            if p50[0] and p50[1]:
                ratios[runtime].append(p50[0] / p50[1])
    return {
        runtime: Rematch(own=own.entry.id, peer=peer.entry.id, ratios=tuple(ratios[runtime]))
        for runtime, (own, peer) in chosen.items()
        if ratios[runtime]
    }
