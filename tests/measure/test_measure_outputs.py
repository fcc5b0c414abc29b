from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeopt.core.errors import DataError, DeviceError
from edgeopt.data.contract import Batch, Dataset
from edgeopt.measure import outputs as module
from edgeopt.measure.outputs import collect_outputs, collect_targets, judged_output

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


def test_boxes_of_another_number_in_each_batch_come_in_one_width(make_split, monkeypatch):
    monkeypatch.setattr(module, "_READ", 2)

    class Ragged:
        def read(self, indices):
            boxes = np.full((len(indices), max(indices) + 1, 5), -1, np.float32)
            for row, index in zip(boxes, indices, strict=True):
                row[: index + 1] = index
            return Batch(inputs=(np.zeros((len(indices), 1)),), targets=boxes)

    split = replace(make_split(np.zeros((5, 1))), source=Ragged())
    boxes = collect_targets(split)
    assert boxes.shape == (5, 5, 5)
    assert (boxes[..., 0] >= 0).sum(axis=1).tolist() == [1, 2, 3, 4, 5]
    assert boxes[2, :3].tolist() == np.full((3, 5), 2).tolist()


def judged_by(decoder):
    data = Dataset(name="d", task="detection", splits={}, fingerprint="", decoder=decoder)
    return judged_output({"a": np.arange(600.0).reshape(600, 1), "b": np.ones((600, 2))}, data)


def test_the_first_output_is_judged_where_there_is_no_decoder():
    assert judged_by(None).shape == (600, 1)


def test_a_decoder_makes_detections_of_all_outputs_a_part_at_a_time():
    def decoder(outputs):
        rows = np.zeros((len(outputs["a"]), 1 + int(outputs["a"][0, 0] > 0), 6))
        rows[:, 0, 0], rows[:, 0, 4] = outputs["a"][:, 0], outputs["b"][:, 1]
        return rows

    found = judged_by(decoder)
    assert (found.shape, found.dtype) == ((600, 2, 6), np.float32)
    assert (found[:, 0, 0] == np.arange(600)).all()
    assert (found[:256, 1] == 0).all(), "padding has score 0"


@pytest.mark.parametrize(
    ("decoder", "match"),
    [
        (lambda outputs: outputs["c"], "decoder raised.*KeyError"),
        (lambda outputs: outputs["b"], r"no detections.*an array \[256, 2\] for 256 samples"),
        (lambda outputs: [], "no detections.*list"),
        (lambda outputs: np.zeros((1, 4, 6)), r"no detections.*\[1, 4, 6\] for 256 samples"),
    ],
)
def test_a_decoder_that_makes_something_else_is_refused(decoder, match):
    with pytest.raises(DataError, match=match):
        judged_by(decoder)
