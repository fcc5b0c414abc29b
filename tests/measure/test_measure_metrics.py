from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgeopt.core.errors import DataError
from edgeopt.measure.metrics import METRICS, drop_of, find_metrics, metrics_for
from edgeopt.measure.metrics.calibration import reliability
from edgeopt.measure.paired import paired_drop


def scores(seed, n=300, classes=7, *, ready=False):
    """Scores [N, C] that know something of the labels [N], and integer weights [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    outputs = rng.normal(size=(n, classes)).astype(np.float32)
    outputs[np.arange(n), labels] += 1.0
    if ready:
        raised = np.exp(outputs.astype(np.float64))
        outputs = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return outputs, labels, rng.integers(0, 4, n)


def softmax(outputs):
    raised = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def macro(function):
    def theirs(outputs, labels, weights):
        present = np.unique(np.concatenate([labels[weights > 0], outputs.argmax(axis=1)[weights > 0]]))
        return 100 * function(
            labels, outputs.argmax(axis=1), labels=present, average="macro", sample_weight=weights, zero_division=0
        )

    return theirs


def ranked(function):
    def theirs(outputs, labels, weights):
        return 100 * np.mean(
            [function(labels == one, softmax(outputs)[:, one], sample_weight=weights) for one in np.unique(labels)]
        )

    return theirs


ORACLES = {
    "accuracy_top1_pct": lambda o, y, w: 100 * sk.accuracy_score(y, o.argmax(axis=1), sample_weight=w),
    "accuracy_top5_pct": lambda o, y, w: (
        100 * sk.top_k_accuracy_score(y, o, k=5, sample_weight=w, labels=range(o.shape[1]))
    ),
    "precision_macro_pct": macro(sk.precision_score),
    "recall_macro_pct": macro(sk.recall_score),
    "f1_macro_pct": macro(sk.f1_score),
    "f1_micro_pct": lambda o, y, w: 100 * sk.f1_score(y, o.argmax(axis=1), average="micro", sample_weight=w),
    "precision_micro_pct": lambda o, y, w: (
        100 * sk.precision_score(y, o.argmax(axis=1), average="micro", sample_weight=w)
    ),
    "recall_micro_pct": lambda o, y, w: 100 * sk.recall_score(y, o.argmax(axis=1), average="micro", sample_weight=w),
    "log_loss_nats": lambda o, y, w: sk.log_loss(y, softmax(o), sample_weight=w, labels=range(o.shape[1])),
    "roc_auc_pct": ranked(sk.roc_auc_score),
    "average_precision_pct": ranked(sk.average_precision_score),
}


@pytest.mark.parametrize("name", ORACLES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_classifiers_are_judged_as_scikit_learn_judges_them(name, seed):
    outputs, labels, weights = scores(seed)
    metric = METRICS[name]()
    found = metric.value(metric.samples(outputs, labels), weights)
    assert found == pytest.approx(ORACLES[name](outputs, labels, weights), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("mae", lambda o, y, w: sk.mean_absolute_error(y, o, sample_weight=w)),
        ("rmse", lambda o, y, w: np.sqrt(sk.mean_squared_error(y, o, sample_weight=w))),
        ("r2", lambda o, y, w: sk.r2_score(y, o, sample_weight=w)),
        (
            "pearson",
            lambda o, y, w: np.corrcoef(np.repeat(o.ravel(), np.repeat(w, 3)), np.repeat(y.ravel(), np.repeat(w, 3)))[
                0, 1
            ],
        ),
        (
            "cosine",
            lambda o, y, w: np.average(
                [1 - sk.pairwise.cosine_distances([a], [b])[0, 0] for a, b in zip(o, y, strict=True)], weights=w
            ),
        ),
    ],
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_numbers_are_judged_as_scikit_learn_judges_them(name, oracle, seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(3.0, 1.0, size=(80, 3))
    outputs = targets + rng.normal(0, 0.3, size=(80, 3))
    weights = rng.integers(0, 4, 80)
    metric = METRICS[name]()
    assert metric.value(metric.samples(outputs, targets), weights) == pytest.approx(oracle(outputs, targets, weights))


def judged(name):
    """A metric and two models' records on made-up data of a task that it is for."""
    metric = METRICS[name]()
    rng = np.random.default_rng(0)
    if "classification" in metric.tasks:
        outputs, targets, _ = scores(0, 120)
        worse = outputs + rng.normal(size=outputs.shape).astype(np.float32)
    elif "detection" in metric.tasks:
        corners = rng.uniform(0, 50, (40, 3, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (40, 3, 2))], axis=2)
        classes = rng.integers(0, 2, (40, 3, 1))
        targets = np.concatenate([classes, boxes], axis=2).astype(np.float32)
        outputs = np.concatenate([boxes, rng.uniform(0.2, 1, (40, 3, 1)), classes], axis=2).astype(np.float32)
        worse = outputs + np.array([5, 5, 5, 5, 0, 0], np.float32)
    elif "segmentation" in metric.tasks:
        targets = rng.integers(0, 3, (30, 6, 6))
        outputs = np.moveaxis(np.eye(3, dtype=np.float32)[targets], -1, 1)
        worse = outputs + rng.normal(size=outputs.shape).astype(np.float32)
    else:
        targets = rng.normal(size=(60, 4))
        outputs = targets + 0.1 * rng.normal(size=(60, 4))
        worse = targets + rng.normal(size=(60, 4))
    return metric, metric.samples(outputs, targets), metric.samples(worse, targets)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_its_promises(name):
    metric, good, bad = judged(name)
    n = len(next(iter(good.values())))
    assert metric.name == name
    assert metric.unit
    assert metric.tasks
    assert all(len(array) == n and not array.dtype.hasobject for array in good.values())
    assert drop_of(metric, metric.value(good), metric.value(bad)) > 0, "the worse model must have a drop"
    # A weight of two is the sample twice, a weight of zero is none; None is one each.
    weights = np.random.default_rng(1).integers(0, 3, n)
    repeated = {key: np.repeat(array, weights, axis=0) for key, array in good.items()}
    assert metric.value(good, weights) == pytest.approx(metric.value(repeated), rel=1e-9)
    assert metric.value(good, np.ones(n)) == pytest.approx(metric.value(good), rel=1e-12)
    if metric.mean:
        assert metric.value(good) == pytest.approx(metric.scale * good["value"].mean(), rel=1e-6)


@pytest.mark.parametrize("name", ["roc_auc_pct", "average_precision_pct", "log_loss_nats"])
def test_a_sure_nets_probabilities_keep_all_their_digits(name):
    """Most of them are one within float32's precision, and would tie if they were rounded."""
    outputs, labels, weights = scores(3)
    outputs *= 12
    metric = METRICS[name]()
    found = metric.value(metric.samples(outputs, labels), weights)
    assert found == pytest.approx(ORACLES[name](outputs, labels, weights), abs=1e-9)


def test_probabilities_that_tie_go_on_to_tie():
    """Those of an int8 softmax do, and their rows sum to one only nearly."""
    ready = np.array([[0.5, 0.5], [0.5, 0.4995], [0.4, 0.6], [0.7, 0.3]], np.float32)
    labels = np.array([1, 0, 1, 0])
    metric = METRICS["roc_auc_pct"]()
    found = metric.value(metric.samples(ready[:, ::-1], labels))
    assert found == pytest.approx(100 * sk.roc_auc_score(labels, ready[:, 0]))


def test_a_metric_named_twice_is_one_clear_error():
    with pytest.raises(DataError, match=r"Two metrics have one name.*Name each once"):
        find_metrics(("f1_macro_pct", "f1_macro_pct"), "classification")


def test_samples_of_two_lengths_are_not_paired():
    metric = METRICS["log_loss_nats"]()
    with pytest.raises(DataError, match=r"judged on the same ones.*20 and 30"):
        paired_drop(metric, {"value": np.zeros(30)}, {"value": np.zeros(20)})


def test_scores_may_be_logits_or_probabilities():
    logits, labels, _ = scores(0)
    for name in ("log_loss_nats", "calibration_error_pct", "roc_auc_pct"):
        metric = METRICS[name]()
        ready = softmax(logits).astype(np.float32)
        assert metric.value(metric.samples(logits, labels)) == pytest.approx(
            metric.value(metric.samples(ready, labels)), rel=1e-5
        )


def test_the_calibration_error_is_the_papers_sum():
    outputs, labels, _ = scores(0, n=500)
    confidence, right = softmax(outputs).max(axis=1), outputs.argmax(axis=1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.sum() / 500 * abs(right[inside].mean() - confidence[inside].mean())
    metric = METRICS["calibration_error_pct"]()
    assert metric.value(metric.samples(outputs, labels)) == pytest.approx(100 * total, abs=1e-5)


def test_a_confident_and_right_model_is_calibrated():
    outputs = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    metric = METRICS["calibration_error_pct"]()
    kept = metric.samples(outputs, np.arange(4))
    assert metric.value(kept) == 0
    count, _, accuracy = reliability(kept)
    assert (count[-1], accuracy[-1], count[:-1].sum()) == (4, 1, 0)


def test_what_the_samples_do_not_define_is_nan():
    outputs, _, _ = scores(0, 20, 3)
    metric = METRICS["roc_auc_pct"]()
    assert np.isnan(metric.value(metric.samples(outputs, np.zeros(20, np.int64))))
    r2 = METRICS["r2"]()
    assert np.isnan(r2.value(r2.samples(outputs, np.ones((20, 3)))))


def test_the_top_five_of_five_are_no_figure():
    assert "accuracy_top5_pct" not in [metric.name for metric in metrics_for("classification", scores=5)]
    assert "accuracy_top5_pct" in [metric.name for metric in metrics_for("classification", scores=6)]


def cost(outputs, targets):
    """A business's cost matrix: missing class 0 costs ten."""
    wrong = outputs.argmax(axis=1) != targets
    return wrong * np.where(targets == 0, 10.0, 1.0)


def ragged(outputs, targets):
    return outputs


def broken(outputs, targets):
    raise ZeroDivisionError("oh")


class Hits:
    name, unit, better = "hits", "1", "higher"

    def samples(self, outputs, targets):
        return {"hit": outputs.argmax(axis=1) == targets}

    def value(self, samples, weights=None):
        return float(np.average(samples["hit"], weights=weights))


class Nothing:
    name = "nothing"


def test_a_function_of_the_users_own_is_a_metric():
    (metric,) = find_metrics([f"{__name__}:cost"], "classification")
    outputs, labels, _ = scores(0)
    assert metric.name == "cost"
    assert metric.better == "lower"
    assert metric.value(metric.samples(outputs, labels)) == pytest.approx(cost(outputs, labels).mean())


def test_a_class_of_the_users_own_is_a_metric():
    (metric,) = find_metrics([f"{__name__}:Hits"], "classification")
    outputs, labels, _ = scores(0)
    assert metric.value(metric.samples(outputs, labels)) == (outputs.argmax(axis=1) == labels).mean()
    assert metric.mean is False


@pytest.mark.parametrize(
    ("names", "task", "message"),
    [
        (["f1_macr"], "classification", "f1_macro_pct"),
        (["mae"], "classification", "not for this data's task"),
        ([f"{__name__}:absent"], "classification", "cannot be imported"),
        ([f"{__name__}:Nothing"], "classification", "without unit, better, samples, value"),
    ],
)
def test_metrics_that_are_none_are_refused(names, task, message):
    with pytest.raises(DataError, match=message):
        find_metrics(names, task)


@pytest.mark.parametrize(
    ("name", "message"), [("ragged", "no number for each sample"), ("broken", "ZeroDivisionError")]
)
def test_functions_that_give_no_number_per_sample_are_refused(name, message):
    (metric,) = find_metrics([f"{__name__}:{name}"], "classification")
    outputs, labels, _ = scores(0)
    with pytest.raises(DataError, match=message):
        metric.samples(outputs, labels)


def test_targets_of_another_size_are_refused():
    with pytest.raises(DataError, match="different sizes"):
        METRICS["mae"]().samples(np.zeros((4, 2)), np.zeros((4, 3)))
