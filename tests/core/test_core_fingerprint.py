"""Fingerprints: equal content, equal hash; anything else, another hash."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.core.fingerprint import hash_array, hash_bytes, hash_file, hash_json, hash_tree


def test_bytes_and_files_have_the_sha256_of_their_content(tmp_path):
    content = bytes(range(256)) * 9000  # more than one chunk
    path = tmp_path / "file"
    path.write_bytes(content)
    assert hash_file(path) == hash_bytes(content) == hashlib.sha256(content).hexdigest()


def test_the_order_of_keys_does_not_matter_and_the_values_do():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": "1"})


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        hash_json(float("nan"))


class TestTrees:
    def test_the_name_of_the_folder_does_not_matter(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name / "sub").mkdir(parents=True)
            (tmp_path / name / "sub" / "f").write_text("x")
        assert hash_tree(tmp_path / "one") == hash_tree(tmp_path / "two")

    def test_a_files_name_and_content_matter(self, tmp_path):
        (tmp_path / "a").write_text("x")
        first = hash_tree(tmp_path)
        (tmp_path / "a").write_text("y")
        second = hash_tree(tmp_path)
        (tmp_path / "a").rename(tmp_path / "b")
        assert len({first, second, hash_tree(tmp_path)}) == 3


arrays = hnp.arrays(
    dtype=st.sampled_from(["float32", "int8", "uint8", "int64", "bool"]), shape=hnp.array_shapes(min_side=0, max_dims=4)
)


@given(array=arrays)
def test_the_memory_layout_of_an_array_does_not_matter(array):
    strided = np.stack([array, array], axis=-1)[..., 0]
    assert hash_array(np.asfortranarray(array)) == hash_array(strided) == hash_array(array.copy())


@given(array=arrays)
def test_dtype_and_shape_of_an_array_matter(array):
    assert hash_array(array) != hash_array(array[None])
    assert hash_array(array) != hash_array(array.astype("float64"))


@given(array=hnp.arrays("float32", hnp.array_shapes(), elements=st.floats(-1, 1, width=32)), at=st.integers(0))
def test_one_other_value_is_another_hash(array, at):
    other = array.copy()
    other.flat[at % array.size] += 2
    assert hash_array(array) != hash_array(other)


def test_arrays_longer_than_a_chunk_are_hashed_to_their_end():
    array = np.zeros((1 << 20) + 5, np.uint8)
    other = array.copy()
    other[-1] = 1
    assert hash_array(array) != hash_array(other)


def test_a_scalar_array_has_a_hash():
    assert hash_array(np.array(1.0)) != hash_array(np.array(2.0))
