"""Engines of one batch: larger ones in parts, everything else refused."""

import numpy as np
import pytest

from edgeopt.agent.runners.contract import BatchError, RunnerError
from edgeopt.agent.runners.fixed_batch import FixedBatch


def port(name, *shape):
    return {"name": name, "dtype": "float32", "shape": list(shape)}


def make(*, rows=True, dynamic=("x",)):
    return FixedBatch(
        {
            "inputs": [port("x", 2, 3), port("table", 5)],
            "outputs": [port("y", 2)],
            "dynamic_batch": list(dynamic),
            "rows": rows,
        }
    )


def total(arrays):
    x, table = arrays
    assert x.shape == (2, 3)
    assert x.flags.c_contiguous
    return [x.sum(1) + table.sum()]


def test_a_larger_batch_is_run_in_parts_and_a_fixed_input_goes_to_each():
    batch, x = make(), np.arange(18, dtype=np.float32).reshape(6, 3)
    batch.resize(6)
    assert batch.inputs == {"x": ("float32", [6, 3]), "table": ("float32", [5])}
    assert batch.outputs == {"y": ("float32", [6])}
    got = batch.run({"x": np.asfortranarray(x), "table": np.ones(5, np.float32)}, total)
    np.testing.assert_array_equal(got["y"], x.sum(1) + 5)
    batch.resize(2)
    assert batch.run({"x": x[:2], "table": np.ones(5, np.float32)}, total)["y"].shape == (2,)


@pytest.mark.parametrize("size", [3, 0])
def test_a_batch_that_is_no_multiple_is_refused(size):
    with pytest.raises(BatchError, match="compiled for a batch of 2"):
        make().resize(size)


@pytest.mark.parametrize("change", [{"rows": False}, {"dynamic": ()}])
def test_a_batch_that_the_graph_fixed_stays(change):
    with pytest.raises(BatchError, match="fixed batch"):
        make(**change).resize(4)


def test_inputs_are_checked_before_anything_runs():
    with pytest.raises(RunnerError, match="'x' has shape"):
        make().run({"x": np.zeros((4, 3), np.float32), "table": np.ones(5, np.float32)}, total)
