from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.core.fingerprint import hash_file
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data
from edgeopt.data.manifest import Preprocessing, read_manifest
from edgeopt.data.shipped import shipped_sets

ROOT = Path(__file__).resolve().parents[2]
DIGITS = {
    "inputs": [TensorSpec(name="x", dtype="float32", shape=("batch", 1, 8, 8))],
    "outputs": [TensorSpec(name="linear", dtype="float32", shape=("batch", 10))],
}


def test_a_manifest_wraps_an_npz_beside_it(tmp_path, arrays, vector_input, three_classes, write_manifest):
    np.savez(tmp_path / "numbers.npz", **arrays)
    path = write_manifest(
        source={"npz": "numbers.npz", "sha256": hash_file(tmp_path / "numbers.npz")},
        classes=["a", "b", "c"],
        preprocessing={"layout": "NC", "already_done": "divided by 16"},
        license="MIT",
        provenance="made up",
    )
    data = load_data(path, inputs=[vector_input], outputs=[three_classes])
    assert (data.name, data.classes, data.licence, data.provenance) == ("set", ("a", "b", "c"), "MIT", "made up")
    assert data.contract.layout == "NC"
    assert data.contract.preprocessing == "divided by 16; arrange as NC"


def test_another_file_than_the_pinned_one_is_refused(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "numbers.npz", **arrays)
    path = write_manifest(source={"npz": "numbers.npz", "sha256": "0" * 64})
    with pytest.raises(DataError, match=r"not the one that the manifest set\.yaml describes"):
        load_data(path, inputs=[vector_input])


def test_scale_mean_and_std_are_what_float64_arithmetic_says(tmp_path, write_manifest):
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 5, 5), np.uint8)
    np.savez(tmp_path / "u8.npz", x=x)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    how = {"scale": "1/255", "mean": mean, "std": std, "layout": "NCHW"}
    path = write_manifest(task="unlabelled", source={"npz": "u8.npz"}, preprocessing=how)
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 3, 5, 5))
    data = load_data(path, inputs=[spec])
    split = data.splits["test"]
    got = next(split.batches(100)).inputs[0]
    wanted = (x[split.indices] / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)  # values below 3, four float32 roundings
    assert (data.contract.mean, data.contract.std) == (tuple(mean), tuple(std))
    assert data.contract.preprocessing == (
        "multiply by 1/255; subtract [0.485, 0.456, 0.406]; divide by [0.229, 0.224, 0.225]; arrange as NCHW"
    )


def test_one_over_255_divides_exactly(tmp_path, write_manifest):
    x = np.arange(256, dtype=np.uint8)[:, None]
    np.savez(tmp_path / "u8.npz", x=x)
    path = write_manifest(task="unlabelled", source={"npz": "u8.npz"}, preprocessing={"scale": "1/255"})
    split = load_data(path, inputs=[TensorSpec(name="x", dtype="float32", shape=("n", 1))]).splits["test"]
    np.testing.assert_array_equal(
        next(split.batches(256)).inputs[0], x[split.indices].astype(np.float32) / np.float32(255)
    )


def test_a_float16_input_is_computed_in_float32(tmp_path, write_manifest):
    x = np.arange(100, dtype=np.uint8)[:, None]
    np.savez(tmp_path / "u8.npz", x=x)
    path = write_manifest(task="unlabelled", source={"npz": "u8.npz"}, preprocessing={"scale": 1, "mean": 50})
    split = load_data(path, inputs=[TensorSpec(name="x", dtype="float16", shape=("n", 1))]).splits["test"]
    got = next(split.batches(256)).inputs[0]
    np.testing.assert_array_equal(got, (x[split.indices].astype(np.float64) - 50).astype(np.float16))


def test_unlabelled_leaves_labels_alone(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "a.npz", **arrays)
    path = write_manifest(task="unlabelled", source={"npz": "a.npz"})
    output = TensorSpec(name="o", dtype="float32", shape=("batch", 3, 8))
    data = load_data(path, inputs=[vector_input], outputs=[output])
    assert data.task == "unlabelled"
    assert next(data.splits["test"].batches(3)).targets is None


def test_split_sizes_and_seed_come_from_the_manifest(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "a.npz", **arrays)
    plan = {"calibration": 7, "tune": 0, "train": 0.5, "seed": 3}
    path = write_manifest(source={"npz": "a.npz"}, splits=plan)
    first, second = (load_data(path, inputs=[vector_input], seed=seed) for seed in (0, 1))
    assert {name: len(split) for name, split in first.splits.items()} == {"train": 30, "calibration": 7, "test": 23}
    assert first.fingerprint == second.fingerprint, "the manifest pins the seed"
    assert "seed 3" in first.splits["test"].how


@pytest.mark.parametrize("plan", [{"calibration": 0.001}, {"calibration": 60}, {"train": 0.9}])
def test_sizes_that_leave_a_split_empty_are_refused(tmp_path, arrays, vector_input, write_manifest, plan):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=r"Empty split.*60 distinct samples"):
        load_data(write_manifest(source={"npz": "a.npz"}, splits=plan), inputs=[vector_input])


def test_a_split_both_given_and_split_off_is_refused(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "a.npz", **arrays, x_calibration=arrays["x"] + 1)
    path = write_manifest(source={"npz": "a.npz"}, splits={"calibration": 5})
    with pytest.raises(DataError, match="calibration is given, and the manifest wants it split off"):
        load_data(path, inputs=[vector_input])


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"sorce": {"npz": "a.npz"}}, r"unknown key sorce \(did you mean source\?"),
        ({"preprocessing": {"means": [1]}}, r"unknown key preprocessing\.means \(did you mean mean\?"),
        ({"splits": {"calib": 0.1}}, r"unknown key splits\.calib \(did you mean calibration\?"),
        ({"source": {"nzp": "a.npz"}}, r"unknown key source\.nzp \(did you mean npz\?"),
        ({"source": {}}, "exactly one of npz, folder and dataset"),
        ({"source": {"npz": "a", "folder": "b"}}, "exactly one of npz, folder and dataset"),
        ({"source": {"folder": "b", "sha256": "0" * 64}}, "sha256 belongs to an npz"),
        ({"task": "tracking"}, "task: Input should be 'classification', 'regression', .*or 'unlabelled'"),
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"preprocessing": {"scale": "255/"}}, "scale is a number above 0 or a ratio"),
        ({"preprocessing": {"scale": "1/0"}}, "scale is a number above 0 or a ratio"),
        ({"preprocessing": {"scale": 0}}, "scale is a number above 0 or a ratio"),
        ({"preprocessing": {"std": [1, 0]}}, "std holds numbers above 0"),
        ({"preprocessing": {"mean": [float("nan")]}}, "mean and std hold finite numbers"),
        ({"preprocessing": {"resize": 8}}, "no filter is assumed"),
        ({"preprocessing": {"crop": 8}}, "are for folders of images"),
        ({"splits": {"calibration": 0}}, "int8 needs calibration data"),
        ({"splits": {"tune": -1}}, "splits.tune"),
        ({"splits": {"tune": 1.5}}, "splits.tune"),
        ({"classes": ["a", "a"]}, "classes holds a name twice"),
        ({"labels": {"a": 1}}, "labels maps the class folders"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(arrays, vector_input, write_manifest, keys, match):
    with pytest.raises(DataError, match=match):
        load_data(write_manifest(**{"source": {"npz": "a.npz"}, **keys}), inputs=[vector_input])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("- a list", "not a mapping"),
        ("a: [1", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        (b"\xff\xfe\x00bad", "cannot be read"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, vector_input, text, match):
    (tmp_path / "set.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=match):
        load_data(tmp_path / "set.yaml", inputs=[vector_input])


@pytest.mark.parametrize("source", [{"npz": "gone.npz"}, {"folder": "gone"}])
def test_a_source_that_is_not_there_is_named(tmp_path, vector_input, write_manifest, source):
    with pytest.raises(DataError, match=r"that the manifest set.yaml names is not there.*gone"):
        load_data(write_manifest(source=source), inputs=[vector_input])


@pytest.mark.parametrize(
    ("how", "spec", "match"),
    [
        ({"layout": "NCHW"}, "float32[n,4]", "layout does not fit"),
        ({"mean": [1, 2]}, "float32[n,4]", "which dimension holds the channels"),
        ({"mean": [1, 2], "layout": "NC"}, "float32[n,4]", "mean does not fit.*2 values"),
        ({"scale": "1/255"}, "int64[n,4]", "not a float type"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(tmp_path, arrays, write_manifest, how, spec, match):
    from edgeopt.core.spec import parse_input

    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=match):
        load_data(write_manifest(source={"npz": "a.npz"}, preprocessing=how), inputs=[parse_input(f"x:{spec}")])


def test_normalization_of_several_inputs_is_refused(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="models with one input"):
        load_data(
            write_manifest(source={"npz": "a.npz"}, preprocessing={"scale": 2}), inputs=[vector_input, vector_input]
        )


def test_names_for_another_number_of_classes_are_refused(tmp_path, arrays, vector_input, three_classes, write_manifest):
    np.savez(tmp_path / "a.npz", **arrays)
    path = write_manifest(source={"npz": "a.npz"}, classes=["a", "b"])
    with pytest.raises(DataError, match="2 names for 3 outputs"):
        load_data(path, inputs=[vector_input], outputs=[three_classes])


def test_classification_without_labels_is_refused(tmp_path, arrays, vector_input, write_manifest):
    np.savez(tmp_path / "a.npz", x=arrays["x"])
    with pytest.raises(DataError, match="test data has no labels"):
        load_data(write_manifest(source={"npz": "a.npz"}), inputs=[vector_input])


@pytest.mark.parametrize("name", ["no-such-set", "digit", "missing.npz", "folder/gone.yaml"])
def test_data_that_is_not_there_lists_what_is(vector_input, name):
    with pytest.raises(DataError, match=rf"no such data.*{name}.*shipped set: digits"):
        load_data(name, inputs=[vector_input])


def test_a_file_of_another_kind_is_refused(tmp_path, vector_input):
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"kind is not known.*an \.npz"):
        load_data(tmp_path / "data.csv", inputs=[vector_input])


def test_the_shipped_digits_load_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # a folder without manifest, as in examples/, does not stand in the way
    data = load_data("digits", **DIGITS)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 600,
        "calibration": 300,
        "tune": 97,
        "test": 800,
    }
    assert data.events == (), "no digit is in two splits"
    assert data.contract.value_range == (0.0, 1.0)
    assert data.classes == tuple("0123456789")


def test_the_shipped_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    real = {(image.tobytes(), label) for image, label in zip(load_digits().images, load_digits().target, strict=True)}
    data = load_data("digits", **DIGITS)
    for split in data.splits.values():
        batch = next(split.batches(1000))
        ours = {(np.float64(x[0] * 16).tobytes(), y) for x, y in zip(batch.inputs[0], batch.targets, strict=True)}
        assert ours <= real


@pytest.mark.parametrize("name", shipped_sets())
def test_every_shipped_set_says_its_licence_and_where_it_comes_from(name):
    manifest = read_manifest(shipped_sets()[name])
    assert manifest.name == name
    assert manifest.license
    assert manifest.provenance
    assert manifest.source.sha256, "its file is pinned"


def test_shipped_sets_are_found_in_an_installed_package_too(tmp_path):
    site = tmp_path / "site"
    shutil.copytree(ROOT / "edgeopt", site / "edgeopt", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    shutil.copytree(ROOT / "calibration", site / "edgeopt/data/shipped")  # what pyproject's force-include does
    code = "from edgeopt.data.shipped import shipped_sets; print(shipped_sets()['digits'])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(site / "edgeopt/data/shipped/digits.yaml")


def test_the_wheel_takes_the_shipped_sets_along():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert include["calibration"] == "edgeopt/data/shipped"


@pytest.mark.parametrize("scale", [1, 1.0, 0.5, 1e-3, "1/255", "2/3", " 1 / 16 "])
def test_a_scale_is_a_positive_ratio(scale):
    ratio = Preprocessing(scale=scale).scale_ratio
    expected = eval(scale) if isinstance(scale, str) else scale  # the test's own literals
    assert float(ratio) == pytest.approx(expected, rel=1e-15)
