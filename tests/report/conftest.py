"""Reports of every odd kind, made from the synthetic one."""

from __future__ import annotations

import pytest

from edgeopt.bundle.document import Report
from edgeopt.core.events import Event
from edgeopt.core.measurement import not_measured
from edgeopt.core.spec import TensorSpec

HOSTILE = "<script>alert(1)</script>\x1b[31m[bold]|`*_\u202e"


@pytest.fixture
def bare_report(sample_report) -> Report:
    """Nothing was measured: no data, no layers, no parity, one engine that only its device can build."""
    shipped = sample_report.candidates[4].model_copy(update={"shipped": True, "measurements": ()})
    target = sample_report.target.model_copy(update={"measured_here": False, "reason": "No Jetson is here."})
    return sample_report.model_copy(
        update={
            "candidates": (shipped,),
            "data": None,
            "events": (),
            "headline": (),
            "layers": (),
            "parity": (),
            "stages": (),
            "target": target,
            "verdict": sample_report.verdict.model_copy(update={"limits": ()}),
        }
    )


@pytest.fixture
def hostile_report(sample_report) -> Report:
    """Every text that comes from outside tries to be markup, and to reach the terminal."""
    shipped = sample_report.shipped.model_copy(
        update={
            "id": HOSTILE,
            "runtime_version": HOSTILE,
            "events": (Event(kind="fallback", stage="compile", message=HOSTILE, node=HOSTILE),),
            "classes": tuple(r.model_copy(update={"label": HOSTILE}) for r in sample_report.shipped.classes),
        }
    )
    failed = sample_report.candidates[4].model_copy(
        update={
            "reason": HOSTILE,
            "next_command": f"```\n{HOSTILE}",
            "measurements": (not_measured("latency_p50_ms", "ms", HOSTILE),),
        }
    )
    spec = TensorSpec(name=HOSTILE, dtype="float32", shape=("batch", 1))
    return sample_report.model_copy(
        update={
            "model": sample_report.model.model_copy(update={"name": HOSTILE, "inputs": (spec,)}),
            "command": f"edgeopt compile '{HOSTILE}' ```",
            "headline": (HOSTILE,),
            "recipe": {"name": HOSTILE},
            "candidates": (*sample_report.candidates[:3], shipped, failed),
            "layers": tuple(r.model_copy(update={"name": HOSTILE, "reason": HOSTILE}) for r in sample_report.layers),
            "parity": tuple(
                r.model_copy(update={"stage": HOSTILE, "tolerance": HOSTILE}) for r in sample_report.parity
            ),
            "stages": tuple(r.model_copy(update={"name": HOSTILE}) for r in sample_report.stages),
            "events": (Event(kind="warning", stage="data", message=HOSTILE),),
        }
    )


@pytest.fixture
def large_report(sample_report) -> Report:
    """A thousand classes, five hundred layers, twelve candidates with 5,000 samples each."""
    row, layer, base = sample_report.shipped.classes[0], sample_report.layers[0], sample_report.shipped
    classes = tuple(row.model_copy(update={"label": f"class {i}"}) for i in range(1000))
    samples = tuple(1 + (i * 7919 % 5000) / 5000 for i in range(5000))
    candidates = [
        base.model_copy(
            update={
                "id": f"runtime{i}-int8",
                "runtime": f"runtime{i}",
                "shipped": i == 0,
                "classes": classes,
                "latency_ms": samples,
            }
        )
        for i in range(12)
    ]
    layers = tuple(layer.model_copy(update={"name": f"backbone/stage/block{i}/conv"}) for i in range(500))
    return sample_report.model_copy(update={"candidates": tuple(candidates), "layers": layers})
