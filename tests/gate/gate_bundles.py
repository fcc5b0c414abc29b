"""Real bundles whose outcomes a test chooses, sample by sample."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from sample_bundle import CLASSES, fill_bundle, sample_manifest
from sample_report import build_sample_report

from edgeopt.bundle.document import SplitRow
from edgeopt.bundle.layout import RECIPE, REPORT_JSON, report_json, write_yaml
from edgeopt.bundle.manifest import DataRecord
from edgeopt.bundle.outcomes import OUTCOMES, Outcomes, write_outcomes
from edgeopt.bundle.write import write_bundle
from edgeopt.core.measurement import Interval, Measurement
from edgeopt.core.slices import SliceColumn
from edgeopt.recipes.schema import Measure, Recipe

BOARD = "board"


def drop(value, low, high, n=1000):
    return Measurement(
        name="drop_pp", value=value, unit="pp", interval=Interval(low=low, high=high, method="test"), n=n
    )


def plain_figure(name, value, unit="1", **fields):
    return Measurement(name=name, value=value, unit=unit, device=BOARD, **fields)


def right_and_wrong(n, wrong=(), classes=CLASSES):
    """Outcomes of ``n`` samples: those in ``wrong`` are taken for the next class."""
    labels = np.arange(n) % classes
    predicted = labels.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % classes
    samples = {
        "accuracy_top1_pct": {"value": predicted == labels},
        "prediction": {"label": labels, "predicted": predicted, "margin": np.linspace(0, 1, n, dtype=np.float32)},
    }
    names = tuple(f"class {index}" for index in range(classes))
    return Outcomes(
        split="ef" * 32,
        task="classification",
        primary="accuracy_top1_pct",
        indices=np.arange(n),
        slices={"class": SliceColumn(codes=labels.astype(np.int32), values=names)},
        candidate=samples,
        reference=samples,
    )


def gate_bundle_at(
    folder: Path,
    *,
    figures=(),
    outcomes=None,
    limits=None,
    slices=(),
    latency_ms=(),
    device=BOARD,
    test_split=None,
    role="candidate",
    **manifest,
) -> Path:
    report = build_sample_report()
    shipped = report.shipped.model_copy(
        update={
            "measurements": tuple(figures),
            "slices": tuple(slices),
            "latency_ms": tuple(latency_ms),
            "role": role,
            "classes": (),
            "reason": "",
        }
    )
    candidates = tuple(shipped if c.shipped else c for c in report.candidates)
    recipe = {**report.recipe, "limits": limits or {}}
    info = report.device.model_copy(update={"name": device})
    report = report.model_copy(update={"candidates": candidates, "recipe": recipe, "device": info})

    def fill(directory: Path) -> None:
        fill_bundle(directory)
        quick = Measure(latency_samples=40, block=4, warmup=2)
        write_yaml(directory / RECIPE, Recipe(schema_version=1, name="fp32", steps=(), measure=quick))
        (directory / REPORT_JSON).write_text(report_json(report), encoding="utf-8")
        if outcomes is not None:
            write_outcomes(directory / OUTCOMES, outcomes)

    split = SplitRow(name="test", samples=len(outcomes) if outcomes else 8, how="made in code", fingerprint="ef" * 32)
    data = manifest.pop("data", DataRecord(name="synthetic", fingerprint="cd" * 32, splits=(split,)))
    return write_bundle(folder, fill, lambda _: sample_manifest(data=data, **manifest))


def of_other_data(outcomes):
    return dataclasses.replace(outcomes, split="00" * 32)
