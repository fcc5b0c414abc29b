"""How right a candidate is, and how it differs from FP32 on the very same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.bundle.document import ClassRow
from edgeopt.core.errors import BackendError, DataError, EdgeOptError, ModelError
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.measure import statistics
from edgeopt.measure.metrics.scores import predictions

__all__ = ["evaluate", "evaluate_unlabelled"]

_ROWS = 1024  # outputs may be mapped from a file larger than memory


def evaluate(
    reference: np.ndarray,
    outputs: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    device: str,
    conditions: Mapping[str, Condition] | None = None,
) -> tuple[tuple[Measurement, ...], tuple[ClassRow, ...]]:
    """Accuracy, its drop against FP32, and agreement with FP32.

    The drop is FP32's accuracy minus the candidate's, in percentage points: positive is worse. Both are judged on the
    same samples, so its interval comes from the samples on which they differ. Where scores tie, the lower class wins,
    as in NumPy's argmax.

    Args:
        reference: FP32 scores, [N, C]; logits or probabilities.
        outputs: The candidate's, [N, C].
        labels: int [N] in [0, C).
        classes: C names in label order, or none: the numbers then.

    Returns:
        ``accuracy_top1_pct``, ``drop_pp``, ``agreement_pct``, ``output_sqnr_db``; and one row per class.

    Raises:
        DataError: Shapes or labels do not fit.
        ModelError: The FP32 scores hold NaN.
        BackendError: The candidate's scores hold NaN.
    """
    _check_scores(reference, outputs)
    count = reference.shape[1]
    _check_labels(labels, len(reference), count)
    if classes and len(classes) != count:
        raise DataError(
            "The data has another number of classes than the model.",
            got=f"{len(classes)} class names for {count} scores per sample",
            fix="Give one class name per score, in label order.",
        )
    base = _predictions(reference, "FP32 reference", ModelError)
    predicted = _predictions(outputs, "candidate", BackendError)
    figure = _Figures(device, conditions or {})
    base_right, right = base == labels, predicted == labels
    measurements = (
        figure.accuracy(right),
        figure.drop(base_right, right),
        figure.share("agreement_pct", int((base == predicted).sum()), len(labels), note="same class as FP32"),
        figure.sqnr(_powers(reference, outputs), len(labels)),
    )
    names = tuple(classes) or tuple(str(index) for index in range(count))
    rows = tuple(
        ClassRow(
            label=name,
            samples=int(members.sum()),
            accuracy=figure.accuracy(right[members]),
            drop=figure.drop(base_right[members], right[members]),
        )
        for name, members in ((name, labels == index) for index, name in enumerate(names))
    )
    return measurements, rows


def evaluate_unlabelled(
    reference: np.ndarray,
    outputs: np.ndarray,
    *,
    device: str,
    conditions: Mapping[str, Condition] | None = None,
) -> tuple[Measurement, ...]:
    """How near a candidate's outputs are to FP32's where there are no labels.

    Args:
        reference: [N, …]; ``outputs``: of the same shape.

    Returns:
        ``output_cosine`` (over all values), ``output_sqnr_db``, and for scores [N, C], C > 1, ``agreement_pct``.

    Raises:
        DataError: The shapes differ, or there is no sample.
        ModelError, BackendError: NaN, as in ``evaluate``.
    """
    if reference.shape != outputs.shape or reference.ndim == 0 or len(reference) == 0:
        raise DataError(
            "The outputs cannot be compared with FP32's.", got=f"shapes {reference.shape} and {outputs.shape}"
        )
    _check_nan(reference, "FP32 reference", ModelError)
    _check_nan(outputs, "candidate", BackendError)
    figure = _Figures(device, conditions or {})
    powers = _powers(reference, outputs)
    measurements = [figure.cosine(powers, len(reference)), figure.sqnr(powers, len(reference))]
    if reference.ndim == 2 and reference.shape[1] > 1:
        same = int((predictions(reference) == predictions(outputs)).sum())
        measurements.append(figure.share("agreement_pct", same, len(reference), note="same class as FP32"))
    return tuple(measurements)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Powers:
    """Σ x², Σ y², Σ x·y and Σ (x − y)² of a reference x and outputs y."""

    signal: float
    power: float
    cross: float
    noise: float


class _Figures:
    """Measurements that share a device and conditions."""

    def __init__(self, device: str, conditions: Mapping[str, Condition]) -> None:
        self._device, self._conditions = device, dict(conditions)

    def accuracy(self, right: np.ndarray) -> Measurement:
        return self.share("accuracy_top1_pct", int(right.sum()), len(right))

    def share(self, name: str, hits: int, n: int, **conditions: Condition) -> Measurement:
        if n == 0:
            return not_measured(name, "%", "no sample of this class in the test split")
        interval = statistics.proportion(hits, n).scaled(100)
        return self._figure(name, 100 * hits / n, "%", n, interval=interval, **conditions)

    def drop(self, base_right: np.ndarray, right: np.ndarray) -> Measurement:
        n = len(right)
        if n == 0:
            return not_measured("drop_pp", "pp", "no sample of this class in the test split")
        lost, won = int((base_right & ~right).sum()), int((~base_right & right).sum())
        return self._figure(
            "drop_pp",
            100 * (lost - won) / n,
            "pp",
            n,
            interval=statistics.paired_difference(lost, won, n).scaled(100),
            only_fp32_right=lost,
            only_candidate_right=won,
            mcnemar_exact_p=statistics.mcnemar_p(lost, won),
        )

    def cosine(self, powers: _Powers, n: int) -> Measurement:
        if powers.signal == 0 or powers.power == 0:
            return not_measured("output_cosine", "1", "one of the outputs is zero everywhere")
        return self._figure("output_cosine", powers.cross / math.sqrt(powers.signal * powers.power), "1", n)

    def sqnr(self, powers: _Powers, n: int) -> Measurement:
        if powers.noise == 0:
            return not_measured("output_sqnr_db", "dB", "the outputs are equal to FP32's, bit by bit: no noise")
        if powers.signal == 0:
            return not_measured("output_sqnr_db", "dB", "FP32's outputs are zero everywhere: no signal")
        if not math.isfinite(powers.signal) or not math.isfinite(powers.noise):
            return not_measured("output_sqnr_db", "dB", "the outputs hold infinities")
        return self._figure("output_sqnr_db", 10 * math.log10(powers.signal / powers.noise), "dB", n)

    def _figure(
        self, name: str, value: float, unit: str, n: int, *, interval: Interval | None = None, **conditions: Condition
    ) -> Measurement:
        return Measurement(
            name=name,
            value=value,
            unit=unit,
            interval=interval,
            n=n,
            device=self._device,
            conditions={**self._conditions, **conditions},
        )


def _powers(reference: np.ndarray, outputs: np.ndarray) -> _Powers:
    signal = power = cross = noise = 0.0
    for start in range(0, len(reference), _ROWS):
        x = np.asarray(reference[start : start + _ROWS], dtype=np.float64)
        y = np.asarray(outputs[start : start + _ROWS], dtype=np.float64)
        with np.errstate(invalid="ignore"):  # scores may be −∞: masked classes
            signal += float((x * x).sum())
            power += float((y * y).sum())
            cross += float((x * y).sum())
            noise += float(((x - y) ** 2).sum())
    return _Powers(signal=signal, power=power, cross=cross, noise=noise)


def _check_scores(reference: np.ndarray, outputs: np.ndarray) -> None:
    if reference.shape != outputs.shape or reference.ndim != 2 or len(reference) == 0:
        raise DataError(
            "Classification needs one row of scores per sample, as many from the candidate as from FP32.",
            got=f"shapes {list(reference.shape)} and {list(outputs.shape)}",
            fix="Choose the output that holds scores [N, classes], or evaluate the data as unlabelled.",
        )
    if reference.shape[1] == 1:
        raise DataError(
            "One score per sample does not name a class.",
            got=f"an output of shape {list(reference.shape)}",
            fix="Give the model two outputs, e.g. torch.cat([-z, z], 1), or evaluate the data as unlabelled.",
        )


def _check_labels(labels: np.ndarray, n: int, classes: int) -> None:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            "Classification needs one integer label per sample.",
            got=f"{labels.dtype} labels of shape {list(labels.shape)} for {n} samples",
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"The labels do not fit the model's {classes} classes.",
            got=f"labels from {labels.min()} to {labels.max()}",
            fix=f"Labels are class indices from 0 to {classes - 1}.",
        )


def _predictions(scores: np.ndarray, whose: str, error: type[EdgeOptError]) -> np.ndarray:
    _check_nan(scores, whose, error)
    return predictions(scores)


def _check_nan(array: np.ndarray, whose: str, error: type[EdgeOptError]) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    for start in range(0, len(array), _ROWS):
        rows = array[start : start + _ROWS].reshape(len(array[start : start + _ROWS]), -1)
        bad = np.flatnonzero(np.isnan(rows).any(axis=1))
        if bad.size:
            raise error(
                f"The outputs of the {whose} hold NaN.",
                got=f"NaN first in sample {start + int(bad[0])} of {len(array)}",
                fix="Check that sample, and whether the model overflows (float16, a division, a logarithm).",
            )
