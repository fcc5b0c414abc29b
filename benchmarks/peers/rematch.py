"""edgeopt and the best peer of each runtime once more: chosen by one timing, compared by another."""

from __future__ import annotations

from collections.abc import Sequence

from peers.engines import RUNTIMES
from peers.evaluation import Row, time_engines
from peers.nets import Net
from peers.verdict import Rematch, pair

__all__ = ["play_again"]


def play_again(net: Net, rows: Sequence[Row], samples: int, pairs: int) -> dict[str, Rematch]:
    """Time both engines of each runtime in ``pairs`` pairs of fresh processes, all in turns: one thread, batch 1."""
    chosen = {runtime: found for runtime in RUNTIMES if (found := pair(rows, runtime)) is not None}
    engines = {row.entry.id: row.entry.engine for two in chosen.values() for row in two if row.entry.engine is not None}
    ratios: dict[str, list[float]] = {runtime: [] for runtime in chosen}
    for made in time_engines(net, engines, samples, pairs):
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
