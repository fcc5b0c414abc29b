from __future__ import annotations

import numpy as np
import pytest

from edgeopt.core.errors import DataError, DeviceError
from edgeopt.measure import outputs as module
from edgeopt.measure.outputs import collect_outputs, collect_targets

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(50, 4)).astype(np.float32)


@pytest.mark.parametrize(("batch", "static"), [(1, False), (7, False), (64, False), (7, True)])
def test_the_whole_split_comes_back_in_order(device, linear, make_split, tmp_path, monkeypatch, batch, static):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 20 * 16)  # 20 samples of 16 bytes
    order = RNG.permutation(50)
    split = make_split(X, indices=order)
    engine = linear("net", WEIGHTS, batch if static else "n")
    seen = []
    found = collect_outputs(device, engine, split, ["x"], tmp_path / "outputs", batch, seen.append, threads=1)
    assert list(found) == ["y/1"]
    expected = X[order].astype(np.float64) @ WEIGHTS.astype(np.float64)
    # float32 sums of four products: a few units in the last place of values near 5.
    assert np.allclose(found["y/1"], expected, atol=1e-5)
    assert isinstance(found["y/1"], np.memmap)
    assert seen[-1].done == seen[-1].total == 50
    assert split.source.largest <= max(20, batch)


def test_only_a_chunk_is_read_at_once(device, linear, make_split, tmp_path):
    wide = np.zeros((40, 2**20), np.float32)  # 4 MiB a sample, 160 MiB in all
    split = make_split(wide)
    found = collect_outputs(device, linear("wide", np.ones((2**20, 1))), split, ["x"], tmp_path / "o", 1)
    assert found["y/1"].shape == (40, 1)
    assert split.source.largest == 4


def test_an_empty_split_is_an_error(device, linear, make_split, tmp_path):
    with pytest.raises(DataError, match="The test split is empty"):
        collect_outputs(device, linear("net", WEIGHTS), make_split(X, indices=[]), ["x"], tmp_path / "o", 1)


def test_data_with_another_number_of_inputs_is_an_error(device, linear, make_split, tmp_path):
    with pytest.raises(DataError, match="2 arrays for the inputs x"):
        collect_outputs(device, linear("net", WEIGHTS), make_split(X, X), ["x"], tmp_path / "o", 1)


def test_data_of_another_dtype_is_an_error_and_not_converted(device, linear, make_split, tmp_path):
    with pytest.raises(DeviceError, match="'x' is float32; received float64"):
        collect_outputs(device, linear("net", WEIGHTS), make_split(X.astype("f8")), ["x"], tmp_path / "o", 1)


def test_labels_come_in_the_order_of_the_split(make_split):
    labels = np.arange(600)
    split = make_split(np.zeros((600, 1)), labels=labels, indices=labels[::-1])
    assert np.array_equal(collect_targets(split), labels[::-1])


@pytest.mark.parametrize("indices", [[], [0, 1]])
def test_a_split_without_labels_says_so(make_split, indices):
    with pytest.raises(DataError, match="has no labels"):
        collect_targets(make_split(X, indices=indices))
