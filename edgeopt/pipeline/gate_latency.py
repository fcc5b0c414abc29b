"""Two bundles' engines timed now, in turns, and one of them against itself: what noise alone makes of a ratio."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeopt.bundle.layout import RECIPE, read_reference
from edgeopt.bundle.load import Bundle
from edgeopt.core.errors import BundleError
from edgeopt.core.events import ProgressListener
from edgeopt.core.measurement import Condition, Measurement
from edgeopt.devices.registry import opened
from edgeopt.gate.recorded_latency import widened
from edgeopt.recipes.load import load_recipe

__all__ = ["ratios_now"]


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
    from edgeopt.measure.compare import compare_engines

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
    with opened(device, progress=progress) as where:
        found = compare_engines(
            where,
            candidate.engine,
            baseline.engine,
            sample=reference[0],
            config=recipe.measure.model_copy(update={"batch_sizes": ()}),
            batch=batch,
            progress=progress,
            seed=seed,
        )
    told, notes = {}, []
    for ratio, noise in ((found.p50_ratio, found.noise_floor), (found.p99_ratio, found.noise_floor_p99)):
        told[ratio.name] = ratio
        if ratio.value is None or ratio.interval is None or not noise.value:
            continue
        floor = math.exp(abs(math.log(noise.value))) - 1
        how: dict[str, Condition] = {"how": "measured in turns, the baseline twice", "noise_floor_pct": 100 * floor}
        told[ratio.name] = replace(
            ratio, interval=widened(ratio.interval, floor), conditions={**ratio.conditions, **how}
        )
        notes.append(f"{ratio.name}: two processes of the baseline differed by {100 * floor:.2g} %, the noise floor.")
    return told, tuple(notes)
