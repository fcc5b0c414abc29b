from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgeopt.core.errors import BackendError, DataError
from edgeopt.measure.metrics.detection import Map50, Map5095
from edgeopt.measure.metrics.registry import METRICS

seeds = st.integers(0, 2**32 - 1)


def scene(seed: int, images: int = 12, classes: int = 3, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Detections [N, K, 6] and boxes [N, M, 5]: boxes, shaken copies of them, and detections of nothing."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((images, 9, 5), np.float32)
    boxes[..., 0] = -1
    found = np.zeros((images, 24, 6), np.float32)
    for index in range(images):
        many, extra = rng.integers(0, 9), rng.integers(0, 12)
        corners = rng.uniform(0, 80, (many, 2))
        sides = rng.uniform(5, 40, (many, 2))
        boxes[index, :many] = np.column_stack([rng.integers(0, classes, many), corners, corners + sides])
        shaken = boxes[index, :many, 1:] + rng.normal(0, 3, (many, 4))
        twice = shaken[: many // 2] + rng.normal(0, 1, (many // 2, 4))
        nothing = rng.uniform(0, 80, (extra, 2))
        rows = np.concatenate([shaken, twice, np.column_stack([nothing, nothing + rng.uniform(-2, 40, (extra, 2))])])
        kinds = np.concatenate(
            [boxes[index, :many, 0], boxes[index, : many // 2, 0], rng.integers(0, classes + 1, extra)]
        )
        scores = rng.uniform(0.05, 1, len(rows))
        found[index, : len(rows)] = np.column_stack([rows, np.round(scores, 1) if ties else scores, kinds])
    return found, boxes


def oracle(found: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """AP@[.5:.95] and AP@.5 by COCOeval; NaN where it says -1."""
    images = [{"id": index} for index in range(len(found))]
    truth = COCO()
    rows = [(index, row) for index, image in enumerate(boxes) for row in image if row[0] >= 0]
    kinds = max([int(row[0]) for _, row in rows] + [int(found[..., 5].max())]) + 1
    truth.dataset = {
        "images": images,
        "categories": [{"id": kind} for kind in range(kinds)],
        "annotations": [
            {"id": 1 + place, "image_id": index, "category_id": int(row[0]), "iscrowd": 0, **_box(row[1:])}
            for place, (index, row) in enumerate(rows)
        ],
    }
    truth.createIndex()
    answers = [
        {"id": 1 + place, "image_id": index, "category_id": int(row[5]), "score": float(row[4]), **_box(row[:4])}
        for place, (index, row) in enumerate((i, r) for i, image in enumerate(found) for r in image if r[4] > 0)
    ]
    given = COCO()
    given.dataset = {"images": images, "categories": truth.dataset["categories"], "annotations": answers}
    given.createIndex()
    judge = COCOeval(truth, given, "bbox")
    judge.params.imgIds = list(range(len(found)))
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    figures = []
    for part in (precision, precision[:1]):
        known = part[part > -1]
        figures.append(float(known.mean()) if known.size else float("nan"))
    return figures[0], figures[1]


def _box(corners: np.ndarray) -> dict:
    x1, y1, x2, y2 = (float(value) for value in corners)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}


@pytest.mark.parametrize("ties", [False, True])
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_it_is_what_cocoeval_says(ties, seed):
    found, boxes = scene(seed, ties=ties)
    wanted = oracle(found, boxes)
    got = tuple(metric.value(metric.samples(found, boxes)) for metric in (Map5095(), Map50()))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


def test_more_than_a_hundred_detections_of_a_class_are_cut_off_as_cocoeval_does():
    found, boxes = scene(3, images=2)
    rng = np.random.default_rng(0)
    many = np.repeat(found[:, :1], 250, axis=1) + 0
    many[..., :2] = rng.uniform(0, 80, (2, 250, 2))
    many[..., 2:4] = many[..., :2] + rng.uniform(5, 40, (2, 250, 2))
    many[..., 4], many[..., 5] = rng.uniform(0.01, 1, (2, 250)), rng.integers(0, 2, (2, 250))
    metric = Map5095()
    both = np.concatenate([found, many], axis=1)
    assert metric.value(metric.samples(both, boxes)) == pytest.approx(oracle(both, boxes)[0], abs=1e-9)


@given(seed=seeds, weights=st.lists(st.integers(0, 3), min_size=12, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_whole_weight_is_the_image_so_many_times(seed, weights):
    found, boxes = scene(seed)
    metric = Map5095()
    weighted = metric.value(metric.samples(found, boxes), np.array(weights))
    rows = np.repeat(np.arange(12), weights)
    if not len(rows):
        assert np.isnan(weighted)
        return
    repeated = metric.value(metric.samples(found[rows], boxes[rows]))
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=1e-12)


def test_a_part_of_the_samples_is_judged_from_what_was_kept():
    found, boxes = scene(5)
    metric = Map5095()
    kept = metric.samples(found, boxes)
    part = {name: array[3:9] for name, array in kept.items()}
    assert metric.value(part) == metric.value(metric.samples(found[3:9], boxes[3:9]))
    assert metric.value(kept) == metric.value(kept, np.ones(12)), "what was sorted for other samples is not used"


def test_perfect_detections_have_one_and_none_zero():
    _, boxes = scene(1)
    found = np.concatenate([boxes[..., 1:], (boxes[..., :1] >= 0).astype(np.float32), boxes[..., :1]], axis=2)
    metric = Map5095()
    assert metric.value(metric.samples(found, boxes)) == pytest.approx(1, abs=1e-12)
    assert metric.value(metric.samples(np.zeros_like(found), boxes)) == 0
    assert np.isnan(metric.value(metric.samples(found, np.full_like(boxes, -1))))


def test_other_forms_are_refused():
    found, boxes = scene(0)
    with pytest.raises(DataError, match=r"\[N, K, 6\].*\[12, 24, 5\].*decoder: package\.module:callable"):
        Map5095().samples(found[..., :5], boxes)
    with pytest.raises(DataError, match=r"do not fit.*\[11, 9, 5\] for detections \[12, 24, 6\]"):
        Map5095().samples(found, boxes[:11])


def test_without_pycocotools_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(BackendError, match=r"edgeopt\[detection\]"):
        Map5095().samples(*scene(0))


@pytest.mark.parametrize("name", ["map_50_95", "map_50", "miou_pct"])
def test_the_registry_has_it(name):
    assert METRICS[name]().name == name
