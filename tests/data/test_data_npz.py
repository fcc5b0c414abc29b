from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data


def everything(split) -> tuple[np.ndarray, np.ndarray | None]:
    batches = list(split.batches(7))
    labels = None if batches[0].targets is None else np.concatenate([b.targets for b in batches])
    return np.concatenate([b.inputs[0] for b in batches]), labels


@pytest.fixture(params=["in memory", "stored", "compressed"])
def as_spec(request, tmp_path: Path):
    """The same arrays as each of the three forms that hold them."""

    def make(**arrays: np.ndarray) -> object:
        if request.param == "in memory":
            return arrays
        (np.savez if request.param == "stored" else np.savez_compressed)(tmp_path / "set.npz", **arrays)
        return str(tmp_path / "set.npz")

    return make


def test_given_splits_keep_every_sample_with_its_label(as_spec, vector_input, three_classes):
    random = np.random.default_rng(0)
    parts = {}
    for suffix, count in (("", 30), ("_calibration", 11), ("_tune", 12), ("_train", 13)):
        parts[f"x{suffix}"] = random.normal(size=(count, 4)).astype(np.float32)
        parts[f"y{suffix}"] = random.integers(0, 3, count)
    data = load_data(as_spec(**parts), inputs=[vector_input], outputs=[three_classes])
    assert data.task == "classification"
    for name, suffix in (("test", ""), ("calibration", "_calibration"), ("tune", "_tune"), ("train", "_train")):
        x, y = everything(data.splits[name])
        order = data.splits[name].indices
        np.testing.assert_array_equal(x, parts[f"x{suffix}"][order])
        np.testing.assert_array_equal(y, parts[f"y{suffix}"][order])
        assert sorted(order) == list(range(len(parts[f"x{suffix}"])))
        assert f"given as x{suffix} of" in data.splits[name].how


def test_one_array_pair_becomes_three_disjoint_splits(as_spec, arrays, vector_input, three_classes):
    data = load_data(as_spec(**arrays), inputs=[vector_input], outputs=[three_classes])
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 6, "tune": 6, "test": 48}
    together = np.concatenate([split.indices for split in data.splits.values()])
    assert sorted(together) == list(range(60))
    for split in data.splits.values():
        x, y = everything(split)
        np.testing.assert_array_equal(x, arrays["x"][split.indices])
        np.testing.assert_array_equal(y, arrays["y"][split.indices])
        assert len(set(np.bincount(y))) == 1, "stratified: as many of each class"
    assert "stratified by label" in data.splits["calibration"].how
    assert "seed 0" in data.splits["calibration"].how


def test_missing_calibration_comes_off_the_training_data_where_there_is_some(arrays, vector_input, three_classes):
    train = {"x_train": arrays["x"] + 1, "y_train": arrays["y"]}
    data = load_data({**arrays, **train}, inputs=[vector_input], outputs=[three_classes])
    assert "split off x_train" in data.splits["calibration"].how
    assert "split off x of" in data.splits["tune"].how
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 54,
        "calibration": 6,
        "tune": 6,
        "test": 54,
    }


def test_all_three_forms_of_the_same_arrays_have_one_fingerprint(tmp_path, arrays, vector_input, three_classes):
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    specs = [arrays, tmp_path / "a.npz", tmp_path / "b.npz"]
    found = {load_data(spec, inputs=[vector_input], outputs=[three_classes]).fingerprint for spec in specs}
    assert len(found) == 1


def test_fingerprint_follows_content_seed_and_labels(arrays, vector_input, three_classes):
    def fingerprint(x=arrays["x"], y=arrays["y"], seed=0) -> str:
        return load_data({"x": x, "y": y}, inputs=[vector_input], outputs=[three_classes], seed=seed).fingerprint

    changed_x, changed_y = arrays["x"].copy(), arrays["y"].copy()
    changed_x[3, 1] += 1
    changed_y[3] = (changed_y[3] + 1) % 3
    assert fingerprint() == fingerprint(arrays["x"].copy())
    others = {fingerprint(x=changed_x), fingerprint(y=changed_y), fingerprint(seed=1)}
    assert len(others | {fingerprint()}) == 4


def test_row_order_does_not_change_the_splits(arrays, vector_input, three_classes):
    back = {name: array[::-1].copy() for name, array in arrays.items()}
    first, second = (load_data(a, inputs=[vector_input], outputs=[three_classes]) for a in (arrays, back))
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(everything(first.splits["test"])[0], everything(second.splits["test"])[0])


def test_without_labels_the_task_is_unlabelled(as_spec, arrays, vector_input):
    data = load_data(as_spec(x=arrays["x"]), inputs=[vector_input])
    assert data.task == "unlabelled"
    assert everything(data.splits["test"])[1] is None
    assert "drawn without labels" in data.splits["calibration"].how


def test_calibration_needs_no_labels(as_spec, arrays, vector_input, three_classes):
    data = load_data(as_spec(**arrays, x_calibration=arrays["x"] * 2), inputs=[vector_input], outputs=[three_classes])
    assert data.task == "classification"
    assert everything(data.splits["calibration"])[1] is None


def test_several_inputs_are_matched_by_name_whatever_their_order(as_spec):
    inputs = [
        TensorSpec(name="ids", dtype="int64", shape=("batch", 5)),
        TensorSpec(name="mask", dtype="float32", shape=("batch", 5)),
    ]
    ids, mask = np.arange(100).reshape(20, 5), np.random.default_rng(0).random((20, 5)).astype(np.float32)
    data = load_data(as_spec(**{"x/mask": mask, "x/ids": ids}), inputs=inputs)
    batch = next(data.splits["test"].batches(4))
    np.testing.assert_array_equal(batch.inputs[0], ids[data.splits["test"].indices[:4]])
    np.testing.assert_array_equal(batch.inputs[1], mask[data.splits["test"].indices[:4]])
    assert set(data.contracts) == {"ids", "mask"}


def test_value_range_is_that_of_the_calibration_split_alone(arrays, vector_input, three_classes):
    calibration = arrays["x"].clip(-0.5, 0.5)
    data = load_data({**arrays, "x_calibration": calibration}, inputs=[vector_input], outputs=[three_classes])
    assert data.contract.value_range == (-0.5, 0.5)
    assert data.contract.layout == "NC"


def test_every_batch_is_read_in_the_asked_order(tmp_path, vector_input):
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    np.savez(tmp_path / "s.npz", x=x)
    source = load_data(tmp_path / "s.npz", inputs=[vector_input]).splits["test"].source
    for order in ([5, 6, 7, 3, 99, 0, 0], [99, 98, 97], list(range(100))):
        np.testing.assert_array_equal(source.read(order).inputs[0], x[order])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool"])
def test_inputs_of_other_types_pass_unchanged(as_spec, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 50, (30, 40)).astype(dtype)
    data = load_data(as_spec(x=x), inputs=[TensorSpec(name="x", dtype=dtype, shape=("batch", 40))])
    got = everything(data.splits["test"])[0]
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, x[data.splits["test"].indices])


def bad(tmp_path: Path, match: str, inputs, outputs=(), **arrays: np.ndarray) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    for spec in (tmp_path / "bad.npz", arrays):
        with pytest.raises(DataError, match=match):
            load_data(spec, inputs=inputs, outputs=outputs)


def test_nhwc_data_for_an_nchw_model_is_recognized(tmp_path, image_input):
    x = np.zeros((9, 8, 8, 3), np.float32)
    bad(tmp_path, r"\[8, 8, 3\], where the model takes \[3, 8, 8\].*NHWC.*transpose\(0, 3, 1, 2\)", [image_input], x=x)


def test_nchw_data_for_an_nhwc_model_is_recognized(tmp_path):
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 8, 8, 3))
    bad(tmp_path, r"looks like NCHW.*transpose\(0, 2, 3, 1\)", [spec], x=np.zeros((9, 3, 8, 8), np.float32))


def test_flat_data_for_an_image_model_is_recognized(tmp_path, image_input):
    bad(tmp_path, r"x\.reshape\(-1, 3, 8, 8\)", [image_input], x=np.zeros((9, 192), np.float32))


def test_an_extra_leading_dimension_is_recognized(tmp_path, image_input):
    bad(tmp_path, "one dimension too many", [image_input], x=np.zeros((2, 9, 3, 8, 8), np.float32))


def test_wrong_shape_shows_both_shapes(tmp_path, vector_input):
    bad(tmp_path, r"samples of \[5\], where the model takes \[4\]", [vector_input], x=np.zeros((9, 5), np.float32))


def test_a_model_without_batch_dimension_is_refused(tmp_path):
    bad(tmp_path, "no batch dimension", [TensorSpec(name="x", dtype="float32", shape=())], x=np.zeros((9,), np.float32))


def test_a_single_number_is_no_data(tmp_path, vector_input):
    bad(tmp_path, "is a single number", [vector_input], x=np.zeros((), np.float32))


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [("float64", r"astype\(np\.float32\)"), ("uint8", "scale: 1/255"), (">f4", "other byte order")],
)
def test_no_dtype_is_cast_in_silence(tmp_path, vector_input, dtype, hint):
    bad(tmp_path, rf"where the model takes float32.*{hint}", [vector_input], x=np.zeros((9, 4), dtype))


def test_label_outside_the_models_classes_is_named(tmp_path, arrays, vector_input, three_classes):
    y = arrays["y"].copy()
    y[17] = 3
    bad(tmp_path, r"label 3 at sample 17.*0 to 2", [vector_input], [three_classes], x=arrays["x"], y=y)


def test_negative_label_is_refused_even_where_the_classes_are_unknown(tmp_path, arrays, vector_input):
    y = arrays["y"].copy()
    y[4] = -1
    bad(tmp_path, r"label -1 at sample 4.*0 and up", [vector_input], x=arrays["x"], y=y)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_labels_that_are_no_integers_are_refused(tmp_path, arrays, vector_input, dtype):
    bad(tmp_path, f"not integers.*{dtype}", [vector_input], x=arrays["x"], y=arrays["y"].astype(dtype))


def test_one_hot_labels_are_refused(tmp_path, arrays, vector_input):
    bad(
        tmp_path,
        r"not one number per sample.*argmax",
        [vector_input],
        x=arrays["x"],
        y=np.eye(3, dtype=int)[arrays["y"]],
    )


def test_labels_as_a_column_are_refused(tmp_path, arrays, vector_input):
    bad(tmp_path, r"y\.reshape\(-1\)", [vector_input], x=arrays["x"], y=arrays["y"][:, None])


def test_different_lengths_are_refused(tmp_path, arrays, vector_input):
    bad(tmp_path, "60 in x .*, 59 in y ", [vector_input], x=arrays["x"], y=arrays["y"][:-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_and_named(tmp_path, arrays, vector_input, value):
    x = arrays["x"].copy()
    x[41, 2] = value
    bad(tmp_path, rf"not finite.*{value} at \[41, 2\]", [vector_input], x=x, y=arrays["y"])


def test_not_finite_is_found_behind_the_first_chunk(tmp_path):
    x = np.zeros((1500, 1024), np.float32)  # 6 MiB: several chunks
    x[:, 0] = np.arange(1500)
    x[1499, 1023] = np.nan
    bad(tmp_path, r"nan at \[1499, 1023\]", [TensorSpec(name="x", dtype="float32", shape=("n", 1024))], x=x)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_give_an_empty_split_with_numbers(tmp_path, vector_input, count):
    x = np.arange(count * 4, dtype=np.float32).reshape(count, 4)
    bad(tmp_path, rf"Empty split.*{count} ", [vector_input], x=x)


def test_three_samples_are_enough_for_three_splits(vector_input):
    data = load_data({"x": np.eye(3, 4, dtype=np.float32)}, inputs=[vector_input])
    assert sorted(len(split) for split in data.splits.values()) == [1, 1, 1]


def test_an_empty_given_split_is_refused(tmp_path, arrays, vector_input):
    bad(tmp_path, "Empty split: calibration", [vector_input], **arrays, x_calibration=np.zeros((0, 4), np.float32))


def test_identical_samples_are_too_few(tmp_path, vector_input):
    bad(tmp_path, "1 distinct samples", [vector_input], x=np.zeros((50, 4), np.float32))


@pytest.mark.parametrize("key", ["x_calib", "X", "x_test", "ids", "y/a"])
def test_unknown_arrays_are_refused_with_the_nearest_name(tmp_path, arrays, vector_input, key):
    np.savez(tmp_path / "bad.npz", **arrays, **{key: arrays["x"]})
    with pytest.raises(DataError, match=r"unknown array.*Did you mean"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


def test_labels_without_samples_are_refused(tmp_path, arrays, vector_input):
    bad(tmp_path, "y_tune without x_tune", [vector_input], **arrays, y_tune=arrays["y"])


def test_tuning_samples_without_labels_are_refused(tmp_path, arrays, vector_input):
    bad(tmp_path, "tune split has no labels", [vector_input], **arrays, x_tune=arrays["x"] + 1)


def test_training_data_alone_is_no_test_data(tmp_path, arrays, vector_input):
    bad(tmp_path, "no test data.*x_train", [vector_input], x_train=arrays["x"], y_train=arrays["y"])


def test_arrays_that_are_not_the_models_inputs_are_refused(tmp_path, arrays, vector_input):
    two = [vector_input, TensorSpec(name="z", dtype="float32", shape=("batch", 4))]
    bad(tmp_path, r"takes x, z\. Save one array per input: x/x, x/z", two, x=arrays["x"])


@pytest.mark.parametrize(
    ("shape", "match"),
    [(("batch", 1), "one output per class"), (("batch", 3, 8), r"first output is \[N, classes\]")],
)
def test_labels_for_a_model_that_is_no_classifier_are_refused(tmp_path, arrays, vector_input, shape, match):
    bad(tmp_path, match, [vector_input], [TensorSpec(name="o", dtype="float32", shape=shape)], **arrays)


def test_a_model_that_is_no_classifier_takes_unlabelled_data(arrays, vector_input):
    output = TensorSpec(name="o", dtype="float32", shape=("batch", 3, 8, 8))
    assert load_data({"x": arrays["x"]}, inputs=[vector_input], outputs=[output]).task == "unlabelled"


@pytest.mark.parametrize("key", ["x", "y"])
def test_pickled_objects_are_refused_and_not_run(tmp_path, arrays, vector_input, key):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    hostile = {**arrays, key: np.array([Bomb()] * 60, dtype=object)}
    np.savez(tmp_path / "bad.npz", **hostile)
    with pytest.raises(DataError, match=rf"{key} of bad\.npz holds pickled Python objects"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])
    assert not (tmp_path / "exploded").exists()


def test_text_is_no_data(tmp_path, vector_input):
    bad_array = np.array([["a"] * 4] * 9)
    np.savez(tmp_path / "bad.npz", x=bad_array)
    with pytest.raises(DataError, match="not hold real numbers"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])
    with pytest.raises(DataError, match="not an array of numbers"):
        load_data({"x": bad_array}, inputs=[vector_input])


def test_fortran_order_is_refused_with_the_way_out(tmp_path, vector_input):
    np.savez(tmp_path / "bad.npz", x=np.asfortranarray(np.zeros((9, 4), np.float32)))
    with pytest.raises(DataError, match=r"Fortran order.*ascontiguousarray"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, vector_input, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"no readable \.npz.*np\.savez"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


def test_a_truncated_npz_is_refused(tmp_path, arrays, vector_input):
    np.savez(tmp_path / "whole.npz", **arrays)
    (tmp_path / "bad.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-300])
    with pytest.raises(DataError, match=r"no readable \.npz"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


def test_damage_inside_a_compressed_array_is_found(tmp_path, arrays, vector_input):
    np.savez_compressed(tmp_path / "bad.npz", **arrays)
    content = bytearray((tmp_path / "bad.npz").read_bytes())
    content[300:340] = bytes(40)
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"no readable \.npz"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


@pytest.mark.parametrize(
    ("content", "match"), [(b"no header", "is damaged"), (b"\x93NUMPY\x01\x00\x10\x00not a header!!\n", "is damaged")]
)
def test_a_member_that_is_no_array_is_refused(tmp_path, vector_input, content, match):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=match):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


def test_an_array_with_fewer_values_than_its_header_says_is_refused(tmp_path, arrays, vector_input):
    np.save(tmp_path / "x.npy", arrays["x"])
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match=r"x of bad.npz is cut off"):
        load_data(tmp_path / "bad.npz", inputs=[vector_input])


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path, arrays, vector_input):
    np.savez(tmp_path / "s.npz", **arrays)
    data = load_data(tmp_path / "s.npz", inputs=[vector_input])
    with (tmp_path / "s.npz").open("r+b") as file:
        file.truncate(400)
    with pytest.raises(DataError, match="ended early"):
        list(data.splits["test"].batches(16))


def test_a_sample_in_two_given_splits_is_a_warning(arrays, vector_input):
    calibration = np.concatenate([arrays["x"][:2], arrays["x"] + 5])
    data = load_data({**arrays, "x_calibration": calibration}, inputs=[vector_input])
    assert [event.kind for event in data.events] == ["warning"] * len(data.events)
    assert sum(int(event.message.split()[0]) for event in data.events) == 2, "in test, or in tune which came off it"


def test_calibrating_on_the_test_samples_is_refused(arrays, vector_input):
    tune = {"x_tune": arrays["x"] + 9, "y_tune": arrays["y"]}
    with pytest.raises(DataError, match=r"calibration split is inside the test split.*10 of 10"):
        load_data({**arrays, **tune, "x_calibration": arrays["x"][:10]}, inputs=[vector_input])
