"""What every compile of these tests is asked for: few inferences, and no look at the machine's peaks."""

from __future__ import annotations

__all__ = ["FAST"]

_SETTINGS = ("latency_samples=20", "roofline=false", "forms=false", "warmup=2", "block=10")
FAST = [word for setting in _SETTINGS for word in ("--set", f"measure.{setting}")]
