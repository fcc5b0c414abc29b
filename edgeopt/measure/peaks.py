"""What a machine can do at most: its fastest matrix products, and how fast it moves data."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.bundle.roofline import MachinePeaks
from edgeopt.core.device import Host
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.core.spec import TensorSpec
from edgeopt.measure.processes import SampleFiles, start
from edgeopt.recipes.schema import Measure

__all__ = ["SIDES", "measure_peaks"]

SIDES = (512, 1024)
"""Of the square matrices: large enough to reach the peak, and the smaller short enough to run undisturbed now and then."""
_COPIED = 2**24  # floats, 64 MiB: beyond the caches of all but servers
_BLOCK = 20


def measure_peaks(device: Host, *, config: Measure) -> MachinePeaks:
    """Time products of two square matrices in uint8·int8 and float32, and a copy of 64 MiB.

    The fastest of 20 inferences, and the faster of two sizes, counts: a peak is what the machine can do, and whatever else
    it did meanwhile takes away from it. A kernel for another shape may reach more, so a layer above the roof is possible
    and shown as it is.

    Args:
        config: Its ``threads`` are those of the engine that is compared.
    """
    moved, line = 2 * 4 * _COPIED / 1e9, np.ones((1, _COPIED), np.float32)
    what = f"{4 * _COPIED // 2**20} MiB read and as many written"
    copied = _rate(device, "peak_bandwidth_gb_s", "GB/s", what, amount=moved, model=_copy(), sample=line, config=config)
    return MachinePeaks(
        int8=_product(device, "peak_int8_gops", np.dtype("uint8"), config),
        float32=_product(device, "peak_float32_gops", np.dtype("float32"), config),
        bandwidth=copied,
    )


def _product(device: Host, name: str, dtype: np.dtype[Any], config: Measure) -> Measurement:
    """The best over the sizes; the first that could not be measured where none could."""
    found = []
    for side in SIDES:
        sample = np.random.default_rng(0).integers(0, 255, (side, side)).astype(dtype)
        model = _int8_product(side) if dtype == np.uint8 else _float_product(side)
        what = f"{'uint8·int8' if dtype == np.uint8 else 'float32'} product, {side}³ multiply-accumulates"
        amount = 2 * side**3 / 1e9
        found.append(_rate(device, name, "GOPS", what, amount=amount, model=model, sample=sample, config=config))
    return max(found, key=lambda one: one.value or 0.0)


def _rate(
    device: Host, name: str, unit: str, what: str, *, amount: float, model: Any, sample: np.ndarray, config: Measure
) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="edgeopt-peak-") as directory, ExitStack() as stack:
        folder = Path(directory)
        (folder / "engine").mkdir()
        onnx.save(model, folder / "engine" / "model.onnx")
        spec = TensorSpec(name="x", dtype=sample.dtype.name, shape=sample.shape)
        engine = Engine(
            runtime="onnxruntime",
            runtime_version="",
            directory=folder / "engine",
            entry="model.onnx",
            status="built",
            inputs=(spec,),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("any", "any")),),
        )
        try:
            files = SampleFiles(folder, {"x": sample})
            one = start(stack, device, engine, files, config=config, batch=len(sample), warm=False)
            one.session.request("warm", n=3)
            taken = one.session.request("time", n=_BLOCK)["latency_ns"]
        except DeviceError as error:
            return not_measured(name, unit, str(error))
    return Measurement(
        name=name,
        value=amount / (min(taken) / 1e9),
        unit=unit,
        n=len(taken),
        device=device.name,
        conditions={**one.conditions, "what": what, "how": f"the fastest of {len(taken)}"},
    )


def _model(nodes: list[Any], kind: int, shape: list[int], out: tuple[int, list[int]], constants: dict[str, Any]) -> Any:
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", *out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _int8_product(size: int) -> Any:
    weight = np.random.default_rng(1).integers(-63, 64, (size, size), dtype=np.int8)
    constants = {"w": weight, "s": np.float32(0.01), "xz": np.uint8(0), "wz": np.int8(0)}
    node = helper.make_node("QLinearMatMul", ["x", "s", "xz", "w", "s", "wz", "s", "xz"], ["y"])
    side = [size, size]
    return _model([node], TensorProto.UINT8, side, (TensorProto.UINT8, side), constants)


def _float_product(size: int) -> Any:
    weight = np.random.default_rng(1).normal(size=(size, size)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], TensorProto.FLOAT, [size, size], (TensorProto.FLOAT, [size, size]), {"w": weight})


def _copy() -> Any:
    """A vector made of another; one value of it is given back, so that the rest stays in the runtime's own memory."""
    constants = {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1])}
    nodes = [
        helper.make_node("Neg", ["x"], ["moved"]),
        helper.make_node("Slice", ["moved", "from", "to", "axis"], ["y"]),
    ]
    return _model(nodes, TensorProto.FLOAT, [1, _COPIED], (TensorProto.FLOAT, [1, 1]), constants)
