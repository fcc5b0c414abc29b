"""What is right for a sample, task by task: each form read as the metrics take it, each misfit one clear error."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data

COUNT = 40
VECTOR = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
IMAGE = TensorSpec(name="x", dtype="float32", shape=("batch", 3, 6, 6))
NUMBER = TensorSpec(name="o", dtype="float32", shape=("batch", 1))
NUMBERS = TensorSpec(name="o", dtype="float32", shape=("batch", 2))
MAPS = TensorSpec(name="o", dtype="float32", shape=("batch", 3, 6, 6))
ROWS = TensorSpec(name="o", dtype="float32", shape=("batch", 20, 6))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(COUNT, 4)).astype(np.float32)
PICTURES = RNG.normal(size=(COUNT, 3, 6, 6)).astype(np.float32)
BOXES = np.zeros((COUNT, 2, 5), np.float32)
BOXES[:, 0] = [1, 2, 3, 4, 5]
BOXES[:, 1, 0] = -1


@pytest.fixture
def load(tmp_path, write_manifest):
    """Save arrays, write a manifest with the given keys, and load it for a model with one output."""

    def loaded(task, output, *, x=X, spec=VECTOR, keys=None, **arrays):
        np.savez(tmp_path / "a.npz", x=x, **arrays)
        path = write_manifest(task=task, source={"npz": "a.npz"}, **(keys or {}))
        return load_data(path, inputs=[spec], outputs=[output])

    return loaded


def targets_of(data, name="test"):
    split = data.splits[name]
    return np.concatenate([batch.targets for batch in split.batches(7)]), split.indices


@pytest.mark.parametrize(
    ("y", "output", "dtype"),
    [
        (RNG.normal(size=COUNT).astype(np.float32), NUMBER, np.float32),
        (RNG.normal(size=(COUNT, 2)), NUMBERS, np.float64),
        (RNG.normal(size=(COUNT, 2)).astype(np.float16), NUMBERS, np.float32),
        (np.arange(COUNT), NUMBER, np.float64),
    ],
)
def test_numbers_to_predict_are_read_as_stored(load, y, output, dtype):
    data = load("regression", output, y=y)
    got, indices = targets_of(data)
    assert (data.task, got.dtype) == ("regression", dtype)
    np.testing.assert_array_equal(got, y[indices])


def test_embeddings_and_masks_and_boxes_are_read_as_stored(load):
    y = RNG.normal(size=(COUNT, 2)).astype(np.float32)
    got, indices = targets_of(load("embedding", NUMBERS, y=y))
    np.testing.assert_array_equal(got, y[indices])
    got, indices = targets_of(load("detection", ROWS, y=BOXES.astype(np.int16)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, BOXES[indices])
    masks = RNG.integers(-1, 3, (COUNT, 6, 6)).astype(np.int8)
    got, indices = targets_of(load("segmentation", MAPS, x=PICTURES, spec=IMAGE, y=masks))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, masks[indices])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_pixels_of_the_manifests_number_are_not_counted(load, dtype):
    masks = RNG.integers(0, 3, (COUNT, 6, 6)).astype(dtype)
    masks[:, 0] = 255
    data = load("segmentation", MAPS, x=PICTURES, spec=IMAGE, keys={"ignore_index": 255}, y=masks)
    got, indices = targets_of(data)
    assert (got[:, 0] == -1).all()
    np.testing.assert_array_equal(got[:, 1:], masks[indices][:, 1:].astype(np.int32))


def test_other_targets_are_another_fingerprint_and_padding_is_not(load):
    first = load("detection", ROWS, y=BOXES)
    wider = np.concatenate([BOXES, BOXES[:, 1:]], axis=1)
    assert load("detection", ROWS, y=wider).fingerprint == first.fingerprint
    moved = BOXES.copy()
    moved[7, 0, 3] += 1
    assert load("detection", ROWS, y=moved).fingerprint != first.fingerprint


def test_splits_off_one_source_carry_their_own_targets(load):
    y = np.arange(COUNT, dtype=np.float32)
    data = load("regression", NUMBER, y=y)
    parts = [targets_of(data, name)[0] for name in ("calibration", "tune", "test")]
    assert sorted(np.concatenate(parts)) == list(y)


class Ragged:
    """Boxes [M, 5], M another for each sample."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        boxes = np.tile(np.array([1, 2, 3, 4, 5], np.float32), (index % 4, 1))
        boxes[:, 3] += index
        return X[index], boxes


def test_a_data_set_may_have_another_number_of_boxes_for_each_sample(monkeypatch, write_manifest):
    module = ModuleType("ragged_boxes")
    module.Ragged = Ragged
    monkeypatch.setitem(sys.modules, "ragged_boxes", module)
    path = write_manifest(task="detection", source={"dataset": "ragged_boxes:Ragged"})
    data = load_data(path, inputs=[VECTOR], outputs=[ROWS])
    split = data.splits["test"]
    for batch in split.batches(5):
        assert batch.targets.shape[0] == len(batch.inputs[0])
    one_by_one = [next(iter([batch.targets[0]])) for batch in split.batches(1)]
    counts = [int((boxes[:, 0] >= 0).sum()) for boxes in one_by_one]
    assert counts == [index % 4 for index in split.indices]


def test_metrics_and_decoder_of_the_manifest_reach_the_data_set(load, monkeypatch):
    module = ModuleType("my_decoder")
    module.decode = lambda outputs: outputs["o"]
    monkeypatch.setitem(sys.modules, "my_decoder", module)
    keys = {"metrics": ["map_50", "mine:cost"], "decoder": "my_decoder:decode"}
    data = load("detection", MAPS, keys=keys, y=BOXES)
    assert data.metrics == ("map_50", "mine:cost")
    assert data.decoder is module.decode


def with_value(array, place, value):
    changed = array.copy()
    changed[place] = value
    return changed


MASKS = np.zeros((COUNT, 6, 6), np.int64)
BAD = [
    ("regression", NUMBER, with_value(X[:, 0], 11, np.nan), r"not finite.*nan at sample 11"),
    ("embedding", NUMBERS, with_value(X[:, :2], (3, 1), np.inf), r"not finite.*inf at sample 3"),
    ("regression", NUMBER, X[:9, 0], r"different lengths.*40 in x of a\.npz, 9 in y"),
    ("regression", NUMBERS, X[:, :3], r"another shape than the model's first output.*\[3\].*\[2\]"),
    ("embedding", NUMBERS, MASKS[:, 0, :2], r"no embeddings.*int64 samples of \[2\]"),
    ("embedding", NUMBERS, X[:, 0], r"no embeddings.*float32 samples of \[\]"),
    ("segmentation", MAPS, MASKS[:, :5], r"another size than the model's output.*\[5, 6\].*\[6, 6\]"),
    (
        "segmentation",
        MAPS,
        with_value(MASKS, (4, 2, 1), 3),
        r"class 3 at sample 4, row 2, column 1.*0 to 2.*ignore_index",
    ),
    ("segmentation", MAPS, with_value(MASKS, (4, 2, 1), 2**32), r"outside the model's classes.*sample 4"),
    ("segmentation", MAPS, MASKS.astype(np.float32), r"no masks.*float32"),
    ("segmentation", NUMBERS, MASKS, r"first output is \[N, classes, H, W\]"),
    ("detection", ROWS, with_value(BOXES, (6, 0, 3), 1), r"ends before it starts.*\(2, 3, 1, 5\) in row 0 of sample 6"),
    ("detection", ROWS, with_value(BOXES, (6, 0, 4), np.nan), r"not finite.*sample 6"),
    ("detection", ROWS, with_value(BOXES, (6, 0, 0), 1.5), r"of no class.*1\.5 in row 0 of sample 6"),
    ("detection", ROWS, BOXES[..., :4], r"no boxes.*\[2, 4\]"),
    ("detection", NUMBERS, BOXES, r"\[N, K, 6\].*decoder: package\.module:callable"),
]


@pytest.mark.parametrize(("task", "output", "y", "match"), BAD)
def test_targets_that_cannot_be_right_are_refused(load, task, output, y, match):
    picture = task == "segmentation"
    with pytest.raises(DataError, match=match):
        load(task, output, x=PICTURES if picture else X, spec=IMAGE if picture else VECTOR, y=y)


def test_a_class_outside_the_named_ones_is_refused(load):
    with pytest.raises(DataError, match=r"of no class.*class 1 in row 0 of sample 0; the classes are 0 to 0"):
        load("detection", ROWS, keys={"classes": ["car"]}, y=BOXES)
    with pytest.raises(DataError, match="2 names for 3 score maps"):
        load("segmentation", MAPS, x=PICTURES, spec=IMAGE, keys={"classes": ["a", "b"]}, y=MASKS)


def test_ragged_arrays_are_refused_as_pickles(load):
    y = np.empty(COUNT, object)
    y[:] = [BOXES[0]] * COUNT
    with pytest.raises(DataError, match="pickled Python objects"):
        load("detection", ROWS, y=y)


def test_a_task_without_targets_is_refused(load):
    with pytest.raises(DataError, match=r"task: regression, but the test data has no labels"):
        load("regression", NUMBER)


def test_numbers_without_a_manifest_are_refused_with_the_key_that_declares_them():
    with pytest.raises(DataError, match=r"not integers.*task: regression"):
        load_data({"x": X, "y": X[:, 0]}, inputs=[VECTOR], outputs=[NUMBER])


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"task": "regression", "ignore_index": 255}, "ignore_index is for segmentation"),
        ({"task": "regression", "decoder": "a:b"}, "decoder is for detection"),
        ({"task": "detection", "decoder": "nothing"}, "decoder: String should match pattern"),
        ({"task": "detection", "metrics": ["map_50", "map_50"]}, "metrics holds a name twice"),
        ({"task": "detection", "metrics": ["map 50"]}, "metrics.0: String should match pattern"),
    ],
)
def test_keys_of_another_task_are_refused(write_manifest, keys, match):
    with pytest.raises(DataError, match=match):
        load_data(write_manifest(source={"npz": "a.npz"}, **keys), inputs=[VECTOR])


def test_a_folder_holds_classes_only(image_folder, image_input, image_preprocessing, write_manifest):
    image_folder()
    path = write_manifest(task="segmentation", source={"folder": "photos"}, preprocessing=image_preprocessing)
    with pytest.raises(DataError, match=r"no targets but classes.*task: segmentation"):
        load_data(path, inputs=[image_input])
