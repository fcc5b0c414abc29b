"""Whether this machine can run the browser tests, and small engines for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.devices.browser.chromium import find_chromium
from edgeopt.devices.browser.runtime import find_runtime

__all__ = ["convolution", "demand_browser", "engine_of"]


def demand_browser() -> None:
    """Skip, with what is missing, where there is no browser to test with."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'edgeopt[browser]'")
    try:
        find_chromium()
        find_runtime()
    except DeviceError as error:
        pytest.skip(str(error))


def engine_of(path: Path, **changes: object) -> Engine:
    """The engine whose folder holds that file alone."""
    fields = {
        "runtime": "onnxruntime",
        "runtime_version": "0",
        "directory": path.parent,
        "entry": path.name,
        "status": "built",
        "inputs": (),
        "outputs": (),
    }
    return Engine(**{**fields, **changes})


def convolution(path: Path, *, int8: bool, batch: int | str = "n") -> Path:
    """Two convolutions of 3 to 16 to 8 channels over 16 × 16; in int8 as the ort-x86 dialect writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    nodes, constants, value = [], {}, "x"
    if int8:
        constants |= {"s": np.float32(6 / 255), "z": np.uint8(128)}
        nodes.append(helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q0"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q0", "s", "z"], ["x0"]))
        value = "x0"
    for index, (inputs, outputs) in enumerate([(3, 16), (16, 8)]):
        weight = rng.normal(0, 0.1, (outputs, inputs, 3, 3)).astype(np.float32)
        name = f"w{index}"
        if int8:
            scale = (np.abs(weight).max((1, 2, 3)) / 127).astype(np.float32)
            constants[f"{name}q"] = np.clip(np.rint(weight / scale[:, None, None, None]), -127, 127).astype(np.int8)
            constants |= {f"{name}s": scale, f"{name}z": np.zeros(outputs, np.int8)}
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", f"{name}s", f"{name}z"], [name], axis=0))
        else:
            constants[name] = weight
        nodes.append(helper.make_node("Conv", [value, name], [f"c{index}"], pads=[1, 1, 1, 1]))
        value = f"c{index}"
        if int8:
            nodes.append(helper.make_node("QuantizeLinear", [value, "s", "z"], [f"cq{index}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"cq{index}", "s", "z"], [f"cd{index}"]))
            value = f"cd{index}"
    nodes.append(helper.make_node("Identity", [value], ["y"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, 16, 16])
        for name, channels in (("x", 3), ("y", 8))
    ]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "convolutions", ports[:1], ports[1:], initializers)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path
