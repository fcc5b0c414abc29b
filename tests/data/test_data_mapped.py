from __future__ import annotations

import sys

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data

TOY = """
import numpy as np

class Toy:
    def __init__(self, first=0, count=30):
        self.first, self.count = first, count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return np.full(4, self.first + index, np.float32), index % 3

def splits():
    return {"test": Toy(), "calibration": Toy(100, 9), "tune": Toy(200, 8), "train": Toy(300, 7)}

def broken():
    raise RuntimeError("no network")

ready = Toy(400, 12)
_hidden = 1
"""


class Items:
    """A map-style data set over a list."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


def numbered(count: int = 30, **change) -> Items:
    return Items([change.get(f"at{i}", (np.full(4, i, np.float32), i % 3)) for i in range(count)])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_set.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("toy_set", None)


def test_a_class_in_the_current_folder_is_imported_and_split(toy, vector_input, three_classes):
    data = load_data("toy_set:Toy", inputs=[vector_input], outputs=[three_classes])
    assert (data.name, data.task) == ("toy_set:Toy", "classification")
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 3, "tune": 3, "test": 24}
    batch = next(data.splits["test"].batches(24))
    np.testing.assert_array_equal(batch.inputs[0][:, 0], data.splits["test"].indices)
    np.testing.assert_array_equal(batch.targets, data.splits["test"].indices % 3)
    assert str(toy) not in sys.path, "the search path is as it was"


def test_a_function_that_returns_splits_gives_them(toy, vector_input, three_classes):
    data = load_data("toy_set:splits", inputs=[vector_input], outputs=[three_classes])
    assert [len(split) for split in data.splits.values()] == [7, 9, 8, 30]
    assert data.contract.value_range == (100, 108)


def test_an_object_that_is_ready_is_taken_as_it_is(toy, vector_input):
    assert len(load_data("toy_set:ready", inputs=[vector_input]).splits["test"]) == 10


def test_a_manifest_imports_from_its_own_folder(toy, vector_input, tmp_path, monkeypatch, write_manifest):
    path = write_manifest(source={"dataset": "toy_set:Toy"}, preprocessing={"scale": "1/2"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    split = load_data(path, inputs=[vector_input]).splits["test"]
    np.testing.assert_array_equal(next(split.batches(99)).inputs[0][:, 0], split.indices / 2)


def test_python_objects_and_callables_are_taken_too(vector_input, three_classes):
    direct = load_data(numbered(), inputs=[vector_input], outputs=[three_classes])
    called = load_data(numbered, inputs=[vector_input], outputs=[three_classes])
    assert direct.fingerprint == called.fingerprint


def test_torch_data_sets_give_what_arrays_give(vector_input, three_classes, arrays):
    import torch

    tensors = torch.utils.data.TensorDataset(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    wanted = load_data(arrays, inputs=[vector_input], outputs=[three_classes])
    got = load_data(tensors, inputs=[vector_input], outputs=[three_classes])
    assert got.fingerprint == wanted.fingerprint
    as_dict = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert load_data(as_dict, inputs=[vector_input], outputs=[three_classes]).fingerprint == wanted.fingerprint


def test_items_without_labels_are_unlabelled(vector_input):
    data = load_data(Items([np.full(4, i, np.float32) for i in range(9)]), inputs=[vector_input])
    assert data.task == "unlabelled"
    assert next(data.splits["test"].batches(2)).targets is None


def test_two_inputs_come_as_a_pair(vector_input):
    other = TensorSpec(name="z", dtype="int64", shape=("batch", 2))
    items = Items([((np.full(4, i, np.float32), np.array([i, i])), i % 2) for i in range(20)])
    batch = next(load_data(items, inputs=[vector_input, other]).splits["test"].batches(3))
    np.testing.assert_array_equal(batch.inputs[0][:, 0], batch.inputs[1][:, 0])


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ("text", "wrong form.*str"),
        ({"x": 1}, "wrong form.*dict"),
        (([1.0, 2.0], 0), r"wrong form.*\(\(float, float\), int\)"),
        ((np.zeros(4, np.float32), np.zeros(4, np.float32)), r"labels of .*\[5\] are not integers.*float32\[4\]"),
        ((np.zeros(4, np.float32), 1.0), "labels of .* are not integers.*float.*task: regression"),
        ((np.zeros(4, np.float32), True), "labels of .* are not integers.*bool"),
        ((np.zeros(4, np.float64), 0), "dtype .*float64"),
        ((np.zeros(5, np.float32), 0), r"shape .*\[5\], where the model takes \[4\]"),
        ((np.zeros(4, np.float32), 9), "label 9 at sample 5"),
        ((np.array([0, np.nan, 0, 0], np.float32), 0), r"nan at \[5, 1\]"),
        (np.zeros(4, np.float32), "Some samples .* have a label and some have none"),
    ],
)
def test_an_item_of_another_form_is_named(vector_input, three_classes, item, match):
    with pytest.raises(DataError, match=match):
        load_data(numbered(at5=item), inputs=[vector_input], outputs=[three_classes])


def test_samples_of_different_lengths_are_refused():
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", "time"))
    items = Items([(np.ones(3 + i % 2, np.float32) * i, 0) for i in range(9)])
    with pytest.raises(DataError, match=r"differ in shape.*\[3\] and \[4\]"):
        load_data(items, inputs=[spec])


def test_random_augmentation_is_noticed(vector_input):
    class Random(Items):
        def __getitem__(self, index: int):
            return np.random.default_rng().random(4).astype(np.float32), 0

    with pytest.raises(DataError, match="changes from one reading to the next"):
        load_data(Random([0] * 9), inputs=[vector_input])


def test_what_the_users_code_raises_is_passed_on(vector_input):
    class Broken(Items):
        def __getitem__(self, index: int):
            raise KeyError("gone")

    with pytest.raises(DataError, match=r"raised while reading Broken\[0\].*KeyError: 'gone'"):
        load_data(Broken([0] * 9), inputs=[vector_input])


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("no_such_module:make", "cannot be imported.*ModuleNotFoundError"),
        ("toy_set:Toi", "has no Toi.*It has Toy"),
        ("toy_set:broken", "toy_set:broken raised.*RuntimeError: no network"),
        ("toy_set:_hidden", "no map-style data set.*int"),
    ],
)
def test_a_callable_that_does_not_work_is_explained(toy, vector_input, place, match):
    with pytest.raises(DataError, match=match):
        load_data(place, inputs=[vector_input])


def test_a_manifests_callable_needs_both_parts(vector_input, write_manifest):
    with pytest.raises(DataError, match=r"named package.module:callable"):
        load_data(write_manifest(source={"dataset": "toy_set"}), inputs=[vector_input])


def test_splits_that_are_one_object_are_refused(vector_input):
    same = numbered()
    with pytest.raises(DataError, match="one and the same data set"):
        load_data({"test": same, "calibration": same}, inputs=[vector_input])


def test_an_unknown_split_gets_the_nearest_name(vector_input):
    with pytest.raises(DataError, match=r"unknown split.*'calib'.*Known: calibration"):
        load_data({"test": numbered(), "calib": numbered()}, inputs=[vector_input])


def test_splits_without_test_are_refused(vector_input):
    with pytest.raises(DataError, match="no test split"):
        load_data({"train": numbered()}, inputs=[vector_input])


def test_a_tuple_of_arrays_is_refused_with_the_way_out(vector_input, arrays):
    with pytest.raises(DataError, match=r"\{'x': x, 'y': y\}"):
        load_data((arrays["x"], arrays["y"]), inputs=[vector_input])


def test_an_empty_data_set_is_an_empty_split(vector_input):
    with pytest.raises(DataError, match="Empty split: test"):
        load_data(Items([]), inputs=[vector_input])


def test_reading_data_does_not_import_torch(toy):
    import subprocess

    code = (
        "import sys; from edgeopt.data.load import load_data; from edgeopt.core.spec import parse_input as p;"
        "load_data('toy_set:Toy', inputs=[p('x:float32[n,4]')]); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=toy, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_labels_are_left_alone_where_the_manifest_says_so(toy, vector_input, write_manifest):
    data = load_data(write_manifest(task="unlabelled", source={"dataset": "toy_set:Toy"}), inputs=[vector_input])
    assert data.task == "unlabelled"
    assert next(data.splits["test"].batches(2)).targets is None
