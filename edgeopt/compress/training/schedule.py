"""The learning rate of every step, as a function of the step alone: nothing to store, nothing to resume."""

from __future__ import annotations

import math

from edgeopt.recipes.training import Training

__all__ = ["learning_rate"]


def learning_rate(config: Training, step: int, steps_per_epoch: int) -> float:
    """The rate of step ``step`` (from 0) of the whole training.

    A linear rise over the warm-up, then half a cosine to zero at the end (I. Loshchilov and F. Hutter 2017, "SGDR",
    eq. 5 with one period), or constant.
    """
    warm = round(config.warmup_epochs * steps_per_epoch)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    if config.schedule == "constant":
        return config.learning_rate
    rest = config.epochs * steps_per_epoch - warm
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / rest))
