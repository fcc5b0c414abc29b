"""Which form of the quantization is the fastest for a model: some are so for some nets only, and only the device tells.

One process differs from the next by several per cent (where its memory lies), so a form has to win in ``STARTS`` runs with
processes of their own; a run that it loses before it won one, or a second one, ends its race. A run that something else on the
machine disturbed leaves open which is faster, or shows a loss beside wins: ``REPEATS`` such are repeated.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.evidence import Figures, measure_speed
from edgeopt.recipes.schema import Measure

if TYPE_CHECKING:
    from edgeopt.devices.base import Device

__all__ = ["LEAST_GAIN", "REPEATS", "STARTS", "Race", "run_race"]

LEAST_GAIN = 0.01
"""Of the time: a smaller gain is not worth another form, whatever its interval."""
STARTS = 3
REPEATS = 3
_OPEN = 0.05  # of the time: a start whose interval holds as large a gain was disturbed, and no loss
_SAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What is timed, and where.

    Attributes:
        engines: By form: the engine, and the content hash of what made it; the first is the one to beat.
        sample: Real samples, one array [N, …] per input name.
    """

    context: RunContext
    device: Device
    info: DeviceInfo
    engines: Mapping[str, tuple[Engine, str]]
    sample: Mapping[str, np.ndarray]
    config: Measure
    batch: int


def run_race(race: Race) -> tuple[str, tuple[Event, ...]]:
    """Time forms against the first one.

    Returns:
        The form to take: one whose interval was faster by more than ``LEAST_GAIN`` in ``STARTS`` starts, and at most one slower; a
        later one of several where its median is smaller by as much; else the first. And one event per other form.
    """
    first, *others = race.engines
    seen: dict[str, list[Measurement]] = {form: [] for form in others}
    left = list(others)
    for start in range(STARTS + REPEATS):
        running = [form for form in left if _wins(seen[form]) < STARTS]
        if not running:
            break
        ratios = _times(race, first, running, start)
        for form in running:
            seen[form].append(ratios[form])
            if _is_over(seen[form]):
                left.remove(form)
    taken = first
    for form in left:  # listed from the most accurate on
        if taken == first or _median(seen[form]) < _median(seen[taken]) - LEAST_GAIN:
            taken = form
    stage = f"compile {next(iter(race.engines.values()))[0].runtime}"
    return taken, tuple(_told(stage, form, first, seen[form], taken) for form in others)


def _wins(ratios: list[Measurement]) -> int:
    return sum(ratio.interval is not None and ratio.interval.high < 1 - LEAST_GAIN for ratio in ratios)


def _is_over(ratios: list[Measurement]) -> bool:
    """Whether a form has lost: without a win before, twice, or in too many starts that it did not win."""
    lost = sum(map(_lost, ratios))
    wins = _wins(ratios)
    return ratios[-1].value is None or lost > min(wins, 1) or len(ratios) - wins > REPEATS


def _lost(ratio: Measurement) -> bool:
    if ratio.value is None:
        return True
    lowest = ratio.interval.low if ratio.interval else ratio.value
    return ratio.value >= 1 - LEAST_GAIN and lowest >= 1 - _OPEN


def _median(ratios: list[Measurement]) -> float:
    return statistics.median(ratio.value for ratio in ratios if ratio.value is not None)


def _told(stage: str, form: str, first: str, ratios: list[Measurement], taken: str) -> Event:
    words = ", ".join(_figure(ratio) for ratio in ratios)
    outcome = "it is taken" if form == taken else f"{taken} is " + ("kept" if taken == first else "taken")
    count = ratios[0].n if ratios else 0
    return Event(
        kind="note",
        stage=stage,
        message=f"The form {form} took {words} of the time of {first} ({len(ratios)} start{'s' * (len(ratios) > 1)} of {count}"
        f" inferences): {outcome}.",
    )


def _figure(ratio: Measurement) -> str:
    if ratio.value is None:
        return f"no time ({ratio.reason})"
    return f"{ratio.value:.3f}" + (f" [{ratio.interval.low:.3f}, {ratio.interval.high:.3f}]" if ratio.interval else "")


def _times(race: Race, first: str, others: list[str], start: int) -> dict[str, Measurement]:
    """The ratio of p50 to that of ``first``, of each other form, from processes of this start's own."""
    engines = {form: race.engines[form] for form in (first, *others)}
    samples = min(race.config.latency_samples, _SAMPLES)
    config = race.config.model_copy(
        update={"batch_sizes": (), "scenarios": ("single-stream",), "latency_samples": samples, "precision": None}
    )
    figures = measure_speed(
        replace(race.context, seed=race.context.seed + start),  # another order of the turns, and a stage of its own
        race.device,
        race.info,
        engines,
        references=dict.fromkeys(others, first),
        sample=race.sample,
        config=config,
        batch=race.batch,
        cold_starts=1,
        label=f"time forms on {engines[first][0].runtime}",
    )
    return {form: _ratio(figures[form]) for form in others}


def _ratio(figures: Figures) -> Measurement:
    found = next((m for m in figures.measurements if m.name == "latency_ratio"), None)
    return found or not_measured("latency_ratio", "1", figures.failed)
