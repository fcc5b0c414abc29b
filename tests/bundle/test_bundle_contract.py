"""Arrays that do not fit the model are refused with what would mend them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.bundle.contract import InputChecker
from edgeopt.bundle.manifest import Contract, InputRecord, OutputRecord
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec


def checker(tmp_path, *inputs: InputRecord, static: dict[str, tuple] | None = None) -> InputChecker:
    shapes = {record.name: record.shape for record in inputs} | (static or {})
    output = OutputRecord(name="y", dtype="float32", shape=("batch", 2))
    engine = Engine(
        runtime="onnxruntime",
        runtime_version="1",
        directory=tmp_path,
        entry="model.onnx",
        status="built",
        inputs=tuple(TensorSpec(name=r.name, dtype=r.dtype, shape=shapes[r.name]) for r in inputs),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
    )
    return InputChecker(Contract(inputs=inputs, outputs=(output,)), engine)


def image(**more) -> InputRecord:
    return InputRecord(name="x", dtype="float32", shape=("batch", 3, 8, 10), layout="NCHW", **more)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_what_fits_passes_unchanged(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3, 8, 10)).astype(np.float32)
    check = checker(tmp_path, image())
    np.testing.assert_array_equal(check(x)["x"], x)
    np.testing.assert_array_equal(check({"x": x})["x"], x)


def test_a_transposed_view_becomes_contiguous(tmp_path):
    x = floats(5, 8, 10, 3).transpose(0, 3, 1, 2)
    assert checker(tmp_path, image())(x)["x"].flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (floats(5, 8, 10, 3), r"shape \[N, 3, 8, 10\] \(NCHW\).*\[5, 8, 10, 3\].*NHWC.*takes NCHW.*transpose\(0, 3, 1, 2\)"),
        (floats(5, 3, 10, 8), r"another order.*x\.transpose\(0, 1, 3, 2\)"),
        (floats(3, 8, 10), r"batch dimension is missing: give x\[numpy\.newaxis\]"),
        (floats(8, 10, 3), r"batch dimension is missing: give x\.transpose\(2, 0, 1\)\[numpy\.newaxis\]"),
        (floats(5, 3, 8, 11), r"must have the shape \[N, 3, 8, 10\].*\[5, 3, 8, 11\]"),
        (floats(5, 240), r"must have the shape"),
        (floats(2, 2, 2, 2, 2, 2, 2), r"must have the shape"),
        (np.zeros((), np.float32), r"must have the shape"),
        (floats(0, 3, 8, 10), r"is empty.*at least one sample"),
        (floats(5, 3, 8, 10).astype(np.float64), r"must be float32.*float64.*astype\(numpy\.float32\)"),
        (np.zeros((5, 3, 8, 10), np.uint8), r"must be float32.*uint8.*raw pixels.*as in training"),
        ([[1.0, 2.0]], r"not a NumPy array.*list.*numpy\.asarray"),
        (None, r"not a NumPy array.*NoneType"),
        ({"y": floats(5, 3, 8, 10)}, r"names do not fit.*unknown: 'y'.*It takes 'x'"),
        ({}, r"names do not fit.*missing: 'x'"),
        ({1: floats(5, 3, 8, 10)}, r"unknown: '1'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_to_do(tmp_path, x, match):
    with pytest.raises(DataError, match=match):
        checker(tmp_path, image())(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_located(tmp_path, bad):
    x = floats(5, 3, 8, 10)
    x[4, 2, 7, 9] = bad
    with pytest.raises(DataError, match=r"not finite.*1 of 1200.*\[4, 2, 7, 9\]"):
        checker(tmp_path, image())(x)


def test_raw_pixels_are_told_the_models_own_preprocessing(tmp_path):
    pixels = np.zeros((1, 3, 8, 10), np.uint8)
    with pytest.raises(DataError, match=r"subtract the mean \[0\.5.*divide by \[0\.25"):
        checker(tmp_path, image(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))(pixels)
    with pytest.raises(DataError, match="trained with pixels / 255"):
        checker(tmp_path, image(preprocessing="pixels / 255"))(pixels)


def test_an_nhwc_model_given_nchw_says_so(tmp_path):
    record = InputRecord(name="x", dtype="float32", shape=("batch", 8, 10, 3), layout="NHWC")
    with pytest.raises(DataError, match=r"looks like NCHW, and the model takes NHWC: give x\.transpose\(0, 2, 3, 1\)"):
        checker(tmp_path, record)(floats(5, 3, 8, 10))


def test_far_values_warn_once_and_near_ones_never(tmp_path, caplog):
    check = checker(tmp_path, image(value_range=(-1.0, 1.0), preprocessing="pixels / 127.5 - 1"))
    with caplog.at_level(logging.WARNING):
        check(floats(1, 3, 8, 10) + np.float32(2.5))
        assert caplog.records == []
        check(floats(1, 3, 8, 10) + np.float32(255))
        check(floats(1, 3, 8, 10) + np.float32(255))
    assert len(caplog.records) == 1
    assert "255 to 255, and the model was calibrated with -1 to 1" in caplog.text
    assert "pixels / 127.5 - 1" in caplog.text


def test_a_model_with_several_inputs_takes_a_dict_of_all(tmp_path):
    a = InputRecord(name="tokens", dtype="int64", shape=("batch", "time"))
    b = InputRecord(name="mask", dtype="bool", shape=("batch", "time"))
    check = checker(tmp_path, a, b)
    tokens, mask = np.zeros((2, 7), np.int64), np.ones((2, 7), bool)
    assert list(check({"mask": mask, "tokens": tokens})) == ["tokens", "mask"]
    with pytest.raises(DataError, match=r"several inputs.*ndarray.*'tokens', 'mask'"):
        check(tokens)
    with pytest.raises(DataError, match=r"missing: 'mask'"):
        check({"tokens": tokens})
    with pytest.raises(DataError, match=r"unknown: 'maks'.*It takes 'mask', 'tokens'"):
        check({"tokens": tokens, "mask": mask, "maks": mask})
    with pytest.raises(DataError, match=r"'tokens' and 'mask' must agree in the batch.*2 and 3"):
        check({"tokens": tokens, "mask": np.ones((3, 7), bool)})
    with pytest.raises(DataError, match=r"must agree in time.*7 and 8"):
        check({"tokens": tokens, "mask": np.ones((2, 8), bool)})
    with pytest.raises(DataError, match=r"must be bool.*numpy\.bool_"):
        check({"tokens": tokens, "mask": mask.astype(np.float32)})


def test_an_engine_with_a_fixed_length_binds_more_than_the_contract(tmp_path):
    record = InputRecord(name="x", dtype="float32", shape=("batch", "time"))
    with pytest.raises(DataError, match=r"shape \[N, 16\]"):
        checker(tmp_path, record, static={"x": (1, 16)})(floats(4, 7))


@given(order=st.permutations([1, 2, 3]), batch=st.integers(1, 4))
def test_the_transposition_that_is_offered_always_fits(tmp_path_factory, order, batch):
    check = checker(tmp_path_factory.getbasetemp(), image())
    right = floats(batch, 3, 8, 10)
    wrong = right.transpose(0, *order)
    if wrong.shape == right.shape:
        check(wrong)
        return
    with pytest.raises(DataError) as caught:
        check(wrong)
    axes = caught.value.fix.split("transpose(")[1].split(")")[0]
    check(wrong.transpose(*map(int, axes.split(", "))))
