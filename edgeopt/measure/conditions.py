"""What the machine did around a measurement, as conditions of its figures: before, after, and who else ran."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from edgeopt.core.device import Session
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Condition

__all__ = ["machine_conditions", "other_load_pct", "state_of"]

logger = logging.getLogger(__name__)

_AS_FOUND = ("governor", "affinity", "frequency_max_mhz", "load_average")
_MOVING = ("frequency_mhz", "temperature_c")


def state_of(session: Session) -> dict[str, Any]:
    """The machine's state now; nothing where the agent cannot tell. A measurement never ends for want of it."""
    try:
        return session.request("state")
    except DeviceError as error:
        logger.debug("the state could not be read: %s", error)
        return {}


def machine_conditions(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Condition]:
    """Two readings of ``agent/state.py`` as conditions.

    What moves is told twice (``temperature_c``, ``temperature_after_c``); of throttling, how often it happened between.
    """
    found: dict[str, Condition] = {name: str(before[name]) for name in _AS_FOUND if name in before}
    for name in _MOVING:
        if name in before:
            found[name] = before[name]
        if name in after:
            stem, _, unit = name.rpartition("_")
            found[f"{stem}_after_{unit}"] = after[name]
    if "throttle_count" in before and "throttle_count" in after:
        found["throttled"] = int(after["throttle_count"]) - int(before["throttle_count"])
    return {"governor": "unknown", "load_average": "unknown", **found}


def other_load_pct(ours: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float | None:
    """The share of the whole machine's CPU time that processes other than ``ours`` took; None where unreadable.

    Args:
        ours: Each agent's readings before and after; the earliest and the latest tell the machine's time between.
    """
    pairs = [pair for pair in ours if all("cpu_total_s" in reading for reading in pair)]
    if not pairs:
        return None
    first = min((before for before, _ in pairs), key=lambda reading: float(reading["cpu_total_s"]))
    last = max((after for _, after in pairs), key=lambda reading: float(reading["cpu_total_s"]))
    total = float(last["cpu_total_s"]) - float(first["cpu_total_s"])
    if total <= 0:
        return None
    busy = float(last["cpu_busy_s"]) - float(first["cpu_busy_s"])
    own = sum(float(after["cpu_own_s"]) - float(before["cpu_own_s"]) for before, after in pairs)
    # The kernel counts in ticks of 10 ms: over a short stretch the difference may fall below zero.
    return round(max(0.0, busy - own) / total * 100, 1)
