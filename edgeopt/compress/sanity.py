"""Whether the calibration data can be what the model will see: each doubt is a warning with its evidence.

The tuning split is what calibration is compared with: both should be drawn from the same data. A difference counts where
it is large *and* beyond five standard errors, so that few samples raise no alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter
from torch.utils import _pytree as pytree

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.observers import ActivationObserver
from edgeopt.compress.prepare import Session
from edgeopt.core.events import Event
from edgeopt.data.contract import Split
from edgeopt.recipes.schema import Quantize

__all__ = ["data_warnings", "observer_warnings"]

_SAMPLES = 64  # of each split: enough for five standard errors to be small, and cheap
_ERRORS = 5.0
_FEW = 32  # samples: one in 33 beyond the range, 3 %
_SHIFT, _RATIO = 0.5, 1.5  # of a channel's mean, in standard deviations; of its standard deviation
_CONFIDENCE = 0.2
_ENTROPY_VALUES = 10 * 2048  # ten per bin of the histogram whose divergence is taken


@dataclass(frozen=True, slots=True)
class _Channels:
    """One input over some samples; each array float64 [N, C]: per sample and channel, mean and mean of squares."""

    means: np.ndarray
    squares: np.ndarray
    low: float
    high: float
    constant: bool

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.means.mean(0))

    @property
    def deviation(self) -> np.ndarray:
        return np.asarray(np.sqrt(np.maximum(self.squares.mean(0) - self.mean**2, 0.0)))


def data_warnings(session: Session) -> tuple[Event, ...]:
    """What is odd about the calibration split: few or constant samples, other statistics or outputs than the tuning split.

    Args:
        session: Its graph is run in float on at most 64 samples of each split; nothing is changed.
    """
    tune = session.data.splits.get("tune")
    with np.errstate(all="ignore"):  # NaN in the data: calibration names the sample
        found = [*_too_few(session.feed.samples), *_input_doubts(session.feed, tune)]
        if tune is not None and session.data.task == "classification":
            found += _output_doubts(session.graph, session.feed, tune)
    return tuple(Event(kind="warning", stage="calibrate", message=message) for message in found)


def observer_warnings(prepared: GraphModule, config: Quantize) -> tuple[Event, ...]:
    """Whether each activation gave its observer as many values as reading its range takes.

    ``percentile`` cuts (100 − p)/2 per cent off each end: with fewer than 200/(100 − p) values that is less than one
    value. ``entropy`` compares 2,048 bins, of ten values each at least.
    """
    if config.observer == "percentile" and config.percentile < 100:
        need, why = math.ceil(200 / (100 - config.percentile)), f"to cut {config.percentile:g} % at one value an end"
    elif config.observer == "entropy":
        need, why = _ENTROPY_VALUES, "ten for each of 2,048 bins"
    else:
        return ()
    totals = [m.histogram.total for m in prepared.modules() if isinstance(m, ActivationObserver)]
    short = [total for total in totals if total < need]
    if not short:
        return ()
    message = (
        f"The observer {config.observer!r} needs {need:,} values of each activation ({why}); {len(short)} of {len(totals)} "
        f"gave fewer, the least {min(short):,}: give more calibration samples, or use the observer 'histogram'."
    )
    return (Event(kind="warning", stage="calibrate", message=message),)


def _too_few(samples: int) -> Iterator[str]:
    """Of values drawn alike, the next exceeds the largest of n with probability 1 / (n + 1)."""
    if samples < _FEW:
        yield (
            f"There are {samples} calibration samples: about one further sample in {samples + 1} is expected to exceed the "
            "largest value that an activation had in them. Give a hundred or more."
        )


def _input_doubts(feed: Feed, tune: Split | None) -> Iterator[str]:
    own = _channels(feed)
    others = _channels(replace(feed, split=tune)) if tune is not None else [None] * len(own)
    for spec, mine, other in zip(feed.specs, own, others, strict=True):
        if mine is None:
            continue
        if mine.constant and len(mine.means) > 1:
            yield (
                f"Calibration input {spec.name!r} is constant: its first {len(mine.means)} samples are all the same, "
                f"values from {mine.low:.4g} to {mine.high:.4g}; the ranges are those of one sample."
            )
        elif other is not None and not other.constant:
            yield from _difference(spec.name, mine, other)


def _difference(name: str, mine: _Channels, other: _Channels) -> Iterator[str]:
    shift, error = np.abs(mine.mean - other.mean), _error(mine.means, other.means)
    scale = np.maximum(other.deviation, 1e-12)
    ratio = np.maximum(mine.deviation, 1e-12) / scale
    moved = (shift > _SHIFT * scale) & (shift > _ERRORS * error)
    apart = np.abs(mine.squares.mean(0) - other.squares.mean(0)) > _ERRORS * _error(mine.squares, other.squares)
    scaled = (np.maximum(ratio, 1 / ratio) > _RATIO) & apart
    odd = np.flatnonzero(moved | scaled)
    if not odd.size:
        return
    worst = int(odd[np.argmax((shift / scale + np.abs(np.log(ratio)))[odd])])
    yield (
        f"Calibration input {name!r} is not distributed as the tuning split is, in {odd.size} of {len(shift)} channels: "
        f"channel {worst} has mean {mine.mean[worst]:.4g} and standard deviation {mine.deviation[worst]:.4g}, there "
        f"{other.mean[worst]:.4g} and {other.deviation[worst]:.4g}; values from {mine.low:.4g} to {mine.high:.4g}, there "
        f"from {other.low:.4g} to {other.high:.4g} ({len(mine.means)} and {len(other.means)} samples). Is it preprocessed "
        "differently?"
    )


def _output_doubts(graph: GraphModule, feed: Feed, tune: Split) -> Iterator[str]:
    mine, other = _certainty(graph, feed), _certainty(graph, replace(feed, split=tune))
    if mine is None or other is None or min(len(mine), len(other)) < 2:
        return
    here, there = mine.mean(0), other.mean(0)
    gap = abs(here[0] - there[0])
    if gap > _CONFIDENCE and gap > _ERRORS * _error(mine[:, :1], other[:, :1])[0]:
        yield (
            "The model answers the calibration samples otherwise than the tuning split's: its mean confidence is "
            f"{here[0]:.2f} and there {there[0]:.2f}, the entropy of its scores {here[1]:.2f} and {there[1]:.2f} nats "
            f"({len(mine)} and {len(other)} samples). Are they real samples, not noise?"
        )


def _error(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Standard error of the difference of two means over axis 0."""
    parts = [values.var(0, ddof=1) / len(values) if len(values) > 1 else np.inf for values in (mine, other)]
    return np.asarray(np.sqrt(parts[0] + parts[1]))


def _channels(feed: Feed) -> list[_Channels | None]:
    """Statistics of each input; None for one that is not of floats."""
    parts: list[list[np.ndarray]] = [[] for _ in feed.specs]
    for inputs, count in replace(feed, limit=min(feed.limit, _SAMPLES)).batches():
        for kept, values in zip(parts, inputs, strict=True):
            if values.is_floating_point():
                kept.append(values[:count].double().numpy())
    return [_channels_of(np.concatenate(kept)) if kept else None for kept in parts]


def _channels_of(x: np.ndarray) -> _Channels:
    """Channels are axis 1 of [N, C, …]; without positions behind them all values are one channel."""
    rows = x.reshape(len(x), x.shape[1] if x.ndim > 2 else 1, -1)
    return _Channels(
        means=rows.mean(2),
        squares=np.square(rows).mean(2),
        low=float(x.min()),
        high=float(x.max()),
        constant=bool((x == x[:1]).all()),
    )


@torch.no_grad()
def _certainty(graph: GraphModule, feed: Feed) -> np.ndarray | None:
    """Confidence and entropy of the softmax of the first output: float64 [N, 2]."""
    found = []
    for inputs, count in replace(feed, limit=min(feed.limit, _SAMPLES)).batches():
        leaves = pytree.tree_leaves(Interpreter(graph).run(*inputs, enable_io_processing=False))
        scores = leaves[0][:count].double()
        if scores.ndim != 2 or not torch.isfinite(scores).all():
            return None  # calibration names the op that makes NaN
        logs = scores.log_softmax(1)
        found.append(torch.stack([logs.exp().amax(1), -(logs.exp() * logs).sum(1)], 1).numpy())
    return np.concatenate(found) if found else None
