"""What each group of layers gains in time from int8, measured on the device: all int8 against all but this group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.core.engine import Engine
from edgeopt.core.fingerprint import hash_array, hash_file
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.engines import build_engine
from edgeopt.pipeline.graphs import Graph
from edgeopt.pipeline.plan import Plan, PlannedCandidate
from edgeopt.pipeline.run import Run
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.recipes.schema import Mixed

if TYPE_CHECKING:
    from edgeopt.compress.groups import Group

__all__ = ["GroupTimes", "measure_groups", "time_assignments"]

_ALL, _FLOAT = "all int8", "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTimes:
    """One runtime.

    Attributes:
        p50_ms: Of all-int8.
        ratio: All-int8 over FP32.
        deltas: By group: p50 with the group in float over all-int8's, minus 1. ``conditions["counts"]`` is what a sum may
            use: 0 where the interval of a measured one holds 0.
    """

    runtime: str
    p50_ms: float
    ratio: Measurement
    deltas: dict[str, Measurement]


def measure_groups(
    run: Run, plan: Plan, samples: ParityInputs, *, config: Mixed, groups: Sequence[Group], fp32: Graph, int8: Graph
) -> list[GroupTimes]:
    """Time, on each runtime of the plan, all-int8 with one group after another in float, interleaved.

    The groups with the most MACs are timed, ``config.latency_groups`` of them, fewer where building took more than half
    of ``config.max_minutes``. The others get their share of what the timed ones gain per MAC.
    """
    largest = sorted((group for group in groups if group.macs), key=lambda group: -group.macs)[: config.latency_groups]
    deadline = time.monotonic() + 60 * config.max_minutes / 2
    found = []
    for planned in _runtimes(plan):
        variants = {_ALL: int8}
        for group in largest:
            if time.monotonic() < deadline:
                variants[group.name] = _variant(run.context, int8, _nodes(int8, [group]))
        times = _time(run, plan, planned, samples, config, fp32=fp32, variants=variants)
        if times is not None:
            found.append(_spread(times, groups))
    return found


def time_assignments(
    run: Run,
    plan: Plan,
    samples: ParityInputs,
    *,
    config: Mixed,
    runtime: str,
    fp32: Graph,
    int8: Graph,
    floats: Mapping[str, Sequence[Group]],
) -> dict[str, Measurement]:
    """p50 over FP32's of whole assignments, by label; ``floats``: the groups that each has in float."""
    planned = next(one for one in _runtimes(plan) if one.rules.name == runtime)
    variants = {
        label: _variant(run.context, int8, _nodes(int8, chosen)) if chosen else int8 for label, chosen in floats.items()
    }
    figures = _figures(run, plan, planned, samples, config, fp32=fp32, variants=variants, against=_FLOAT)
    return {label: figures[label] for label in floats if label in figures}


def _runtimes(plan: Plan) -> list[PlannedCandidate]:
    return [one for one in plan.candidates if one.role == "candidate" and one.precision == "int8"]


def _time(
    run: Run,
    plan: Plan,
    planned: PlannedCandidate,
    samples: ParityInputs,
    config: Mixed,
    *,
    fp32: Graph,
    variants: Mapping[str, Graph],
) -> GroupTimes | None:
    ratios = _figures(run, plan, planned, samples, config, fp32=fp32, variants=variants, against=_ALL)
    whole, reference = ratios.get(_ALL), ratios.get(_FLOAT)
    if whole is None or reference is None or reference.value is None:
        return None
    value, interval = 1 / reference.value, reference.interval
    return GroupTimes(
        runtime=planned.rules.name,
        p50_ms=float(whole.conditions["p50_ms"] or 0),
        ratio=replace(
            reference,
            value=value,
            interval=None if interval is None else replace(interval, low=1 / interval.high, high=1 / interval.low),
        ),
        deltas={name: _delta(one, planned.rules.name) for name, one in ratios.items() if name not in (_ALL, _FLOAT)},
    )


def _delta(ratio: Measurement, runtime: str) -> Measurement:
    if ratio.value is None:
        return not_measured("latency_delta", "1", ratio.reason or "it could not be run", runtime=runtime)
    low, high = (ratio.interval.low - 1, ratio.interval.high - 1) if ratio.interval else (0.0, 0.0)
    told = low > 0 or high < 0
    return replace(
        ratio,
        name="latency_delta",
        value=ratio.value - 1,
        interval=replace(ratio.interval, low=low, high=high) if ratio.interval else None,
        conditions={
            **ratio.conditions,
            "runtime": runtime,
            "how": "measured" if told else "measured; no difference can be told, counts as 0",
            "counts": ratio.value - 1 if told else 0.0,
        },
    )


def _spread(times: GroupTimes, groups: Sequence[Group]) -> GroupTimes:
    """Give the groups that were not timed what the timed ones gain per MAC."""
    macs = {group.name: group.macs for group in groups}
    timed = {name: one for name, one in times.deltas.items() if one.value is not None}
    total = sum(macs[name] for name in timed)
    rate = sum(float(one.conditions["counts"] or 0) for one in timed.values()) / total if total else 0.0
    modelled = {}
    for group in groups:
        if group.name not in timed:
            modelled[group.name] = not_measured(
                "latency_delta",
                "1",
                "not timed: its share, by MACs, of what the timed groups gain",
                runtime=times.runtime,
                how="modelled",
                counts=rate * group.macs,
            )
    return replace(times, deltas={group.name: (timed | modelled)[group.name] for group in groups})


def _figures(
    run: Run,
    plan: Plan,
    planned: PlannedCandidate,
    samples: ParityInputs,
    config: Mixed,
    *,
    fp32: Graph,
    variants: Mapping[str, Graph],
    against: str,
) -> dict[str, Measurement]:
    """Ratios of p50 to that of ``against``, by variant; FP32 is one of them."""
    from edgeopt.measure.latency import latency_ratio, measure_latency

    reference = next(c for c in plan.candidates if c.role == "reference" and c.rules.name == planned.rules.name)
    quiet = replace(run.context, events=[], parity=[])
    built = {_FLOAT: build_engine(quiet, plan, reference, fp32)}
    built |= {name: build_engine(quiet, plan, planned, graph) for name, graph in variants.items()}
    engines: dict[str, Engine] = {
        name: one.engine for name, one in built.items() if one.engine is not None and one.engine.status == "built"
    }
    first = next(iter(engines.values()), None)
    if first is None or against not in engines:
        return {}
    sample = {spec.name: array for spec, array in zip(first.inputs, samples.arrays, strict=True)}
    measure = plan.recipe.measure.model_copy(update={"batch_sizes": (), "latency_samples": config.latency_samples})
    size = first.inputs[0].batch
    batch = size if isinstance(size, int) else plan.recipe.export.batch
    info = run.device.info()
    key = {
        "engines": {name: built[name].key for name in engines},
        "against": against,
        "config": measure.model_dump(mode="json"),
        "batch": batch,
        "sample": {name: hash_array(array) for name, array in sample.items()},
        "device": info.model_dump(mode="json", exclude={"conditions"}),
        "seed": run.context.seed,
    }

    def build(folder: Path) -> None:
        made = measure_latency(
            run.device,
            engines,
            sample=sample,
            config=measure,
            batch=batch,
            progress=run.context.progress,
            seed=run.context.seed,
            cold_starts=1,
        )
        ratios = {}
        for name, one in made.items():
            ratio = latency_ratio(one, made[against])
            p50 = None if one.failed else one.figure("latency_p50_ms").value
            ratios[name] = replace(ratio, conditions={**ratio.conditions, "p50_ms": p50})
        records.write(folder / "ratios.json", dict[str, Measurement], ratios)

    folder = run.context.stage("group-latency", f"time groups on {planned.rules.name}", key, build)
    return records.read(folder / "ratios.json", dict[str, Measurement])


def _nodes(int8: Graph, groups: Sequence[Group]) -> list[str]:
    nodes = records.read(int8.path.parent / "nodes.json", dict[str, str | None])
    return sorted(node for group in groups for layer in group.layers if (node := nodes.get(layer)))


def _variant(context: RunContext, int8: Graph, nodes: Sequence[str]) -> Graph:
    """The int8 graph with some nodes in float."""
    from edgeopt.graph.unquantize import unquantize

    key = {"graph": hash_file(int8.path), "nodes": list(nodes)}
    folder = context.stage(
        "variant", "write variants", key, lambda made: unquantize(int8.path, made / "model.onnx", nodes)
    )
    return replace(int8, path=folder / "model.onnx", parity=[], events=[], layers=[], training=[])
