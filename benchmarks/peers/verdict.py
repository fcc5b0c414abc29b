"""Whether edgeopt is at least as fast as the best peer at equal or better accuracy."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import quantile_test

from edgeopt.core.measurement import Interval
from edgeopt.measure import statistics
from edgeopt.measure.latency import latency_ratio
from peers.evaluation import Row

__all__ = ["RULE", "Rematch", "Verdict", "judge", "pair"]

RULE = (
    "Equal or better accuracy: not below the other's on the same test samples by more than chance explains (95 %, "
    "paired), and agreement with FP32 at most 1 pp lower. The best peer is the fastest whose accuracy is equal to or "
    "better than edgeopt's. It was chosen as the fastest of many, by luck too where they run the same kernels, and one process "
    "differs from the next: so both are timed again, in pairs of fresh processes, and the ratio is the median of these "
    "pairs' ratios, its interval distribution-free (95 %). `even`: it holds 1."
)
_AGREEMENT_PP = 1.0
_ENDS = (0.0, math.inf)  # of an interval from too few pairs


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``met``, ``even``, ``missed`` or ``not compared``, and the sentence that says why."""

    status: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Rematch:
    """edgeopt and the best peer, timed again.

    Attributes:
        ratios: edgeopt's median latency over the peer's, of each pair of processes that ran in turns.
    """

    own: str
    peer: str
    ratios: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median of the pairs."""
        return plain.median(self.ratios)

    @property
    def interval(self) -> Interval:
        """Of that median, from the order of the ratios alone."""
        found = quantile_test(self.ratios, q=1.0, p=0.5).confidence_interval(0.95)
        low, high = (fallback if math.isnan(end) else float(end) for end, fallback in zip(found, _ENDS, strict=True))
        return Interval(low=low, high=high, level=0.95, method="order statistics")


def judge(rows: Sequence[Row], runtime: str, rematches: Mapping[str, Rematch] | None = None) -> Verdict:
    """Compare edgeopt with the best peer on one runtime; of several recipes the one with the best outcome counts.

    Args:
        rematches: By runtime; where there is none the first timing decides.
    """
    own, peers = _sides(rows, runtime)
    if not peers:
        return Verdict(status="not compared", text="no peer ran")
    if not own:
        return Verdict(status="missed", text="nothing of edgeopt's ran")
    rematch = (rematches or {}).get(runtime)
    order = ("met", "even", "missed")
    verdicts = [_judge(row, peers, rematch) for row in own if rematch is None or rematch.own == row.entry.id]
    return min(verdicts, key=lambda verdict: order.index(verdict.status))


def pair(rows: Sequence[Row], runtime: str) -> tuple[Row, Row] | None:
    """The row of edgeopt with the best outcome of the first timing, and the peer to time it against again; None: no such."""
    own, peers = _sides(rows, runtime)
    pairs = [(row, best) for row in own if (best := _best(row, peers)) is not None]
    return min(pairs, key=lambda two: (two[0].latency_ms or 0.0) / (two[1].latency_ms or math.inf), default=None)


def _sides(rows: Sequence[Row], runtime: str) -> tuple[list[Row], list[Row]]:
    """The rows of edgeopt that ran, and the peers'."""
    here = [row for row in rows if row.entry.runtime == runtime and row.right is not None and row.latency_ms]
    return [row for row in here if row.entry.own], [row for row in here if row.entry.artifact is not None]


def _best(own: Row, peers: Sequence[Row]) -> Row | None:
    """The fastest peer of equal or better accuracy."""
    contenders = [peer for peer in peers if not _worse(peer, own)]
    return min(contenders, key=lambda peer: peer.latency_ms or math.inf, default=None)


def _judge(own: Row, peers: Sequence[Row], rematch: Rematch | None) -> Verdict:
    best = _best(own, peers)
    if best is None:
        fastest = min(peers, key=lambda peer: peer.latency_ms or math.inf)
        text = f"{own.entry.tool} is more accurate than every peer (the fastest, {fastest.entry.tool}, included)"
        return Verdict(status="met", text=text)
    if rematch is not None:
        value, interval, counted = rematch.value, rematch.interval, f"n={len(rematch.ratios)} pairs of processes"
    else:
        ratio = latency_ratio(own.figures, best.figures)  # type: ignore[arg-type]
        value, interval, counted = ratio.value or math.inf, ratio.interval, f"n={ratio.n}"
    low, high = (interval.low, interval.high) if interval else (value, value)
    bounds = f" [{low:.2f}, {high:.2f}]" if interval else ""
    text = f"{own.entry.tool} {own.latency_ms:.3f} ms, best peer {best.entry.tool} {best.latency_ms:.3f} ms; ratio "
    text += f"{value:.3f}{bounds} ({counted})"
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
