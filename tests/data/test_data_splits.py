from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data
from edgeopt.data.manifest import SplitPlan
from edgeopt.data.scan import Scan
from edgeopt.data.splits import make_splits

SPEC = TensorSpec(name="x", dtype="float32", shape=("batch", 2))
stable = settings(deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def samples(labels: list[int]) -> dict[str, np.ndarray]:
    x = np.stack([np.arange(len(labels)), np.zeros(len(labels))], axis=1).astype(np.float32)
    return {"x": x, "y": np.array(labels)}


@stable
@given(labels=st.lists(st.integers(0, 4), min_size=3, max_size=200), seed=seeds)
def test_splits_share_no_sample_and_lose_none(labels, seed):
    data = load_data(samples(labels), inputs=[SPEC], seed=seed)
    indices = np.concatenate([split.indices for split in data.splits.values()])
    assert sorted(indices) == list(range(len(labels)))
    assert all(len(split) for split in data.splits.values())


@stable
@given(labels=st.lists(st.integers(0, 4), min_size=3, max_size=200), seed=seeds)
def test_each_class_has_its_proportional_share_to_within_one_sample(labels, seed):
    data = load_data(samples(labels), inputs=[SPEC], seed=seed)
    y = np.array(labels)
    split = data.splits["calibration"]
    share = np.bincount(y, minlength=5) * len(split) / len(y)
    assert np.all(np.abs(np.bincount(y[split.indices], minlength=5) - share) < 1)
    left = np.setdiff1d(np.arange(len(y)), split.indices)
    split = data.splits["tune"]
    share = np.bincount(y[left], minlength=5) * len(split) / len(left)
    assert np.all(np.abs(np.bincount(y[split.indices], minlength=5) - share) < 1)


@stable
@given(contents=st.lists(st.integers(0, 20), min_size=3, max_size=100).filter(lambda c: len(set(c)) > 2), seed=seeds)
def test_identical_samples_are_never_in_two_splits(contents, seed):
    x = np.repeat(np.array(contents, np.float32)[:, None], 2, axis=1)
    data = load_data({"x": x}, inputs=[SPEC], seed=seed)
    seen = [set(x[split.indices, 0]) for split in data.splits.values()]
    assert sum(len(values) for values in seen) == len(set(contents))
    assert sum(len(split) for split in data.splits.values()) == len(contents)


@stable
@given(count=st.integers(40, 120), seed=seeds, data=st.data())
def test_splits_do_not_depend_on_the_order_of_the_rows(count, seed, data):
    arrays = samples([i % 3 for i in range(count)])
    order = np.array(data.draw(st.permutations(range(count))))
    mixed = {name: array[order] for name, array in arrays.items()}
    first, second = (load_data(a, inputs=[SPEC], seed=seed) for a in (arrays, mixed))
    assert first.fingerprint == second.fingerprint
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.indices, order[second.splits[name].indices])


@stable
@given(
    count=st.integers(10, 300),
    calibration=st.one_of(st.integers(1, 3), st.floats(0.1, 0.3)),
    tune=st.one_of(st.integers(0, 3), st.floats(0.1, 0.3)),
    train=st.one_of(st.integers(0, 3), st.floats(0.1, 0.3)),
    seed=seeds,
)
def test_a_plans_sizes_are_kept(count, calibration, tune, train, seed):
    plan = SplitPlan(calibration=calibration, tune=tune, train=train)
    scan = Scan(
        digests=np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8),
        labels=np.arange(count) % 4,
        lows=None,
        highs=None,
    )

    class Nothing:
        where, labelled = "x", True

    splits = make_splits({"test": Nothing()}, {"test": scan}, plan=plan, seed=seed, inputs=[SPEC])
    wanted = {"calibration": calibration, "tune": tune, "train": train}
    sizes = {n: v if isinstance(v, int) else round(v * count) for n, v in wanted.items()}
    sizes = {n: v for n, v in sizes.items() if v} | {"test": count - sum(sizes.values())}
    assert {name: len(split) for name, split in splits.items()} == sizes


def test_default_sizes_are_a_tenth_each_up_to_their_limits():
    big = {"x": np.random.default_rng(0).random((30000, 2)).astype(np.float32)}
    data = load_data(big, inputs=[SPEC])
    assert {n: len(s) for n, s in data.splits.items()} == {"calibration": 1024, "tune": 2048, "test": 26928}


def test_a_sorted_set_gives_fair_first_samples():
    arrays = samples(sorted(i % 10 for i in range(2000)))
    labels = next(load_data(arrays, inputs=[SPEC]).splits["test"].batches(200)).targets
    assert np.bincount(labels, minlength=10).min() >= 5, "20 of each expected, 4.2 standard deviations above 5"


def test_seeds_give_different_splits():
    arrays = samples([0] * 100)
    first, second = (load_data(arrays, inputs=[SPEC], seed=seed) for seed in (0, 1))
    assert set(first.splits["calibration"].indices) != set(second.splits["calibration"].indices)
