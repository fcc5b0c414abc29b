from __future__ import annotations

import pytest

from edgeopt.bundle.document import Candidate
from edgeopt.core.measurement import Interval, Measurement, not_measured

UNITS = {
    "drop_pp": "pp",
    "latency_ratio": "1",
    "agreement_pct": "%",
    "accuracy_top1_pct": "%",
    "size_mib": "MiB",
    "peak_memory_mib": "MiB",
    "latency_p50_ms": "ms",
}


def figure(name, value, low=None, high=None, n=1000):
    if isinstance(value, str):
        return not_measured(name, UNITS[name], value)
    interval = None if low is None else Interval(low=low, high=high, method="test")
    return Measurement(name=name, value=value, unit=UNITS[name], interval=interval, n=n, device="board")


@pytest.fixture
def make():
    """Makes candidates: figures by name, as a value, ``(value, low, high)``, or a text: not measured, why."""

    def make(name, **fields):
        figures = {key: fields.pop(key) for key in list(fields) if key in UNITS}
        defaults = {
            "runtime": "onnxruntime",
            "runtime_version": "1",
            "precision": "fp32" if "fp32" in name else "int8",
            "dialect": "plain",
            "role": "reference" if "fp32" in name else "candidate",
            "status": "measured",
        }
        measurements = tuple(
            figure(key, *value) if isinstance(value, tuple) else figure(key, value) for key, value in figures.items()
        )
        return Candidate(id=name, measurements=measurements, **{**defaults, **fields})

    return make
