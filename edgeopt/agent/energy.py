"""Energy of a stretch of inferences, from whatever counter the kernel shows.

In order of preference: RAPL (Linux kernel documentation, "Power Capping Framework": ``energy_uj`` of each package, which
wraps at ``max_energy_range_uj``), INA power monitors (hwmon sysfs interface: millivolts, milliamperes, microwatts; the
rails that tegrastats prints on Jetson boards), and a discharging battery (sysfs-class-power: microvolts, microamperes,
microwatts). The first counts joules; the other two tell a power, which is sampled and summed up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Tuple, Union

__all__ = ["find_counter", "measured_energy"]

_ROOT = Path("/")
_PERIOD_S = 0.05  # an INA3221 averages over about so long
_WHOLE_BOARD = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN")  # the rail that feeds all others, by board
Zone = Tuple[Path, float]


class EnergyCounter:
    """Joules so far, of RAPL's packages."""

    def __init__(self, zones: Sequence[Zone], name: str) -> None:
        self._zones, self.name = zones, name

    def over(self, run: Callable[[], Any]) -> float:
        """The joules that were used while ``run`` ran; a counter may wrap once meanwhile."""
        before = [_number(path) for path, _ in self._zones]
        run()
        used = 0.0
        for start, (path, wraps_at) in zip(before, self._zones):
            end = _number(path)
            if start is None or end is None:
                raise OSError("the counter could not be read")
            used += end - start if end >= start else end + wraps_at - start
        return used / 1e6


class PowerSensor:
    """A power in watts, summed up over time by trapezoids."""

    def __init__(self, watts: Callable[[], float], name: str) -> None:
        self._watts, self.name = watts, name

    def over(self, run: Callable[[], Any]) -> float:
        """The joules that were used while ``run`` ran."""
        readings = [(time.perf_counter(), self._watts())]
        failed: list[Exception] = []
        over = threading.Event()

        def look() -> None:
            try:
                while not over.wait(_PERIOD_S):
                    readings.append((time.perf_counter(), self._watts()))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            run()
        finally:
            over.set()
            thread.join()
        if failed:
            raise failed[0]
        readings.append((time.perf_counter(), self._watts()))
        return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in zip(readings, readings[1:]))


Counter = Union[EnergyCounter, PowerSensor]


def measured_energy(run: Callable[[], Any], seconds: float, root: Path = _ROOT) -> dict[str, Any]:
    """Run for ``seconds`` between two readings.

    Args:
        root: Where ``sys`` is looked for.

    Returns:
        ``n``, ``seconds``, ``joules`` (of all that the counter covers, idle power included) and ``counter``; or
        ``unavailable``: why.
    """
    counter = find_counter(root)
    if isinstance(counter, str):
        return {"unavailable": counter}
    done = [0]

    def loop() -> None:
        until = time.perf_counter() + seconds
        while done[0] == 0 or time.perf_counter() < until:
            run()
            done[0] += 1

    start = time.perf_counter()
    try:
        joules = counter.over(loop)
    except OSError as error:
        return {"unavailable": f"{counter.name} could not be read: {error}"}
    took = time.perf_counter() - start
    if joules <= 0:
        return {"unavailable": f"{counter.name} did not move in {took:.1f} s"}
    return {"n": done[0], "seconds": took, "joules": joules, "counter": counter.name}


def find_counter(root: Path = _ROOT) -> Counter | str:
    """The best counter there is; else a sentence that says why there is none."""
    reasons = []
    for find in (_rapl, _monitors, _battery):
        found = find(root)
        if not isinstance(found, str):
            return found
        reasons.append(found)
    return "no energy counter: " + "; ".join(reasons)


def _rapl(root: Path) -> Counter | str:
    folder = root / "sys/class/powercap"
    # intel-rapl:0:0 is a part of intel-rapl:0; "psys" covers the packages once more.
    packages = [
        zone
        for zone in _sorted(folder, "intel-rapl:*")
        if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
    ]
    if not packages:
        return "RAPL is not there"
    zones = [(zone / "energy_uj", _number(zone / "max_energy_range_uj") or 0.0) for zone in packages]
    if any(_number(path) is None for path, _ in zones):
        return "RAPL's energy_uj may not be read (the kernel lets only root)"
    return EnergyCounter(zones, "RAPL, {}".format(", ".join(_text(zone / "name") for zone in packages)))


def _monitors(root: Path) -> Counter | str:
    rails = {}  # type: dict[str, Callable[[], float]]
    for chip in _sorted(root / "sys/class/hwmon", "hwmon*"):
        if not _text(chip / "name").startswith("ina"):
            continue
        for power in _sorted(chip, "power*_input"):
            rails[_text(chip / power.name.replace("_input", "_label")) or power.stem] = _watts((power, 1e-6))
        for volts in _sorted(chip, "in*_input"):
            number = volts.name[2 : -len("_input")]
            amperes = chip / f"curr{number}_input"
            label = _text(chip / f"in{number}_label") or f"in{number}"
            # Channel 7 of an INA3221 is the sum of its shunt voltages, no rail.
            if _number(amperes) is not None and _number(volts) is not None and label not in rails:
                rails[label] = _watts((volts, 1e-3), (amperes, 1e-3))
    if not rails:
        return "no INA power monitor"
    whole = next((name for name in _WHOLE_BOARD if name in rails), None)
    chosen = [whole] if whole else sorted(rails)
    return PowerSensor(lambda: sum(rails[name]() for name in chosen), "INA, {}".format(" + ".join(chosen)))


def _battery(root: Path) -> Counter | str:
    for supply in _sorted(root / "sys/class/power_supply", "*"):
        if _text(supply / "type") != "Battery":
            continue
        status = _text(supply / "status")
        if status != "Discharging":
            return "the battery is {}, so its current is not the load's".format(status.lower() or "in an unknown state")
        if _number(supply / "power_now") is not None:
            return PowerSensor(_watts((supply / "power_now", 1e-6)), f"battery, {supply.name}")
        both = (supply / "voltage_now", 1e-6), (supply / "current_now", 1e-6)
        if all(_number(path) is not None for path, _ in both):
            return PowerSensor(_watts(*both), f"battery, {supply.name}")
        return "the battery does not tell its power"
    return "no battery"


def _watts(*factors: Zone) -> Callable[[], float]:
    """The product of readings and their units; a current has either sign, by the driver's taste."""

    def read() -> float:
        product = 1.0
        for path, unit in factors:
            value = _number(path)
            if value is None:
                raise OSError(f"{path.name} cannot be read")
            product *= abs(value) * unit
        return product

    return read


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
