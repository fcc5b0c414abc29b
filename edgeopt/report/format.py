"""Figures as text: units shown, three significant digits or more, absence said in words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from edgeopt.bundle.document import LimitRow
from edgeopt.core.measurement import Measurement

__all__ = [
    "bytes_text",
    "conditions_text",
    "figure",
    "interval_text",
    "label",
    "limit_text",
    "plain",
    "plain_block",
    "unit_text",
    "value_text",
]

MISSING = "not measured"

_LABELS = {
    "accuracy_top1_pct": "accuracy",
    "accuracy_top5_pct": "accuracy, top 5",
    "agreement_pct": "agreement",
    "average_precision_pct": "average precision",
    "calibration_error_pct": "calibration error",
    "cold_start_ms": "cold start",
    "drop_pp": "drop",
    "f1_macro_pct": "F1, macro",
    "f1_micro_pct": "F1, micro",
    "int8_macs_pct": "MACs in int8",
    "int8_ops_pct": "operations in int8",
    "latency_noise_ratio": "ratio to itself (noise floor)",
    "latency_p99_ratio": "p99 ratio to FP32",
    "latency_ratio": "ratio to FP32",
    "log_loss_nats": "log loss",
    "mae": "mean absolute error",
    "map_50": "mAP@.5",
    "map_50_95": "mAP@[.5:.95]",
    "miou_pct": "mIoU",
    "output_sqnr_db": "SQNR",
    "peak_bandwidth_gb_s": "peak bandwidth",
    "peak_float32_gops": "peak, float32",
    "peak_int8_gops": "peak, int8",
    "peak_memory_mib": "peak memory",
    "precision_macro_pct": "precision, macro",
    "precision_micro_pct": "precision, micro",
    "r2": "R²",
    "recall_macro_pct": "recall, macro",
    "recall_micro_pct": "recall, micro",
    "rmse": "RMSE",
    "roc_auc_pct": "ROC-AUC",
    "size_mib": "size",
    "sqnr_db": "SQNR",
    "max_abs": "max |Δ|",
    "offline_per_s": "offline, best batch",
    "server_qps": "server, highest rate",
    "throughput_per_s": "throughput",
    "worst_slice_drop_pp": "drop in the worst slice",
    "top1_agreement_pct": "top-1 agreement",
}
_AT_LEAST = ("accuracy", "agreement", "int8_macs", "throughput", "sqnr", "cosine")
_DROP = "drop_"
_SUFFIXES = ("_ms", "_mj", "_us", "_mib", "_pct", "_pp", "_db", "_per_s", "_nats", "_s")
_UNITS = {"1": "", "us": "µs", "1/s": "/s", "pct": "%"}
# Where digits after the point are worth the same whatever the size of the figure.
_FIXED_DECIMALS = {"%": 2, "pct": 2, "pp": 2, "dB": 1}


def figure(measurement: Measurement | None, *, interval: bool = True) -> str:
    """A figure with its unit and interval, or that it was not measured, and why.

    >>> from edgeopt.core.measurement import Measurement, not_measured
    >>> figure(Measurement(name="latency_p50_ms", value=0.4517, unit="ms"))
    '0.452 ms'
    >>> figure(not_measured("latency_p50_ms", "ms", "the target is not here"))
    'not measured: the target is not here'
    """
    if measurement is None:
        return MISSING
    if measurement.value is None:
        return f"{MISSING}: {plain(measurement.reason or '')}"
    text = value_text(measurement)
    unit = unit_text(measurement)
    if unit:
        text += unit if unit == "×" else f" {unit}"
    return f"{text} {interval_text(measurement)}" if interval and measurement.interval else text


def value_text(measurement: Measurement) -> str:
    """The bare number, without its unit; ``not measured`` where there is none."""
    if measurement.value is None:
        return MISSING
    return _number(measurement.value, _decimals_of(measurement))


def interval_text(measurement: Measurement) -> str:
    """``[low, high]`` with as many decimals as the figure; empty where there is no interval."""
    if measurement.value is None or measurement.interval is None:
        return ""
    decimals = _decimals_of(measurement)
    low, high = measurement.interval.low, measurement.interval.high
    return f"[{_number(low, decimals)}, {_number(high, decimals)}]"


def unit_text(measurement: Measurement) -> str:
    """The unit as shown: ``×`` for a ratio of latencies, ``/s`` for a rate, nothing for a bare number."""
    if measurement.unit == "1" and measurement.name.endswith("_ratio"):
        return "×"
    return _UNITS.get(measurement.unit, plain(measurement.unit))


def label(name: str) -> str:
    """A measurement's name for people: ``latency_p50_ms`` is ``latency p50``; the unit stands beside the figure."""
    if name in _LABELS:
        return _LABELS[name]
    if name.startswith(_DROP):
        return f"drop in {label(name.removeprefix(_DROP))}"
    suffix = next((s for s in _SUFFIXES if name.endswith(s)), "")
    return plain(name.removesuffix(suffix).replace("_", " "))


def conditions_text(measurement: Measurement, names: Iterable[str] | None = None) -> str:
    """The conditions, ``batch 1, threads 1``; only ``names`` where given."""
    wanted = measurement.conditions if names is None else [n for n in names if n in measurement.conditions]
    return ", ".join(plain(f"{name.replace('_', ' ')} {measurement.conditions[name]}") for name in wanted)


def limit_text(row: LimitRow) -> str:
    """``drop ≤ 0.5 pp``: what the limit asks for."""
    sign = "≥" if row.name.startswith(_AT_LEAST) else "≤"
    unit = unit_text(row.figure) if row.figure.unit != "1" and not row.name.startswith("agreement") else ""
    return f"{label(row.name)} {sign} {row.limit:g} {unit}".rstrip()


def bytes_text(count: int) -> str:
    """A size in binary units.

    >>> bytes_text(1536)
    '1.50 KiB'
    """
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{_number(size, _decimals(size, unit))} {unit}"


def plain(text: str) -> str:
    """Text from outside in one line, without what a terminal would obey: control and direction-changing characters."""
    return "".join(" " if c in "\n\r\t" else f"\\u{ord(c):04x}" if _is_control(c) else c for c in text)


def plain_block(text: str) -> str:
    """Text of several lines that keep their places, otherwise as ``plain``."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def _decimals_of(measurement: Measurement) -> int | None:
    # A cosine of 0.99999 and one of 0.9999 are ten times apart: three digits would say 1 for both.
    return 7 if "cosine" in measurement.name else _decimals(measurement.value or 0.0, measurement.unit)


def _decimals(value: float, unit: str) -> int | None:
    """Digits after the point; None where only an exponent says it."""
    if unit in _FIXED_DECIMALS:
        return _FIXED_DECIMALS[unit]
    if value == 0:
        return 0
    magnitude = math.floor(math.log10(abs(value)))
    return None if magnitude < -4 else max(0, 2 - magnitude)


def _number(value: float, decimals: int | None) -> str:
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.2e}" if decimals is None else f"{value:,.{decimals}f}"
    # A value that rounds to zero has no sign; a minus is as wide as a plus.
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", "−", 1) if value < 0 else text
