from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from edgeopt.bundle.outcomes import Outcomes, read_outcomes, write_outcomes
from edgeopt.core.errors import BundleError
from edgeopt.core.slices import SliceColumn


def outcomes(n=20, **more):
    rng = np.random.default_rng(0)
    fields = {
        "split": "f" * 64,
        "task": "classification",
        "primary": "accuracy_top1_pct",
        "indices": np.arange(n),
        "slices": {"a/b": SliceColumn(codes=rng.integers(-1, 2, n).astype(np.int32), values=("day", "night"))},
        "candidate": {"pkg.mod:cost": {"value": rng.random(n)}},
        "reference": {"pkg.mod:cost": {"value": rng.random(n)}},
    }
    return Outcomes(**(fields | more))


def test_what_is_written_is_read_again(tmp_path):
    made = outcomes()
    write_outcomes(tmp_path / "o.npz", made)
    found = read_outcomes(tmp_path / "o.npz")
    assert (found.split, found.task, found.primary) == (made.split, made.task, made.primary)
    assert np.array_equal(found.indices, made.indices)
    assert found.slices["a/b"].values == ("day", "night")
    assert np.array_equal(found.slices["a/b"].codes, made.slices["a/b"].codes)
    for whose in ("candidate", "reference"):
        mine, theirs = getattr(found, whose), getattr(made, whose)
        assert np.array_equal(mine["pkg.mod:cost"]["value"], theirs["pkg.mod:cost"]["value"])


@pytest.mark.parametrize("value", [np.zeros(19), np.array(1.0), np.array([{}] * 20, dtype=object)])
def test_what_has_no_row_per_sample_is_not_written(tmp_path, value):
    with pytest.raises(BundleError, match="one row of numbers per sample"):
        write_outcomes(tmp_path / "o.npz", outcomes(candidate={"m": {"value": value}}))


def test_what_is_not_there_says_so(tmp_path):
    with pytest.raises(BundleError, match="no outcomes of single samples"):
        read_outcomes(tmp_path / "o.npz")


def changed(path, name, array):
    """The file with another array of that name."""
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays[name] = array
    with path.open("wb") as file:
        np.savez(file, **arrays)


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "o.npz"
    write_outcomes(path, outcomes())
    changed(path, "header", np.frombuffer(json.dumps({"schema_version": 2}).encode(), np.uint8))
    with pytest.raises(BundleError, match="newer edgeopt"):
        read_outcomes(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("header", np.frombuffer(b"{", np.uint8)),
        ("header", np.frombuffer(b"[]", np.uint8)),
        ("slice/a/b", np.full(20, 7, np.int32)),
        ("slice/a/b", np.full(20, 0.5)),
        ("candidate/m/value", np.zeros(3)),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, array):
    path = tmp_path / "o.npz"
    write_outcomes(path, outcomes())
    changed(path, name, array)
    with pytest.raises(BundleError, match="cannot be read"):
        read_outcomes(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "o.npz"
    write_outcomes(path, outcomes())
    with path.open("wb") as file:
        np.savez(file, indices=np.array([object()], dtype=object))
    with pytest.raises(BundleError, match="cannot be read"):
        read_outcomes(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "o.npz").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        read_outcomes(tmp_path / "o.npz")


def test_an_archive_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "o.npz"
    write_outcomes(path, outcomes())
    assert zipfile.is_zipfile(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError, match="cannot be read"):
        read_outcomes(path)


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "o.npz"
    write_outcomes(path, outcomes())
    monkeypatch.setattr("edgeopt.bundle.outcomes._MOST_BYTES", 1000)
    with pytest.raises(BundleError, match="unpacks to more"):
        read_outcomes(path)
