"""How often two sides predict the same."""

from __future__ import annotations

from edgeopt.bundle.outcomes import Samples
from edgeopt.core.measurement import Measurement
from edgeopt.measure import statistics

__all__ = ["agreement_of"]


def agreement_of(reference: Samples, candidate: Samples) -> Measurement:
    """``agreement_pct``: the share of samples for which both predict the same; arrays ``predicted`` [N]."""
    same, n = int((reference["predicted"] == candidate["predicted"]).sum()), len(candidate["predicted"])
    interval = statistics.proportion(same, n).scaled(100)
    return Measurement(name="agreement_pct", value=100 * same / n, unit="%", interval=interval, n=n)
