from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from edgeopt.core.errors import DataError
from edgeopt.measure.metrics.segmentation import MeanIoU

METRIC = MeanIoU()


def masks(seed: int, count: int = 6, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(count, classes, 5, 7)).astype(np.float32)
    return scores, rng.integers(-1, rng.integers(1, classes + 1), (count, 5, 7)).astype(np.int32)


@given(seed=st.integers(0, 2**32 - 1))
def test_it_is_what_scikit_learn_says_of_all_counted_pixels(seed):
    scores, wanted = masks(seed)
    answers, counted = scores.argmax(1), wanted != -1
    oracle = 100 * jaccard_score(wanted[counted], answers[counted], average="macro")
    assert METRIC.value(METRIC.samples(scores, wanted)) == pytest.approx(oracle, abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), weights=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_whole_weight_is_the_sample_so_many_times(seed, weights):
    scores, wanted = masks(seed)
    rows = np.repeat(np.arange(6), weights)
    weighted = METRIC.value(METRIC.samples(scores, wanted), np.array(weights))
    repeated = METRIC.value(METRIC.samples(scores[rows], wanted[rows])) if len(rows) else float("nan")
    np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


def test_where_no_pixel_counts_there_is_no_figure():
    scores, wanted = masks(0)
    assert np.isnan(METRIC.value(METRIC.samples(scores, np.full_like(wanted, -1))))


def test_what_does_not_fit_is_refused():
    scores, wanted = masks(0)
    with pytest.raises(DataError, match=r"another size.*masks \[6, 5, 6\], outputs \[6, 4, 5, 7\]"):
        METRIC.samples(scores, wanted[:, :, :6])
    with pytest.raises(DataError, match=r"does not fit the model's 4 classes.*to 4 in sample 2"):
        METRIC.samples(scores, np.where(np.arange(6)[:, None, None] == 2, 4, wanted))
    with pytest.raises(DataError, match=r"scores \[N, classes, H, W\].*\[6, 1, 5, 7\]"):
        METRIC.samples(scores[:, :1], wanted)
