"""Tensor specs: read from text, printed as read, checked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.core.errors import ModelError
from edgeopt.core.spec import DTYPES, TensorSpec, parse_input

dims = st.integers(1, 10**6) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_./]*", fullmatch=True)
specs = st.builds(TensorSpec, name=names, dtype=st.sampled_from(DTYPES), shape=st.lists(dims, max_size=5).map(tuple))


@given(spec=specs)
def test_a_spec_is_the_same_after_being_printed_and_read(spec):
    assert parse_input(str(spec)) == spec


@given(spec=specs, batch=st.integers(1, 100))
def test_another_batch_changes_the_first_dimension_only(spec, batch):
    if spec.shape:
        changed = spec.with_batch(batch)
        assert (changed.batch, changed.shape[1:], changed.name, changed.dtype) == (
            batch,
            spec.shape[1:],
            spec.name,
            spec.dtype,
        )


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), dtype=st.sampled_from(DTYPES), at=st.integers(0, 3))
def test_a_spec_accepts_its_own_arrays_and_no_other(shape, dtype, at):
    array = np.zeros(shape, dtype)
    spec = TensorSpec(name="x", dtype=dtype, shape=tuple(shape))
    at %= len(shape)
    other = [n + (i == at) for i, n in enumerate(shape)]
    assert spec.accepts(array)
    assert not spec.accepts(np.zeros(other, dtype))
    assert not spec.accepts(array[None])
    assert not spec.accepts(array.astype("float32" if dtype != "float32" else "int8"))
    named = TensorSpec(name="x", dtype=dtype, shape=tuple("n" if i == at else d for i, d in enumerate(shape)))
    assert named.accepts(np.zeros(other, dtype))


def test_spaces_are_allowed_and_a_scalar_has_no_batch():
    assert parse_input("  x:float32[ batch , 3 ] ").shape == ("batch", 3)
    assert parse_input("x:int64[]").batch is None
    assert parse_input("x:float32[n,2]").has_dynamic_batch
    assert not parse_input("x:float32[1,2]").has_dynamic_batch


@pytest.mark.parametrize("text", ["", "x", "x:float32", "x:float32[1", "float32[1]", "x y:float32[1]", "x:float32[1]]"])
def test_text_of_another_form_is_refused_with_an_example(text):
    with pytest.raises(ModelError, match=r"cannot be read.*for example x:float32\[batch,3,224,224\]"):
        parse_input(text)


@pytest.mark.parametrize("dim", ["0", "-1", "1.5", "3x", "a-b"])
def test_a_bad_dimension_is_refused(dim):
    with pytest.raises(ModelError, match=f"bad dimension. Received: '{dim}'"):
        parse_input(f"x:float32[1,{dim}]")


def test_an_unknown_dtype_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"does not know\. Received: float23\. Use one of float32, float16"):
        parse_input("x:float23[1]")


def test_a_dimension_below_one_is_refused():
    with pytest.raises(ModelError, match=r"below 1. Received: \[1, 0\]"):
        TensorSpec(name="x", dtype="float32", shape=(1, 0))
