"""A figure together with everything that says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["Interval", "Measurement", "not_measured"]

Condition = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval: ``low <= high``, in the unit of its measurement; ``level`` in (0, 1)."""

    low: float
    high: float
    level: float = 0.95
    method: str

    def scaled(self, factor: float) -> Interval:
        """The interval in another unit, ``factor`` > 0 of it to one: 100 from a share to percent."""
        return replace(self, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured figure.

    Attributes:
        name: What was measured, with its unit as suffix where it has one: ``latency_p50_ms``.
        value: The figure, or None where it was not measured; then ``reason`` says why. Never 0 in its place.
        unit: ``ms``, ``MiB``, ``pp``, ``1/s``, ``dB``, ``1`` for a bare ratio, …
        interval: Where the figure has sampling error.
        n: How many samples it rests on.
        device: What it was measured ON (never the target's name for a host figure).
        conditions: Threads, batch size, warm-up, and whatever else must be equal for a fair comparison.
        reason: Why ``value`` is None.
    """

    name: str
    value: float | None
    unit: str
    interval: Interval | None = None
    n: int | None = None
    device: str | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"{self.name}: a measurement has either a value or a reason why not")


def not_measured(name: str, unit: str, reason: str, **conditions: Condition) -> Measurement:
    """A figure that is absent, and why."""
    return Measurement(name=name, value=None, unit=unit, reason=reason, conditions=conditions)
