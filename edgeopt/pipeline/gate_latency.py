"""Two bundles' engines timed now, in turns, and one of them against itself: what noise alone makes of a ratio."""

from __future__ import annotations

import math

import numpy as np

from edgeopt.bundle.layout import RECIPE, read_reference
from edgeopt.bundle.load import Bundle
from edgeopt.core.errors import BundleError
from edgeopt.core.events import ProgressListener
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.devices.registry import open_device
from edgeopt.gate.recorded_latency import widened
from edgeopt.recipes.load import load_recipe

__all__ = ["ratios_now"]

_QUANTILES = {"latency_ratio": 0.5, "latency_p99_ratio": 0.99}
_RESAMPLES = 2000


def ratios_now(
    candidate: Bundle, baseline: Bundle, *, device: str, seed: int, progress: ProgressListener
) -> tuple[dict[str, Measurement], tuple[str, ...]]:
    """``latency_ratio`` (p50) and ``latency_p99_ratio`` of two engines that run in turns on the same inputs.

    The baseline's engine runs twice, in two processes. Their ratio would be 1 but for what a process is born with
    (addresses, pages, the core it got); it is the noise floor, and widens the intervals both ways.

    Returns:
        The ratios, and what a reader must know of them.

    Raises:
        BundleError: One is not built, or there are no reference inputs to run on, or their batches differ.
    """
    from edgeopt.measure.latency import measure_latency

    for bundle in (candidate, baseline):
        if bundle.engine.status != "built":
            raise BundleError(
                "Latency cannot be compared: an engine is not built.",
                got=bundle.directory,
                fix="Build it on its device, or leave out the limits on latency against the baseline.",
            )
    recipe = load_recipe(candidate.directory / RECIPE)
    reference = read_reference(candidate.directory)
    if reference is None:
        raise BundleError("The bundle holds no reference inputs to run on.", got=candidate.directory)
    batch = candidate.manifest.engine.batch or recipe.export.batch
    if (baseline.manifest.engine.batch or batch) != batch:
        raise BundleError(
            "Latency cannot be compared: the engines take other batches.",
            got=f"{baseline.manifest.engine.batch} in the baseline, {batch} here",
            fix="Compile both for one batch.",
        )
    measured = measure_latency(
        open_device(device),
        {"candidate": candidate.engine, "baseline": baseline.engine, "baseline again": baseline.engine},
        sample=reference[0],
        config=recipe.measure.model_copy(update={"batch_sizes": ()}),
        batch=batch,
        progress=progress,
        seed=seed,
        cold_starts=1,
    )
    failed = next((f"{name}: {figures.failed}" for name, figures in measured.items() if figures.failed), None)
    if failed:
        return {name: not_measured(name, "1", failed) for name in _QUANTILES}, ()
    mine, theirs, again = (measured[name].blocks_ms for name in ("candidate", "baseline", "baseline again"))
    p50 = measured["candidate"].figure("latency_p50_ms")
    ratios, notes = {}, []
    for name, q in _QUANTILES.items():
        value, interval = _ratio(mine, theirs, q, seed)
        same, _ = _ratio(again, theirs, q, seed)
        floor = math.exp(abs(math.log(same))) - 1
        ratios[name] = Measurement(
            name=name,
            value=value,
            unit="1",
            interval=widened(interval, floor),
            n=mine.size,
            device=p50.device,
            conditions={
                **{key: p50.conditions.get(key) for key in ("threads", "batch", "block", "load_average")},
                "how": "measured in turns, the baseline twice",
                "noise_floor_pct": 100 * floor,
            },
        )
        notes.append(f"{name}: two processes of the baseline differed by {100 * floor:.2g} %, the noise floor.")
    return ratios, tuple(notes)


def _ratio(mine: np.ndarray, theirs: np.ndarray, q: float, seed: int) -> tuple[float, Interval]:
    """A ratio of quantiles of [rounds, block] times; whole rounds are resampled, both sides' together."""
    from edgeopt.measure.statistics import ratio_of_medians

    if q == 0.5:
        return ratio_of_medians(mine, theirs, seed=seed)
    value = float(np.quantile(mine, q) / np.quantile(theirs, q))
    rows = np.random.default_rng(seed).integers(0, len(mine), (_RESAMPLES, len(mine)))
    drawn = np.quantile(mine[rows].reshape(_RESAMPLES, -1), q, axis=1)
    drawn /= np.quantile(theirs[rows].reshape(_RESAMPLES, -1), q, axis=1)
    low, high = (float(x) for x in np.quantile(drawn, [0.025, 0.975]))
    method = f"bootstrap over {len(mine)} paired rounds"
    return value, Interval(low=min(low, value), high=max(high, value), method=method)
