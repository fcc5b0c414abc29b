from __future__ import annotations

import numpy as np
import pytest

from edgeopt.core.errors import DeviceError
from edgeopt.measure.numerics import compare_outputs, expected_words, within

HOST = np.array([[0.0, 1.0, 2.0], [5.0, 4.0, -5.0]])  # its range is 10


def difference(other, precision="int8", host=HOST):
    (found,) = compare_outputs({"y": np.asarray(host)}, {"y": np.asarray(other)}, precision)
    return found


def test_equal_outputs_differ_nowhere():
    found = difference(HOST.copy())
    assert (found.differing, found.largest, found.relative, found.steps, found.changed_predictions) == (0, 0, 0, 0, 0)
    assert found.values == 6


def test_a_difference_is_told_as_a_share_and_in_steps_of_the_hosts_range():
    other = HOST.copy()
    other[0, 0] += 10 / 255
    found = difference(other)
    assert found.differing == 1
    assert found.relative == pytest.approx(1 / 255)
    assert found.steps == pytest.approx(1)
    assert within([found], "openvino", "int8")
    other[1, 0] = 3.0
    found = difference(other)
    assert (found.differing, found.changed_predictions) == (2, 1)
    assert found.steps == pytest.approx(51)
    assert not within([found], "onnxruntime", "int8")


def test_engines_that_compute_in_float_have_no_steps():
    found = difference(HOST + 1e-6, "fp32")
    assert found.steps is None
    assert within([found], "onnxruntime", "fp32")
    assert not within([difference(HOST + 1e-4, "fp32")], "onnxruntime", "fp32")


def test_what_is_not_a_number_is_never_inside():
    other = HOST.copy()
    other[0, 0] = np.nan
    found = difference(other)
    assert (found.largest, found.relative, found.differing) == (None, None, 1)
    assert not within([found], "onnxruntime", "int8")
    both = difference(other, host=other)
    assert both.differing == 0


def test_an_output_that_is_zero_everywhere_has_no_range():
    zeros = np.zeros((2, 1))
    assert difference(zeros, host=zeros).relative == 0
    found = difference(zeros + 1, host=zeros)
    assert found.relative is None
    assert found.changed_predictions is None
    assert not within([found], "onnxruntime", "int8")


def test_the_magnitude_counts_where_all_values_are_near_each_other():
    found = difference(np.full((2, 1), 101.0), "fp32", host=np.full((2, 1), 100.0))
    assert found.relative == pytest.approx(0.01)


def test_integers_and_several_outputs_are_compared_each_by_its_own_range():
    host = {"a": np.array([[0, 10]]), "b": np.array([[0.0, 1.0]])}
    other = {"a": np.array([[0, 9]]), "b": np.array([[0.0, 1.0]])}
    a, b = compare_outputs(host, other, "int8")
    assert (a.relative, b.relative) == (0.1, 0)


def test_outputs_of_another_form_are_an_error():
    with pytest.raises(DeviceError, match="not of the host's form"):
        compare_outputs({"y": HOST}, {"y": HOST[:1]}, "int8")
    with pytest.raises(DeviceError, match="not of the host's form"):
        compare_outputs({"y": HOST}, {"z": HOST}, "int8")


def test_what_is_normal_is_said_in_words():
    assert expected_words("onnxruntime", "int8") == "at most 1 step of 1/255 of each output's range"
    assert expected_words("openvino", "int8") == "at most 2 steps of 1/255 of each output's range"
    assert expected_words("onnxruntime", "fp32") == "at most 1e-06 of each output's range"
