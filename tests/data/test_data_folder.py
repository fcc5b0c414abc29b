from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data


@pytest.fixture
def load(write_manifest, image_preprocessing, image_input, three_classes):
    def load(folder: Path, *, inputs=None, outputs=None, how=None, **keys):
        how = image_preprocessing if how is None else how
        path = write_manifest(folder / "manifest.yaml", source={"folder": "."}, preprocessing=how, **keys)
        assert path.parent == folder
        return load_data(
            str(folder), inputs=inputs or [image_input], outputs=[three_classes] if outputs is None else outputs
        )

    return load


def samples(split) -> tuple[np.ndarray, np.ndarray]:
    batches = list(split.batches(4))
    return np.concatenate([b.inputs[0] for b in batches]), np.concatenate([b.targets for b in batches])


def test_class_folders_become_labelled_splits(image_folder, load):
    folder = image_folder(count=8)
    data = load(folder)
    assert data.classes == ("a", "b", "c")
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 2, "tune": 2, "test": 20}
    files = sorted(folder.glob("*/*.png"))
    for split in data.splits.values():
        x, y = samples(split)
        for image, label, index in zip(x, y, split.indices, strict=True):
            assert files[index].parent.name == "abc"[label]
            pixels = np.asarray(Image.open(files[index]), np.float64)
            np.testing.assert_allclose(image, pixels.transpose(2, 0, 1) / 255, atol=1e-7)
    low, high = data.contract.value_range
    calibration = samples(data.splits["calibration"])[0]
    assert (low, high) == (calibration.min(), calibration.max())


def test_folders_named_as_splits_are_given_splits(image_folder, load, tmp_path):
    for name in ("test", "calibration", "tune"):
        image_folder(f"photos/{name}", count=2)
    data = load(tmp_path / "photos")
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 6, "tune": 6, "test": 6}
    assert data.events == ()


def test_a_manifests_labels_map_folders_to_the_models_classes(image_folder, load):
    output = TensorSpec(name="o", dtype="float32", shape=("batch", 1000))
    data = load(image_folder(), outputs=[output], labels={"a": 281, "b": 7, "c": 999})
    assert set(samples(data.splits["test"])[1].tolist()) == {281, 7, 999}


def test_a_manifests_classes_give_the_label_order(image_folder, load):
    folder = image_folder()
    data = load(folder, classes=["c", "b", "a"])
    files = sorted(folder.glob("*/*.png"))
    split = data.splits["test"]
    assert all(files[i].parent.name == "cba"[y] for i, y in zip(split.indices, samples(split)[1], strict=True))


def test_resize_crop_and_normalization_follow_torchvisions_rules(tmp_path, load):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 21, 3), np.uint8)
    for index in range(4):
        (tmp_path / "p" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, index, axis=0)).save(tmp_path / f"p/a/{index}.png")
    how = {
        "mode": "RGB",
        "resize": 10,
        "interpolation": "bilinear",
        "crop": [8, 8],
        "scale": "1/255",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "layout": "NCHW",
    }
    data = load(tmp_path / "p", outputs=[], how=how)
    split = data.splits["test"]
    index = int(split.indices[0])
    # shorter side 21 → 10, longer int(10 · 30 / 21) = 14; crop rows round((14 − 8) / 2) = 3, columns (10 − 8) / 2 = 1
    small = Image.fromarray(np.roll(pixels, index, axis=0)).resize((10, 14), Image.Resampling.BILINEAR)
    box = np.asarray(small, np.float64)[3:11, 1:9] / 255
    wanted = ((box - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]).transpose(2, 0, 1)
    np.testing.assert_allclose(samples(split)[0][0], wanted, atol=2e-6)


def test_grey_images_for_an_nhwc_model(image_folder, load):
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 8, 8, 1))
    folder = image_folder()
    data = load(folder, inputs=[spec], how={"mode": "L", "layout": "NHWC", "scale": 1})
    split = data.splits["test"]
    file = sorted(folder.glob("*/*.png"))[split.indices[0]]
    np.testing.assert_array_equal(samples(split)[0][0, ..., 0], np.asarray(Image.open(file).convert("L")))


def test_a_uint8_model_gets_the_pixels(image_folder, load):
    spec = TensorSpec(name="x", dtype="uint8", shape=("n", 3, 8, 8))
    data = load(image_folder(), inputs=[spec], how={"mode": "RGB", "layout": "NCHW"})
    assert samples(data.splits["test"])[0].dtype == np.uint8


def test_unlabelled_images_have_no_labels(image_folder, load, image_input):
    output = TensorSpec(name="boxes", dtype="float32", shape=("n", 4, 100))
    data = load(image_folder(), outputs=[output], task="unlabelled")
    assert (data.task, data.classes) == ("unlabelled", ())
    assert next(data.splits["test"].batches(2)).targets is None


def test_the_fingerprint_follows_files_and_preprocessing(image_folder, load, image_preprocessing):
    folder = image_folder()
    first = load(folder).fingerprint
    assert load(folder).fingerprint == first
    assert load(folder, how={**image_preprocessing, "mean": [0.5]}).fingerprint != first
    Image.new("RGB", (8, 8), "red").save(folder / "a" / "0.png")
    assert load(folder).fingerprint != first


def test_a_folder_without_manifest_is_refused(image_folder, image_input):
    with pytest.raises(DataError, match=r"no manifest\.yaml, and edgeopt guesses no preprocessing"):
        load_data(image_folder(), inputs=[image_input])


@pytest.mark.parametrize("missing", ["mode", "layout", "scale"])
def test_preprocessing_is_never_guessed(image_folder, load, image_preprocessing, missing):
    how = {name: value for name, value in image_preprocessing.items() if name != missing}
    with pytest.raises(DataError, match=f"needs {missing} in its manifest"):
        load(image_folder(), how=how)


def test_a_layout_without_pictures_is_refused(image_folder, load):
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 3, 8, 8, 1))
    with pytest.raises(DataError, match="NCHW or NHWC"):
        load(image_folder(), inputs=[spec], how={"mode": "RGB", "scale": 1, "layout": "NCDHW"})


def test_images_do_not_become_other_integers(image_folder, load):
    spec = TensorSpec(name="x", dtype="int64", shape=("n", 3, 8, 8))
    with pytest.raises(DataError, match="of another integer type"):
        load(image_folder(), inputs=[spec], how={"mode": "RGB", "layout": "NCHW"})


def test_a_folder_feeds_one_input_only(image_folder, load, image_input):
    with pytest.raises(DataError, match="feeds one input"):
        load(image_folder(), inputs=[image_input, image_input])


@pytest.mark.parametrize("position", [0, 3])
def test_an_unreadable_image_is_named(image_folder, load, position):
    folder = image_folder()
    (folder / "b" / f"{position}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=rf"cannot be read.*b/{position}\.png"):
        load(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named_before_work_starts(image_folder, load, suffix):
    folder = image_folder()
    path = folder / "c" / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"cannot be read.*cut\.{suffix}"):
        load(folder)


def test_sixteen_bit_images_are_refused_where_pillow_would_clip(image_folder, load):
    folder = image_folder()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(folder / "a" / "deep.png")
    with pytest.raises(DataError, match=r"more than 8 bits.*deep\.png"):
        load(folder)


def test_an_image_of_another_size_is_named(image_folder, load):
    with pytest.raises(DataError, match=r"shape of image .*0\.png.*\[3, 9, 12\].*\[3, 8, 8\]"):
        load(image_folder(size=(9, 12)))


def test_an_image_smaller_than_the_crop_is_named(image_folder, load, image_preprocessing):
    with pytest.raises(DataError, match=r"smaller than the manifest's crop.*0\.png of 8 × 7"):
        load(image_folder(size=(7, 8)), how={**image_preprocessing, "crop": 8})


def test_images_without_class_folders_are_refused(image_folder, load):
    with pytest.raises(DataError, match=r"has no class folders.*6 images directly inside"):
        load(image_folder() / "a")


def test_an_empty_folder_is_refused(tmp_path, load):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"has no class folders.*an empty folder"):
        load(tmp_path / "none")


def test_an_empty_class_is_named(image_folder, load):
    folder = image_folder(classes="ab")
    (folder / "c").mkdir()
    with pytest.raises(DataError, match=r"class folder .*c has no images"):
        load(folder)


def test_splits_beside_classes_are_refused(image_folder, load, tmp_path):
    image_folder("photos/test")
    (tmp_path / "photos" / "extra").mkdir()
    with pytest.raises(DataError, match=r"mixes splits and classes.*beside extra"):
        load(tmp_path / "photos")


def test_split_folders_without_test_are_refused(image_folder, load, tmp_path):
    image_folder("photos/calibration")
    with pytest.raises(DataError, match="no test split"):
        load(tmp_path / "photos")


def test_another_number_of_folders_than_classes_is_refused(image_folder, load):
    with pytest.raises(DataError, match=r"2 folders in .*, 3 classes"):
        load(image_folder(classes="ab"))


def test_a_folder_that_the_manifest_does_not_know_is_named(image_folder, load):
    with pytest.raises(DataError, match=r"not in the manifest.*photos/c"):
        load(image_folder(), labels={"a": 0, "b": 1})


def test_numbers_whose_text_order_differs_are_not_guessed(image_folder, load):
    folder = image_folder(classes="12")
    (folder / "1").rename(folder / "10")
    output = TensorSpec(name="o", dtype="float32", shape=("batch", 2))
    with pytest.raises(DataError, match="order as text is another"):
        load(folder, outputs=[output])


def test_a_label_beyond_the_models_classes_is_refused(image_folder, load):
    with pytest.raises(DataError, match=r"label 3 .*0 to 2"):
        load(image_folder(), labels={"a": 0, "b": 1, "c": 3})


def test_a_folder_that_may_not_be_read_is_one_clear_error(image_folder, load, monkeypatch):
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    folder = image_folder()
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"folder of images cannot be read.*Permission denied"):
        load(folder)


def test_unlabelled_images_are_not_decoded_twice_at_full_size(image_folder, load, monkeypatch):
    from edgeopt.data.preprocess import ImageReader

    read = []
    original = ImageReader.__call__
    monkeypatch.setattr(ImageReader, "__call__", lambda self, path: (read.append(path), original(self, path))[1])
    data = load(image_folder(count=10), outputs=[], task="unlabelled")
    assert len(read) == 1 + len(data.splits["calibration"]), "the first image, and the calibration split for its range"
