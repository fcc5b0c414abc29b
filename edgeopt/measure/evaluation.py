"""A candidate judged on the test split: every metric of its task, its drop against FP32, and where it drops most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeopt.bundle.accuracy import drop_name
from edgeopt.bundle.document import ClassRow, FlipRow, ReliabilityRow, SliceRow
from edgeopt.bundle.outcomes import PREDICTION, Outcomes, Samples
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.core.slices import SliceColumn
from edgeopt.data.contract import Dataset
from edgeopt.measure import statistics
from edgeopt.measure.classification import evaluate, evaluate_unlabelled
from edgeopt.measure.metrics import Metric, find_metrics
from edgeopt.measure.metrics.calibration import BINS, CalibrationError, reliability
from edgeopt.measure.metrics.scores import margins, predictions
from edgeopt.measure.paired import paired_drop, slice_rows

__all__ = ["CLASS_COLUMN", "Evaluation", "evaluate_outputs", "flips"]

CLASS_COLUMN = "class"
_DIRECT = ("accuracy_top1_pct",)  # what ``classification.evaluate`` measures itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of it.

    Attributes:
        measurements: The first metric is the primary one, whose drop decides.
        classes: One row per class, of a classifier.
        slices: The primary metric's drop in every part of the split, the worst first.
        reliability: Of a classifier whose calibration error is measured.
        outcomes: Of every sample; None without targets.
    """

    measurements: tuple[Measurement, ...]
    classes: tuple[ClassRow, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    reliability: tuple[ReliabilityRow, ...] = ()
    outcomes: Outcomes | None = field(default=None, repr=False)


def evaluate_outputs(
    reference: np.ndarray,
    outputs: np.ndarray,
    targets: np.ndarray | None,
    data: Dataset,
    *,
    device: str,
    conditions: Mapping[str, Condition] | None = None,
    near: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge ``outputs`` by the data's metrics, and beside FP32's ``reference`` on the same samples.

    Args:
        reference: FP32's judged output, [N, …]; the same array as ``outputs`` where FP32 itself is judged: then nothing
            is compared.
        outputs: The candidate's.
        targets: Of the test split, [N, …]; None: only how near the outputs are to FP32's.
        near: FP32's and the candidate's first output as they are, where what is judged was made of them.
        seed: Of resamples.

    Raises:
        DataError: Outputs, targets and metrics do not fit together.
        ModelError: FP32's outputs hold NaN; BackendError: the candidate's do.
    """
    given = dict(conditions or {})
    if targets is None or data.task == "unlabelled":
        return Evaluation(
            measurements=evaluate_unlabelled(*(near or (reference, outputs)), device=device, conditions=given)
        )
    classes: tuple[ClassRow, ...] = ()
    scores = None
    if data.task == "classification":
        first, classes = evaluate(reference, outputs, targets, data.classes, device=device, conditions=given)
        scores = outputs.shape[1]
    else:
        near_figures = evaluate_unlabelled(*(near or (reference, outputs)), device=device, conditions=given)
        first = tuple(row for row in near_figures if row.name != "agreement_pct")  # there are no classes to agree on
    metrics = find_metrics(data.metrics, data.task, scores=scores)
    split = data.splits["test"]
    mine = {metric.name: metric.samples(outputs, targets) for metric in metrics}
    same = outputs is reference
    theirs = mine if same else {metric.name: metric.samples(reference, targets) for metric in metrics}
    figures = _Figures(device=device, conditions=given, seed=seed)
    measured = [row for metric in metrics for row in figures.of(metric, theirs, mine, compared=not same)]
    if not same and data.task != "classification":
        measured.append(_in_points(metrics[0], measured))
    columns = _columns(data, targets)
    primary = metrics[0]
    slices = () if same else slice_rows(primary, theirs[primary.name], mine[primary.name], columns, seed=seed)
    if data.task == "classification":
        mine, theirs = mine | {PREDICTION: _decisions(outputs, targets)}, dict(theirs)
        theirs[PREDICTION] = mine[PREDICTION] if same else _decisions(reference, targets)
    return Evaluation(
        measurements=_in_order(first, measured, primary),
        classes=classes,
        slices=tuple(figures.stamped(row) for row in slices),
        reliability=_reliability(mine),
        outcomes=Outcomes(
            split=split.fingerprint,
            task=data.task,
            primary=primary.name,
            indices=np.asarray(split.indices, np.int64),
            slices=columns,
            candidate=mine,
            reference=theirs,
        ),
    )


def flips(outcomes: Outcomes, classes: Sequence[str], most: int = 200) -> tuple[FlipRow, ...]:
    """The samples on which FP32 and candidate decide differently, FP32's surest decisions first; no pictures yet."""
    mine, theirs = outcomes.candidate.get(PREDICTION), outcomes.reference.get(PREDICTION)
    if mine is None or theirs is None:
        return ()
    places = np.flatnonzero(mine["predicted"] != theirs["predicted"])
    places = places[np.argsort(-theirs["margin"][places], kind="stable")][:most]

    def named(index: int) -> str:
        return classes[index] if index < len(classes) else str(index)

    return tuple(
        FlipRow(
            index=int(outcomes.indices[place]),
            label=named(int(mine["label"][place])),
            reference=named(int(theirs["predicted"][place])),
            candidate=named(int(mine["predicted"][place])),
            margin=float(theirs["margin"][place]),
        )
        for place in places
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """Measurements that share a device and conditions."""

    device: str
    conditions: Mapping[str, Condition]
    seed: int

    def of(
        self, metric: Metric, theirs: Mapping[str, Samples], mine: Mapping[str, Samples], *, compared: bool
    ) -> list[Measurement]:
        """The metric's figure and, where it is compared, its drop; none that another function measures already."""
        if metric.name in _DIRECT:
            return []
        samples = mine[metric.name]
        n, value = len(next(iter(samples.values()))), metric.value(samples)
        if not np.isfinite(value):
            rows = [not_measured(metric.name, metric.unit, f"it is not defined on these {n} samples")]
        else:
            interval = None
            if metric.mean:
                interval = _of_mean(metric, samples["value"], self.seed)
            rows = [Measurement(name=metric.name, value=value, unit=metric.unit, interval=interval, n=n)]
        if compared:
            rows.append(paired_drop(metric, theirs[metric.name], samples, seed=self.seed))
        return [self._on_device(row) for row in rows]

    def stamped(self, row: SliceRow) -> SliceRow:
        """The slice's figures with the device they were measured on."""
        return row.model_copy(update={"figure": self._on_device(row.figure), "drop": self._on_device(row.drop)})

    def _on_device(self, row: Measurement) -> Measurement:
        if row.value is None:
            return row
        return Measurement(
            name=row.name,
            value=row.value,
            unit=row.unit,
            interval=row.interval,
            n=row.n,
            device=self.device,
            conditions={**self.conditions, **row.conditions},
        )


def _in_points(primary: Metric, measured: Sequence[Measurement]) -> Measurement:
    """``drop_pp``, which recipes limit: the primary metric's drop, where that is in percentage points."""
    drop = next(row for row in measured if row.name == drop_name(primary.name))
    if drop.value is not None and drop.unit == "pp":
        return replace(drop, name="drop_pp")
    why = drop.reason or f"{primary.name}, which decides for this data, is not in percent: limit it under limits.drops"
    return not_measured("drop_pp", "pp", why)


def _of_mean(metric: Metric, values: np.ndarray, seed: int) -> Interval | None:
    """Of a share Wilson's, which has a width where all samples are alike; else the bootstrap's."""
    if values.dtype != np.bool_:
        return statistics.bootstrap_mean(values, seed=seed, scale=metric.scale)
    return statistics.proportion(int(values.sum()), len(values)).scaled(metric.scale)


def _in_order(
    first: Sequence[Measurement], measured: Sequence[Measurement], primary: Metric
) -> tuple[Measurement, ...]:
    """The primary metric and its drop before all else."""
    rows = [*first, *measured]
    leading = (primary.name, drop_name(primary.name))
    return tuple(sorted(rows, key=lambda row: leading.index(row.name) if row.name in leading else len(leading)))


def _reliability(samples: Mapping[str, Samples]) -> tuple[ReliabilityRow, ...]:
    kept = samples.get(CalibrationError.name)
    if kept is None:
        return ()
    rows = zip(*reliability(kept), strict=True)
    return tuple(
        ReliabilityRow(
            low=place / BINS, high=(place + 1) / BINS, samples=int(n), confidence=float(sure), accuracy=float(right)
        )
        for place, (n, sure, right) in enumerate(rows)
    )


def _columns(data: Dataset, targets: np.ndarray) -> dict[str, SliceColumn]:
    columns = dict(data.splits["test"].columns)
    if data.task == "classification":
        count = max(len(data.classes), int(targets.max()) + 1)
        names = tuple(data.classes) or tuple(str(index) for index in range(count))
        columns = {CLASS_COLUMN: SliceColumn(codes=targets.astype(np.int32), values=names)} | columns
    return columns


def _decisions(outputs: np.ndarray, targets: np.ndarray) -> Samples:
    smallest = np.uint8 if outputs.shape[1] <= 256 else np.uint16 if outputs.shape[1] <= 65536 else np.int32
    return {
        "label": targets.astype(smallest),
        "predicted": predictions(outputs).astype(smallest),
        "margin": margins(outputs).astype(np.float16),
    }
