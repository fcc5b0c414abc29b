from __future__ import annotations

import math

import numpy as np
import pytest

from edgeopt.core.errors import BackendError, DataError, ModelError
from edgeopt.measure.classification import evaluate, evaluate_unlabelled


def scores(predictions, classes=3):
    return np.eye(classes, dtype=np.float32)[predictions]


@pytest.fixture
def figures():
    """FP32 errs on 1 of 8, the candidate on 3; they differ on 3 samples, one of them in the candidate's favour."""
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    base = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    mine = np.array([0, 0, 2, 1, 1, 2, 2, 1])
    measurements, rows = evaluate(
        scores(base), scores(mine), labels, ["cat", "dog", "eel"], device="board", conditions={"batch": 4}
    )
    return {m.name: m for m in measurements}, rows


def test_accuracy_drop_and_agreement_are_those_of_counting(figures):
    found, _ = figures
    assert found["accuracy_top1_pct"].value == pytest.approx(100 * 5 / 8)
    assert found["drop_pp"].value == pytest.approx(100 * 7 / 8 - 100 * 5 / 8)
    assert found["agreement_pct"].value == pytest.approx(100 * 4 / 8)
    assert {m.n for m in found.values()} == {8}
    assert {m.device for m in found.values()} == {"board"}
    assert all(m.conditions["batch"] == 4 for m in found.values())
    assert all(m.interval.low <= m.value <= m.interval.high for m in found.values() if m.interval)


def test_the_scores_sqnr_is_the_ratio_of_powers(figures):
    found, _ = figures
    differing, samples = 4, 8  # `scores` puts one 1 in each row: power 1 per sample, 2 where the rows differ
    assert found["output_sqnr_db"].value == pytest.approx(10 * math.log10(samples / (2 * differing)), abs=1e-9)


def test_scores_of_masked_classes_have_no_sqnr():
    masked = np.array([[1.0, -np.inf], [2.0, -np.inf]])
    measurements, _ = evaluate(masked, masked + np.array([0.1, 0]), np.array([0, 0]), [], device="d")
    assert "infinities" in next(m.reason for m in measurements if m.name == "output_sqnr_db")


def test_the_drop_tells_the_discordant_samples(figures):
    found, _ = figures
    conditions = found["drop_pp"].conditions
    assert (conditions["only_fp32_right"], conditions["only_candidate_right"]) == (3, 1)
    # Exact McNemar, by hand: of 4 fair coins, 3 or more or 1 or fewer heads: 1 - P(2) = 1 - 6/16.
    assert conditions["mcnemar_exact_p"] == pytest.approx(10 / 16)
    assert found["drop_pp"].unit == "pp"


def test_classes_are_counted_each_and_an_absent_one_says_so(figures):
    _, rows = figures
    assert [(row.label, row.samples) for row in rows] == [("cat", 3), ("dog", 5), ("eel", 0)]
    assert rows[0].accuracy.value == pytest.approx(200 / 3)
    assert rows[0].drop.value == pytest.approx(100 / 3)
    assert rows[1].drop.value == pytest.approx(20)
    assert rows[2].accuracy.value is None
    assert "no sample of this class" in rows[2].drop.reason


def test_classes_without_names_have_numbers():
    _, rows = evaluate(scores([0, 1]), scores([0, 1]), np.array([0, 1]), [], device="d")
    assert [row.label for row in rows] == ["0", "1", "2"]


def test_a_candidate_that_never_differs_still_has_an_interval():
    labels = np.zeros(1000, int)
    measurements, _ = evaluate(scores(labels), scores(labels), labels, [], device="d")
    drop = next(m for m in measurements if m.name == "drop_pp")
    z2 = 1.959964**2
    assert drop.value == 0
    assert drop.interval.high == pytest.approx(100 * z2 / (1000 + z2), rel=1e-5)  # Tango's closed form at b = c = 0


@pytest.mark.parametrize(
    ("reference", "outputs", "labels", "classes", "message"),
    [
        (np.ones((4, 1)), np.ones((4, 1)), np.zeros(4, int), [], "One score per sample.*two outputs"),
        (np.ones((4, 3)), np.ones((3, 3)), np.zeros(4, int), [], "as many from the candidate"),
        (np.ones((4, 3, 2)), np.ones((4, 3, 2)), np.zeros(4, int), [], "one row of scores"),
        (np.ones((0, 3)), np.ones((0, 3)), np.zeros(0, int), [], "one row of scores"),
        (np.ones((4, 3)), np.ones((4, 3)), np.zeros(3, int), [], "one integer label per sample"),
        (np.ones((4, 3)), np.ones((4, 3)), np.zeros(4), [], "one integer label per sample.*float64"),
        (np.ones((4, 3)), np.ones((4, 3)), np.array([0, 1, 2, 3]), [], "3 classes.*from 0 to 3"),
        (np.ones((4, 3)), np.ones((4, 3)), np.array([0, -1, 2, 1]), [], "from -1 to 2"),
        (np.ones((4, 3)), np.ones((4, 3)), np.zeros(4, int), ["a", "b"], "2 class names for 3 scores"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(reference, outputs, labels, classes, message):
    with pytest.raises(DataError, match=message):
        evaluate(reference, outputs, labels, classes, device="d")


def test_nan_names_its_first_sample_and_whose_it_is():
    good, bad = np.ones((3000, 3)), np.ones((3000, 3))
    bad[2047, 1] = bad[2500, 0] = np.nan
    labels = np.zeros(3000, int)
    with pytest.raises(BackendError, match=r"candidate hold NaN.*sample 2047 of 3000"):
        evaluate(good, bad, labels, [], device="d")
    with pytest.raises(ModelError, match=r"FP32 reference hold NaN.*sample 2047"):
        evaluate(bad, good, labels, [], device="d")
    with pytest.raises(BackendError, match="sample 2047"):
        evaluate_unlabelled(good, bad, device="d")


def test_without_labels_outputs_are_compared_with_fp32():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 5)).astype(np.float32)
    y = x + 0.01 * rng.normal(size=x.shape).astype(np.float32)
    found = {m.name: m.value for m in evaluate_unlabelled(x, y, device="d")}
    a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    assert found["output_cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert found["output_sqnr_db"] == pytest.approx(10 * math.log10((a @ a) / ((a - b) @ (a - b))), rel=1e-12)
    assert found["agreement_pct"] == pytest.approx(100 * np.mean(x.argmax(1) == y.argmax(1)))


def test_outputs_that_are_no_scores_have_no_agreement():
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    assert [m.name for m in evaluate_unlabelled(x, x + 1, device="d")] == ["output_cosine", "output_sqnr_db"]


def test_equal_outputs_have_no_noise_to_measure():
    x = np.ones((4, 3))
    sqnr = next(m for m in evaluate_unlabelled(x, x, device="d") if m.name == "output_sqnr_db")
    assert sqnr.value is None
    assert "bit by bit" in sqnr.reason


def test_outputs_that_are_zero_everywhere_say_so():
    found = {m.name: m.reason for m in evaluate_unlabelled(np.zeros((4, 3)), np.ones((4, 3)), device="d")}
    assert "zero everywhere" in found["output_cosine"]
    assert "no signal" in found["output_sqnr_db"]


def test_outputs_of_another_shape_cannot_be_compared():
    with pytest.raises(DataError, match="cannot be compared"):
        evaluate_unlabelled(np.ones((4, 3)), np.ones((4, 2)), device="d")
