"""Whether the calibration data can be what the model will see: each doubt is a warning with its evidence.

The tuning split is what calibration is compared with: both should be drawn from the same data. A difference counts where
it is large *and* beyond five standard errors, so that few samples raise no alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from edgeopt.compress.base import Answers
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.float_run import FloatRunner
from edgeopt.compress.observers import ActivationObserver
from edgeopt.core.events import Event
from edgeopt.recipes.schema import Quantize

__all__ = ["Look", "data_warnings", "observer_warnings"]

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


class Look:
    """What the first 64 samples of a split are like, and what the float model makes of them.

    Attributes:
        feed: The samples that ``see`` is shown.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._few = replace(feed, limit=min(feed.limit, _SAMPLES))
        self._seen = 0
        self._inputs: list[list[_Channels]] = [[] for _ in feed.specs]
        self._first: list[torch.Tensor] = []
        self._certainty: list[np.ndarray] | None = []

    def see(self, inputs: Sequence[torch.Tensor], outputs: Any, count: int) -> None:
        """Take note of a batch, of which the first ``count`` rows are samples."""
        count = min(count, self._few.samples - self._seen)
        if count <= 0:
            return
        self._first = self._first or [x[:1].clone() for x in inputs]
        for parts, x, first in zip(self._inputs, inputs, self._first, strict=True):
            if x.is_floating_point():
                parts.append(_channels(x[:count], first))
        scores = pytree.tree_leaves(outputs)[0][:count].double()
        if scores.ndim != 2 or not torch.isfinite(scores).all():
            self._certainty = None
        if self._certainty is not None:
            logs = scores.log_softmax(1)
            self._certainty.append(torch.stack([logs.exp().amax(1), -(logs.exp() * logs).sum(1)], 1).numpy())
        self._seen += count

    def fill(self, graph: GraphModule, answers: Answers | None = None) -> None:
        """See the samples of the feed, and what ``graph`` makes of them; ``answers``: where that is known."""
        if answers is not None and len(answers.inputs[0]) >= self._few.samples:
            few = [torch.from_numpy(each[: self._few.samples]) for each in answers.inputs]
            self.see(few, [torch.from_numpy(each.copy()) for each in answers.outputs], len(few[0]))
            return
        runner = FloatRunner(graph)
        for inputs, count in self._few.batches():
            self.see(inputs, runner.run(*inputs, enable_io_processing=False), count)

    @property
    def channels(self) -> list[_Channels | None]:
        """Of each input; None for one that is not of floats."""
        return [_joined(parts) if parts else None for parts in self._inputs]

    @property
    def certainty(self) -> np.ndarray | None:
        """Confidence and entropy of the softmax of the first output: float64 [N, 2]; None where it has no classes."""
        return np.concatenate(self._certainty) if self._certainty else None


def data_warnings(look: Look, tune: Look | None, *, classification: bool) -> tuple[Event, ...]:
    """What is odd about the calibration split: few or constant samples, other statistics or outputs than the tuning split.

    Args:
        look: At the calibration split.
        tune: At the tuning split; None where there is none.
        classification: Whether the outputs are scores of classes.
    """
    with np.errstate(all="ignore"):  # NaN in the tuning split
        found = [*_too_few(look.feed.samples), *_input_doubts(look, tune)]
        if tune is not None and classification:
            found += _output_doubts(look, tune)
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


def _input_doubts(look: Look, tune: Look | None) -> Iterator[str]:
    own = look.channels
    others = tune.channels if tune is not None else [None] * len(own)
    for spec, mine, other in zip(look.feed.specs, own, others, strict=True):
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


def _output_doubts(look: Look, tune: Look) -> Iterator[str]:
    mine, other = look.certainty, tune.certainty
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


def _channels(x: torch.Tensor, first: torch.Tensor) -> _Channels:
    """Channels are axis 1 of [N, C, …]; without positions behind them all values are one channel.

    Args:
        first: The split's first sample.
    """
    rows = x.reshape(len(x), x.shape[1] if x.ndim > 2 else 1, -1)
    variances, means = torch.var_mean(rows, 2, correction=0)
    low, high = torch.aminmax(x)
    return _Channels(
        means=means.double().numpy(),
        squares=(variances.double() + means.double() ** 2).numpy(),
        low=float(low),
        high=float(high),
        constant=bool((x == first).all()),
    )


def _joined(parts: Sequence[_Channels]) -> _Channels:
    return _Channels(
        means=np.concatenate([part.means for part in parts]),
        squares=np.concatenate([part.squares for part in parts]),
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        constant=all(part.constant for part in parts),
    )
