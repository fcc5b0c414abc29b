"""Whether edgeopt is at least as fast as the best peer at equal or better accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.measure import statistics
from edgeopt.measure.latency import latency_ratio
from peers.evaluation import Row

__all__ = ["RULE", "Verdict", "judge"]

RULE = (
    "Equal or better accuracy: not below the other's on the same test samples by more than chance explains (95 %, "
    "paired), and agreement with FP32 at most 1 pp lower. The best peer is the fastest whose accuracy is equal to or "
    "better than edgeopt's. `even`: the interval of the ratio holds 1."
)
_AGREEMENT_PP = 1.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``met``, ``even``, ``missed`` or ``not compared``, and the sentence that says why."""

    status: str
    text: str


def judge(rows: Sequence[Row], runtime: str) -> Verdict:
    """Compare edgeopt with the best peer on one runtime; of several recipes the one with the best outcome counts."""
    here = [row for row in rows if row.entry.runtime == runtime and row.right is not None and row.latency_ms]
    own = [row for row in here if row.entry.own]
    peers = [row for row in here if row.entry.artifact is not None]
    if not peers:
        return Verdict(status="not compared", text="no peer ran")
    if not own:
        return Verdict(status="missed", text="nothing of edgeopt's ran")
    order = ("met", "even", "missed")
    return min((_judge(row, peers) for row in own), key=lambda verdict: order.index(verdict.status))


def _judge(own: Row, peers: Sequence[Row]) -> Verdict:
    contenders = [peer for peer in peers if not _worse(peer, own)]
    if not contenders:
        fastest = min(peers, key=lambda peer: peer.latency_ms or math.inf)
        text = f"{own.entry.tool} is more accurate than every peer (the fastest, {fastest.entry.tool}, included)"
        return Verdict(status="met", text=text)
    best = min(contenders, key=lambda peer: peer.latency_ms or math.inf)
    ratio = latency_ratio(own.figures, best.figures)  # type: ignore[arg-type]
    interval = ratio.interval
    value = ratio.value or math.inf
    low, high = (interval.low, interval.high) if interval else (value, value)
    bounds = f" [{low:.2f}, {high:.2f}]" if interval else ""
    text = f"{own.entry.tool} {own.latency_ms:.3f} ms / best peer {best.entry.tool} {best.latency_ms:.3f} ms = "
    text += f"{value:.2f}{bounds} (n={ratio.n})"
    if _worse(own, best):
        return Verdict(status="missed", text=f"{text}, but edgeopt is less accurate: {_difference(own, best)}")
    text = f"{text}; {_difference(own, best)}"
    if low <= 1.0 <= high:
        return Verdict(status="even", text=text)
    return Verdict(status="met" if value <= 1.0 else "missed", text=text)


def _worse(one: Row, other: Row) -> bool:
    """Whether ``one`` is less accurate than ``other``."""
    only_one, only_other, count = _discordant(one, other)
    below = statistics.paired_difference(only_one, only_other, count).high < 0
    return below or (one.agreement_pct or 0.0) < (other.agreement_pct or 0.0) - _AGREEMENT_PP


def _difference(own: Row, best: Row) -> str:
    only_own, only_best, count = _discordant(own, best)
    gain = 100 * (only_own - only_best) / count
    agreement = (own.agreement_pct or 0.0) - (best.agreement_pct or 0.0)
    return f"accuracy {gain:+.2f} pp, agreement {agreement:+.2f} pp (n={count})"


def _discordant(one: Row, other: Row) -> tuple[int, int, int]:
    first, second = np.asarray(one.right), np.asarray(other.right)
    return int((first & ~second).sum()), int((~first & second).sum()), len(first)
