"""What else is known of each sample: from arrays, from a data set, from a file beside a folder."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.data.load import load_data

COUNT = 60


@pytest.fixture
def load(tmp_path, arrays, vector_input, write_manifest):
    """Save the arrays and the given ones, list ``columns``, and load."""

    def loaded(columns, **more):
        np.savez(tmp_path / "a.npz", **arrays, **more)
        return load_data(write_manifest(source={"npz": "a.npz"}, columns=columns), inputs=[vector_input])

    return loaded


def values_of(split, name):
    column = split.columns[name]
    return [column.values[code] if code >= 0 else None for code in column.codes]


def test_an_array_beside_the_samples_is_a_column_in_the_order_of_the_split(load):
    light = np.array(["day", "night", ""])[np.arange(COUNT) % 3]
    data = load(["lighting"], lighting=light)
    assert data.splits["test"].columns["lighting"].values == ("day", "night")
    assert data.splits["test"].columns["lighting"].codes.dtype == np.int32
    for name in ("calibration", "tune", "test"):
        split = data.splits[name]
        assert values_of(split, "lighting") == [light[i] or None for i in split.indices], name


def test_columns_are_no_part_of_the_fingerprint(load):
    one = load(["camera"], camera=np.arange(COUNT) % 2)
    assert one.fingerprint == load([]).fingerprint


def test_whole_numbers_and_truth_values_and_few_numbers_are_columns(load):
    camera, rain = np.arange(COUNT) % 12, np.arange(COUNT) % 2 == 0
    zoom = np.where(np.arange(COUNT) % 3 == 0, np.nan, 0.5)
    split = load(["camera", "rain", "zoom"], camera=camera, rain=rain, zoom=zoom).splits["test"]
    assert split.columns["camera"].values == tuple(str(i) for i in range(12))
    assert values_of(split, "rain") == [str(rain[i]) for i in split.indices]
    assert values_of(split, "zoom") == [None if i % 3 == 0 else "0.5" for i in split.indices]


def test_many_numbers_are_binned_by_their_quantiles(load):
    size = np.arange(COUNT) ** 2
    split = load([{"name": "size", "bins": 4}], size=size).splits["test"]
    column = split.columns["size"]
    assert column.values == ("0 to 196", "225 to 841", "900 to 1936", "2025 to 3481")
    bounds = [tuple(int(part) for part in value.split(" to ")) for value in column.values]
    assert all(
        bounds[code][0] <= size[i] <= bounds[code][1] for i, code in zip(split.indices, column.codes, strict=True)
    )


def test_equal_numbers_are_never_in_two_bins(load):
    size = np.where(np.arange(COUNT) < 40, 1.0, np.arange(COUNT))
    split = load([{"name": "size", "bins": 4}], size=size).splits["test"]
    assert split.columns["size"].values == ("1 to 1", "40 to 44", "45 to 59") or len(split.columns["size"].values) == 2


@pytest.mark.parametrize(
    ("columns", "more", "match"),
    [
        (["light"], {}, r"column 'light' that the manifest lists is not in a\.npz"),
        (["light"], {"light": np.arange(9)}, r"not one value per sample.*\[9\] for 60 samples"),
        (["light"], {"light": np.zeros((COUNT, 2), np.int64)}, r"not one value per sample.*\[60, 2\]"),
        (["light"], {"light": np.array(["a", None] * 30, object)}, "pickled Python objects"),
        (["light"], {"light": np.array([b"a"] * COUNT)}, r"dtype \|S1"),
        (["size"], {"size": np.arange(COUNT)}, r"too many values.*60 different.*columns: \[\{name: size, bins: 4\}\]"),
        (["id"], {"id": np.array([f"s{i}" for i in range(COUNT)])}, "too many values.*Group its values"),
        ([{"name": "id", "bins": 3}], {"id": np.array(["a"] * COUNT)}, "holds no numbers"),
        ([{"name": "size", "bins": 3}], {"size": np.full(COUNT, np.inf)}, "cannot be binned"),
        ([{"name": "size", "bins": 3}], {"size": np.ones(COUNT)}, "makes no bins"),
        (["light"], {"light": np.array([""] * COUNT)}, "is empty"),
        ([], {"light": np.arange(COUNT)}, r"unknown array.*'light'.*columns: \[NAME\]"),
        (["light", "light"], {}, "columns holds a name twice"),
        ([{"name": "light", "bins": 1}], {}, r"columns\.0\.bins"),
        (["y_train"], {}, r"columns\.0\.name: 'y_train' means something else"),
        ([{"nam": "light"}], {}, r"unknown key columns\.0\.nam \(did you mean name"),
    ],
)
def test_a_column_that_cannot_be_used_is_refused(load, columns, more, match):
    with pytest.raises(DataError, match=match):
        load(columns, **more)


class Shots:
    def __init__(self):
        self.columns = {"device": ["phone", "drone"] * 30}

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return np.full(4, index, np.float32), index % 3


@pytest.fixture
def shots(monkeypatch, write_manifest):
    module = ModuleType("shots_set")
    module.Shots = Shots
    module.Bare = type("Bare", (Shots,), {"__init__": lambda self: None})
    monkeypatch.setitem(sys.modules, "shots_set", module)
    return lambda name: write_manifest(source={"dataset": f"shots_set:{name}"}, columns=["device"])


def test_a_data_set_has_its_columns_as_a_mapping(shots, vector_input):
    split = load_data(shots("Shots"), inputs=[vector_input]).splits["test"]
    assert values_of(split, "device") == [("phone", "drone")[i % 2] for i in split.indices]
    with pytest.raises(DataError, match=r"shots_set:Bare has none.*dict of name"):
        load_data(shots("Bare"), inputs=[vector_input])


@pytest.fixture
def folder(tmp_path, image_folder, image_input, image_preprocessing, write_manifest):
    """Write a column file beside a folder of 3 × 6 images, and load it."""
    image_folder()

    def loaded(text, name="shots.csv", columns=("lighting",)):
        (tmp_path / name).write_text(text)
        path = write_manifest(
            source={"folder": "photos"},
            preprocessing=image_preprocessing,
            columns=list(columns),
            columns_from=name,
        )
        return load_data(path, inputs=[image_input])

    return loaded


FILES = [f"{kind}/{index}.png" for kind in "abc" for index in range(6)]
LIGHT = ["day" if index % 2 else "night" for index in range(18)]


def test_a_file_of_rows_gives_columns_to_a_folder(folder):
    rows = "".join(f"{file},{light},x\n" for file, light in zip(FILES[1:], LIGHT[1:], strict=True))
    lines = [{"lighting": light, "file": file} for file, light in zip(FILES[1:], LIGHT[1:], strict=True)]
    for data in (
        folder("file,lighting,other\n" + rows),
        folder("\n".join(map(json.dumps, lines)), "shots.jsonl"),
    ):
        for split in data.splits.values():
            assert values_of(split, "lighting") == [LIGHT[i] if i else None for i in split.indices]


def test_numbers_in_a_file_are_sorted_as_numbers_and_can_be_binned(folder):
    rows = "file,lux\n" + "".join(f"{file},{index}\n" for index, file in enumerate(FILES))
    assert folder(rows, columns=["lux"]).splits["test"].columns["lux"].values == tuple(map(str, range(18)))
    binned = folder(rows, columns=[{"name": "lux", "bins": 2}])
    assert binned.splits["test"].columns["lux"].values == ("0 to 8", "9 to 17")


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ("file,lighting\na/99.png,day\n", "s.csv", r"not there.*'a/99\.png' in line 2 of s\.csv"),
        ("file,lighting\na/0.png,day\na/0.png,day\n", "s.csv", "names a sample twice.*line 3"),
        ("name,lighting\na/0.png,day\n", "s.csv", "no column 'file'"),
        ("file,light\na/0.png,day\n", "s.csv", r"column 'lighting' that the manifest lists is not in s\.csv"),
        ("file,lighting\na/0.png\n", "s.csv", "line 2 has another number of cells"),
        ('{"file": "a/0.png", "lighting": ["day"]}', "s.jsonl", "no text or number.*list in line 1"),
        ("[1]", "s.jsonl", "line 1 is no JSON object"),
        ("{", "s.jsonl", "line 1 is no JSON"),
        ("", "s.txt", "CSV or JSON lines"),
    ],
)
def test_a_column_file_that_cannot_be_used_is_refused(folder, text, name, match):
    with pytest.raises(DataError, match=match):
        folder(text, name)


def test_a_column_file_that_is_not_there_is_refused(tmp_path, folder, image_input):
    folder("file,lighting\na/0.png,day\n")
    (tmp_path / "shots.csv").unlink()
    with pytest.raises(DataError, match=r"column file that the manifest set\.yaml names is not there"):
        load_data(tmp_path / "set.yaml", inputs=[image_input])


def test_columns_of_a_folder_need_their_file(write_manifest, vector_input):
    with pytest.raises(DataError, match="come with columns_from"):
        load_data(write_manifest(source={"folder": "photos"}, columns=["a"]), inputs=[vector_input])
