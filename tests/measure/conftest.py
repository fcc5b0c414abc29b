from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.core.engine import Engine
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Split
from edgeopt.devices.local import LocalDevice

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture
def device():
    return LocalDevice(
        runners={
            "tiny-ort": "ort_runner:open_runner",
            "fragile": "fragile_runners:open_fragile",
            "no-load": "fragile_runners:open_never",
            "slow-start": "fragile_runners:open_slowly",
            "warming": "fragile_runners:open_warming",
            "restless": "fragile_runners:open_restless",
            "throttling": "fragile_runners:open_throttling",
            "steady": "fragile_runners:open_steady",
            "half-again": "fragile_runners:open_half_again",
        },
        search_path=[HERE],
        timeout_s=60,
    )


def make_linear(directory: Path, weights: np.ndarray, batch: int | str = "n") -> Engine:
    """y = x @ weights, as an ONNX file."""
    features, classes = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y/1"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [helper.make_tensor_value_info("y/1", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")
    return Engine(
        runtime="tiny-ort",
        runtime_version="1",
        directory=directory,
        entry="model.onnx",
        status="built",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(batch, features)),),
        outputs=(TensorSpec(name="y/1", dtype="float32", shape=(batch, classes)),),
    )


@pytest.fixture
def linear(tmp_path):
    """Makes engines: ``linear(name, weights, batch)``."""
    return lambda name, weights, batch="n": make_linear(tmp_path / name, weights, batch)


@pytest.fixture
def engine_of(tmp_path):
    """Makes engines of a runner by its name; their entry describes one input and one output."""

    def make(runtime, batch="n"):
        directory = tmp_path / f"{runtime}-{batch}"
        directory.mkdir(exist_ok=True)
        ports = {"inputs": {"x": ["float32", [batch, 4]]}, "outputs": {"y": ["float32", [batch, 3]]}}
        (directory / "entry").write_text(json.dumps(ports))
        return Engine(
            runtime=runtime,
            runtime_version="0",
            directory=directory,
            entry="entry",
            status="built",
            inputs=(),
            outputs=(),
        )

    return make


class Memory:
    """A source that lies in memory and notes how much of it was read at once."""

    def __init__(self, inputs, labels=None):
        self.inputs, self.labels, self.largest = inputs, labels, 0

    def __len__(self):
        return len(self.inputs[0])

    def read(self, indices):
        self.largest = max(self.largest, len(indices))
        labels = None if self.labels is None else self.labels[indices]
        return Batch(inputs=tuple(array[indices] for array in self.inputs), targets=labels)


@pytest.fixture
def make_split():
    def make(*inputs, labels=None, indices=None):
        source = Memory(inputs, labels)
        indices = np.arange(len(source)) if indices is None else np.asarray(indices)
        return Split(name="test", source=source, indices=indices, how="given", fingerprint="0")

    return make
