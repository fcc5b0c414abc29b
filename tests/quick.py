"""Measurements that are over at once, for tests of everything but the figures."""

from __future__ import annotations

__all__ = ["FAST", "QUICK"]

_FEW = ("measure.latency_samples=20", "measure.roofline=false", "measure.warmup=2", "measure.block=10")

QUICK = (*_FEW, "measure.batch_sizes=[1]")
"""Settings of a recipe: few inferences, and no look at the machine's peaks."""

FAST = [word for setting in (*_FEW, "measure.forms=false") for word in ("--set", setting)]
"""Words of a command line: as quick, and one form of the artifact instead of a race of several."""
