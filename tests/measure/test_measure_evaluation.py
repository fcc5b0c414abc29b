from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeopt.bundle.outcomes import PREDICTION
from edgeopt.core.errors import DataError
from edgeopt.core.slices import SliceColumn
from edgeopt.data.contract import Dataset, Split
from edgeopt.measure.evaluation import evaluate_outputs, flips


def dataset(task, n, *, classes=(), metrics=(), columns=None):
    split = Split(
        name="test",
        source=None,
        indices=np.arange(n)[::-1].copy(),
        how="given",
        fingerprint="f" * 64,
        columns=columns or {},
    )
    return Dataset(name="made", task=task, splits={"test": split}, fingerprint="d", classes=classes, metrics=metrics)


@pytest.fixture
def classifier():
    """FP32's scores, a worse candidate's, and the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 500)
    reference = rng.normal(size=(500, 7)).astype(np.float32)
    reference[np.arange(500), labels] += 3
    return reference, reference + rng.normal(size=reference.shape).astype(np.float32), labels


def by_name(evaluation):
    return {m.name: m for m in evaluation.measurements}


def test_a_classifier_is_judged_by_every_metric_of_its_task(classifier):
    reference, outputs, labels = classifier
    found = evaluate_outputs(reference, outputs, labels, dataset("classification", 500), device="board")
    figures = by_name(found)
    assert [m.name for m in found.measurements][:2] == ["accuracy_top1_pct", "drop_pp"]
    for name in ("accuracy_top5_pct", "f1_macro_pct", "log_loss_nats", "calibration_error_pct"):
        assert figures[name].device == figures[f"drop_{name}"].device == "board"
        assert figures[f"drop_{name}"].interval is not None
    assert figures["drop_log_loss_nats"].interval.low > 0
    assert len(found.classes) == 7
    assert sum(row.samples for row in found.reliability) == 500


def test_its_slices_are_the_classes_and_the_datas_own_columns(classifier):
    reference, outputs, labels = classifier
    lighting = SliceColumn(codes=(np.arange(500) % 2).astype(np.int32), values=("day", "night"))
    data = dataset("classification", 500, classes=tuple("abcdefg"), columns={"lighting": lighting})
    found = evaluate_outputs(reference, outputs, labels, data, device="board")
    assert {(row.column, row.value) for row in found.slices} == {
        *(("class", name) for name in "abcdefg"),
        ("lighting", "day"),
        ("lighting", "night"),
    }
    assert sum(row.samples for row in found.slices if row.column == "lighting") == 500
    assert set(found.outcomes.slices) == {"class", "lighting"}


def test_fp32_itself_is_compared_with_nothing(classifier):
    reference, _, labels = classifier
    found = evaluate_outputs(reference, reference, labels, dataset("classification", 500), device="board")
    assert not [m for m in found.measurements if m.name.startswith("drop_") and m.name != "drop_pp"]
    assert found.slices == ()


def test_the_metric_that_the_data_names_first_leads(classifier):
    reference, outputs, labels = classifier
    data = dataset("classification", 500, metrics=("f1_macro_pct", "roc_auc_pct"))
    found = evaluate_outputs(reference, outputs, labels, data, device="board")
    assert [m.name for m in found.measurements][:2] == ["f1_macro_pct", "drop_f1_macro_pct"]
    assert found.outcomes.primary == "f1_macro_pct"
    assert {row.figure.name for row in found.slices} == {"f1_macro_pct"}
    assert "log_loss_nats" not in by_name(found)


def test_flips_are_sorted_by_how_sure_fp32_was(classifier):
    reference, outputs, labels = classifier
    found = evaluate_outputs(reference, outputs, labels, dataset("classification", 500), device="board")
    rows = flips(found.outcomes, tuple("abcdefg"))
    changed = reference.argmax(axis=1) != outputs.argmax(axis=1)
    assert len(rows) == changed.sum()
    assert [row.margin for row in rows] == sorted((row.margin for row in rows), reverse=True)
    for row in rows:
        place = 499 - row.index  # the split is in reverse order
        assert row.label == "abcdefg"[labels[place]]
        assert row.reference == "abcdefg"[reference[place].argmax()]
        assert row.candidate == "abcdefg"[outputs[place].argmax()]
    assert len(flips(found.outcomes, (), most=3)) == 3


def test_regression_has_its_own_metrics_and_no_classes():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(200, 2)).astype(np.float32)
    reference = targets + 0.1 * rng.normal(size=targets.shape).astype(np.float32)
    outputs = reference + 0.3 * rng.normal(size=targets.shape).astype(np.float32)
    found = evaluate_outputs(reference, outputs, targets, dataset("regression", 200), device="board")
    figures = by_name(found)
    assert [m.name for m in found.measurements][:2] == ["mae", "drop_mae"]
    assert figures["drop_mae"].interval.low > 0
    assert figures["drop_r2"].value > 0
    assert found.classes == ()
    assert "agreement_pct" not in figures, "numbers have no classes to agree on"
    assert "limits.drops" in figures["drop_pp"].reason
    assert PREDICTION not in found.outcomes.candidate
    assert flips(found.outcomes, ()) == ()


def test_a_drop_in_percent_is_the_one_that_recipes_limit():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, (30, 4, 4))
    reference = np.moveaxis(np.eye(3, dtype=np.float32)[targets], -1, 1)
    outputs = reference + rng.normal(size=reference.shape).astype(np.float32)
    figures = by_name(evaluate_outputs(reference, outputs, targets, dataset("segmentation", 30), device="board"))
    assert figures["drop_pp"].value == figures["drop_miou_pct"].value > 0
    assert figures["drop_pp"].unit == "pp"


def test_without_targets_only_the_distance_is_measured():
    outputs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = evaluate_outputs(outputs, outputs + 0.1, None, dataset("unlabelled", 50), device="board")
    assert set(by_name(found)) == {"output_cosine", "output_sqnr_db", "agreement_pct"}
    assert found.outcomes is None


def test_an_unknown_metric_is_refused(classifier):
    reference, outputs, labels = classifier
    data = replace(dataset("classification", 500), metrics=("acuracy",))
    with pytest.raises(DataError, match="no metric of that name"):
        evaluate_outputs(reference, outputs, labels, data, device="board")
