"""Metrics by their names, and which a task is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.registry import Registry
from edgeopt.measure.metrics.base import Metric

__all__ = ["METRICS", "find_metrics", "metrics_for"]

METRICS: Registry[Callable[[], Metric]] = Registry(
    "metric",
    {
        "accuracy_top1_pct": "edgeopt.measure.metrics.accuracy:TopOne",
        "accuracy_top5_pct": "edgeopt.measure.metrics.accuracy:TopFive",
        "average_precision_pct": "edgeopt.measure.metrics.average_precision:AveragePrecision",
        "calibration_error_pct": "edgeopt.measure.metrics.calibration:CalibrationError",
        "cosine": "edgeopt.measure.metrics.cosine:Cosine",
        "f1_macro_pct": "edgeopt.measure.metrics.f1:F1Macro",
        "f1_micro_pct": "edgeopt.measure.metrics.f1:F1Micro",
        "log_loss_nats": "edgeopt.measure.metrics.log_loss:LogLoss",
        "mae": "edgeopt.measure.metrics.mae:MeanAbsoluteError",
        "map_50": "edgeopt.measure.metrics.detection:Map50",
        "map_50_95": "edgeopt.measure.metrics.detection:Map5095",
        "miou_pct": "edgeopt.measure.metrics.segmentation:MeanIoU",
        "pearson": "edgeopt.measure.metrics.pearson:Pearson",
        "precision_macro_pct": "edgeopt.measure.metrics.precision:PrecisionMacro",
        "precision_micro_pct": "edgeopt.measure.metrics.precision:PrecisionMicro",
        "r2": "edgeopt.measure.metrics.r2:RSquared",
        "recall_macro_pct": "edgeopt.measure.metrics.recall:RecallMacro",
        "recall_micro_pct": "edgeopt.measure.metrics.recall:RecallMicro",
        "rmse": "edgeopt.measure.metrics.rmse:RootMeanSquaredError",
        "roc_auc_pct": "edgeopt.measure.metrics.roc_auc:RocAuc",
    },
    "edgeopt.metrics",
)
"""Metric name → what makes it, imported on use."""

_DEFAULTS: dict[str, tuple[str, ...]] = {
    "classification": (
        "accuracy_top1_pct",
        "accuracy_top5_pct",
        "f1_macro_pct",
        "log_loss_nats",
        "calibration_error_pct",
    ),
    "regression": ("mae", "rmse", "r2"),
    "embedding": ("cosine", "pearson"),
    "segmentation": ("miou_pct",),
    "detection": ("map_50_95", "map_50"),
    "unlabelled": (),
}


def metrics_for(task: str, *, scores: int | None = None) -> tuple[Metric, ...]:
    """What a task is judged by where the data does not say; the first is the one whose drop decides.

    Args:
        scores: Scores per sample, of a classifier: of five or fewer the top five are all.
    """
    names = _DEFAULTS[task]
    if scores is not None and scores <= 5:
        names = tuple(name for name in names if name != "accuracy_top5_pct")
    return tuple(METRICS[name]() for name in names)


def find_metrics(names: Sequence[str], task: str, *, scores: int | None = None) -> tuple[Metric, ...]:
    """The metrics that the data names, or its task's own.

    Args:
        names: Of the registry, or ``package.module:callable`` (see ``custom.py``); none: the task's own.

    Raises:
        DataError: A name is unknown or there twice, or the metric is of another task.
    """
    if not names:
        return metrics_for(task, scores=scores)
    found = tuple(_find(name) for name in names)
    called = [metric.name for metric in found]
    if len(set(called)) < len(called):
        raise DataError(
            "Two metrics have one name.",
            got=", ".join(called),
            fix="Name each once; a metric of your own needs a name that no other has.",
        )
    for metric in found:
        if metric.tasks and task not in metric.tasks:
            fitting = [name for name in METRICS if task in METRICS[name]().tasks]
            raise DataError(
                f"The metric {metric.name!r} is not for this data's task.",
                got=f"task {task}; the metric is for {', '.join(sorted(metric.tasks))}",
                fix=f"Metrics of {task}: {', '.join(fitting) or 'none'}.",
            )
    return found


def _find(name: str) -> Metric:
    if ":" in name:
        from edgeopt.measure.metrics.custom import custom_metric  # noqa: PLC0415 - only where one is named

        return custom_metric(name)
    if name not in METRICS:
        known = ", ".join(nearest_first(name, METRICS))
        raise DataError(
            "There is no metric of that name.", got=repr(name), fix=f"Known: {known}; package.module:callable."
        )
    return METRICS[name]()
