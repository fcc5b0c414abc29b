"""Two bundles side by side: figures, layers, samples, recipes, versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle.baseline import Baseline, Recorded, read_recorded
from edgeopt.bundle.diff import BundleDiff, FigureChange, LayerChange, SampleChange, SamplesSection, TextChange
from edgeopt.bundle.document import LayerRow
from edgeopt.bundle.layout import MODEL
from edgeopt.bundle.outcomes import Outcomes
from edgeopt.core.errors import BundleError
from edgeopt.core.measurement import Interval, Measurement
from edgeopt.gate.against import PREDICTION
from edgeopt.gate.comparable import demand_same_conditions, demand_same_model, demand_same_samples
from edgeopt.gate.recorded_latency import recorded_ratios
from edgeopt.measure.metrics import METRICS
from edgeopt.measure.paired import paired_drop
from edgeopt.pipeline.gate import subject_of

__all__ = ["diff_bundles"]

_FIRST = 20


def diff_bundles(before: Path, after: Path, *, seed: int = 0) -> BundleDiff:
    """Compare two bundles of one model by what was recorded of them; nothing is run.

    Changes in metrics are paired sample by sample where both were judged on the same ones, latencies are compared by
    blocks where device, threads and batch are equal; elsewhere the two figures stand beside each other.

    Raises:
        BundleError: One is no bundle, was changed, or their models have other inputs, outputs or classes.
    """
    one, other = read_recorded(before), read_recorded(after)
    demand_same_model(other, one)
    if one.bundle is None or other.bundle is None:
        raise BundleError("A diff needs two bundles.", got=f"{before}, {after}")
    reports = (one.bundle.report, other.bundle.report)
    return BundleDiff(
        before=subject_of(one, str(before)),
        after=subject_of(other, str(after)),
        figures=_figures(one, other, seed),
        layers=_layers(reports[0].layers, reports[1].layers, whole=(one.document.precision, other.document.precision)),
        ops=_texts(_ops(one), _ops(other)),
        samples=_samples(one, other),
        facts=_texts(_facts(one.document), _facts(other.document)),
        recipe=_texts(_flat(_recipe(one)), _flat(_recipe(other))),
        versions=_texts(one.document.versions, other.document.versions),
    )


def _figures(one: Recorded, other: Recorded, seed: int) -> tuple[FigureChange, ...]:
    paired = _paired(one, other, seed)
    rows = []
    mine, theirs = _by_key(other.document), _by_key(one.document)
    for key in dict.fromkeys([*theirs, *mine]):
        before, after = theirs.get(key), mine.get(key)
        change = paired.get(key)
        simple = change is None
        if simple and before is not None and after is not None and before.value and after.value is not None:
            change = _plain_change(key, before.value, after.value, before.unit)
        rows.append(FigureChange(key=key, before=before, after=after, change=change, paired=key in _metrics(one)))
    return tuple(rows)


def _plain_change(key: str, before: float, after: float, unit: str) -> Measurement:
    """A difference where zero is no natural end of the scale (shares, decibels, metrics), elsewhere a ratio."""
    if unit in ("%", "pp"):
        return Measurement(name=f"change_{key}", value=after - before, unit="pp")
    if unit == "dB" or key.removeprefix("drop_") in METRICS:
        return Measurement(name=f"change_{key}", value=after - before, unit=unit)
    return Measurement(name=f"{key}_ratio", value=after / before, unit="1")


def _metrics(side: Recorded) -> tuple[str, ...]:
    return () if side.outcomes is None else tuple(name for name in side.outcomes.candidate if name in METRICS)


def _paired(one: Recorded, other: Recorded, seed: int) -> dict[str, Measurement]:
    """Changes with intervals, by the figure's key; what cannot be compared so is left out."""
    found: dict[str, Measurement] = {}
    try:
        mine, theirs = demand_same_samples(other, one)
    except BundleError:
        pass
    else:
        for name in set(_metrics(one)) & set(_metrics(other)):
            drop = paired_drop(METRICS[name](), theirs.candidate[name], mine.candidate[name], seed=seed)
            found[name] = _gain(drop, name, better=METRICS[name]().better)
    try:
        demand_same_conditions(other, one)
    except BundleError:
        return found
    ratios = recorded_ratios(other.document, one.document, seed=seed)
    found["latency_p50_ms"], found["latency_p99_ms"] = ratios["latency_ratio"], ratios["latency_p99_ratio"]
    return {key: figure for key, figure in found.items() if figure.value is not None}


def _gain(drop: Measurement, metric: str, *, better: str) -> Measurement:
    """After less before, whatever is better."""
    if drop.value is None or drop.interval is None:
        return drop
    sign = -1.0 if better == "higher" else 1.0
    low, high = sorted((sign * drop.interval.low, sign * drop.interval.high))
    return Measurement(
        name=f"change_{metric}",
        value=sign * drop.value + 0.0,
        unit=drop.unit,
        interval=Interval(low=low, high=high, level=drop.interval.level, method=drop.interval.method),
        n=drop.n,
        conditions=drop.conditions,
    )


def _by_key(document: Baseline) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    for measurement in document.measurements:
        several = sum(m.name == measurement.name for m in document.measurements) > 1
        batch = measurement.conditions.get("batch")
        found[f"{measurement.name} batch {batch}" if several else measurement.name] = measurement
    return found


def _layers(
    before: tuple[LayerRow, ...], after: tuple[LayerRow, ...], whole: tuple[str, str]
) -> tuple[LayerChange, ...]:
    """``whole``: what all layers compute in where a report lists none, as of a float model."""
    theirs, mine = ({row.name: row for row in rows} for rows in (before, after))
    changes = []
    for name in dict.fromkeys([*theirs, *mine]):
        old, new = theirs.get(name), mine.get(name)
        precisions = (
            old.precision if old else None if theirs else whole[0],
            new.precision if new else None if mine else whole[1],
        )
        if precisions[0] != precisions[1]:
            row = new or old
            reason, op = (row.reason, row.op) if row else ("", "")
            changes.append(LayerChange(name=name, op=op, before=precisions[0], after=precisions[1], reason=reason))
    return tuple(changes)


def _ops(side: Recorded) -> dict[str, str]:
    """Operator type → how often the portable graph has it."""
    from edgeopt.graph.facts import graph_facts

    path = side.directory / MODEL
    return {op: str(count) for op, count in sorted(graph_facts(path).ops.items())} if path.is_file() else {}


def _samples(one: Recorded, other: Recorded) -> SamplesSection:
    try:
        mine, theirs = demand_same_samples(other, one)
    except BundleError as error:
        return SamplesSection(reason=str(error))
    if any("predicted" not in outcomes.candidate.get(PREDICTION, {}) for outcomes in (mine, theirs)):
        return SamplesSection(reason=f"The outcomes of the task {mine.task} hold no predictions.", samples=len(mine))
    old, new = theirs.candidate[PREDICTION], mine.candidate[PREDICTION]
    changed = np.flatnonzero(old["predicted"] != new["predicted"])
    was, now = (side["predicted"] == side["label"] for side in (old, new)) if "label" in old else (None, None)
    margins = old.get("margin")
    order = changed if margins is None else changed[np.argsort(-margins[changed], kind="stable")]
    names = other.document.contract.classes
    return SamplesSection(
        samples=len(mine),
        changed=len(changed),
        only_before=0 if was is None or now is None else int((was & ~now).sum()),
        only_after=0 if was is None or now is None else int((~was & now).sum()),
        first=tuple(_sample(int(row), theirs, old, new, names) for row in order[:_FIRST]),
    )


def _sample(
    row: int,
    outcomes: Outcomes,
    old: Mapping[str, np.ndarray],
    new: Mapping[str, np.ndarray],
    names: tuple[str, ...],
) -> SampleChange:
    def name(code: int) -> str:
        return names[code] if 0 <= code < len(names) else str(code)

    return SampleChange(
        index=int(outcomes.indices[row]),
        label=name(int(old["label"][row])) if "label" in old else "",
        before=name(int(old["predicted"][row])),
        after=name(int(new["predicted"][row])),
        margin=float(old["margin"][row]) if "margin" in old else None,
    )


def _facts(document: Baseline) -> dict[str, str]:
    return {
        "model sha256": document.model.sha256,
        "target": document.target,
        "runtime": f"{document.runtime} {document.runtime_version}",
        "precision": document.precision,
        "device": document.device.name,
        "data": document.data.fingerprint if document.data else "none",
        "edgeopt": document.edgeopt_version,
    }


def _recipe(side: Recorded) -> dict[str, Any]:
    return dict(side.bundle.report.recipe) if side.bundle is not None else {}


def _flat(value: Any, where: str = "") -> dict[str, str]:
    """``{"a": {"b": 1}}`` → ``{"a.b": "1"}``; a step is addressed by its name, as an override does."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{where}.{key}".lstrip(".")).items()}
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):
        return {k: v for item in value for k, v in _flat(item, where).items()}
    return {where: str(value)}


def _texts(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[TextChange, ...]:
    names = dict.fromkeys([*before, *after])
    return tuple(
        TextChange(name=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )
