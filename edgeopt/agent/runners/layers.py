"""How long each layer takes, as the runtimes' own profilers tell it."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["openvino_layers", "ort_layers"]

_KERNEL_TIME = "_kernel_time"
_SIZES = ("activation_size", "output_size")  # "parameter_size" leaves out what the kernel has packed: most weights


def ort_layers(
    open_session: Callable[[Path], Any], inputs: Mapping[str, np.ndarray], n: int, warmup: int
) -> list[dict[str, Any]]:
    """Run ``n`` times under ONNX Runtime's profiler.

    Args:
        open_session: Opens the engine with profiling on, its file's name starting with the given path.
        inputs: What to run on.
        warmup: Runs before that do not count.

    Returns:
        One row per kernel in order: ``names`` (the node's), ``op``, ``kernel``, ``us`` (median), ``bytes`` read and
        written, and ``weights``: whether these are among the bytes.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-profile-") as folder:
        session = open_session(Path(folder) / "profile")
        for _ in range(warmup + n):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for event in events:
        name, told = str(event.get("name", "")), event.get("args", {})
        if name.endswith(_KERNEL_TIME) and "op_name" in told:
            key = (name[: -len(_KERNEL_TIME)], str(told["op_name"]))
            times.setdefault(key, []).append(float(event["dur"]))
            sizes[key] = sum(int(told.get(size) or 0) for size in _SIZES)
    return [
        {
            "names": [name],
            "op": op,
            "kernel": op,
            "us": statistics.median(taken[-n:] if len(taken) >= n else taken),
            "bytes": sizes[name, op],
            "weights": False,
        }
        for (name, op), taken in times.items()
    ]


def openvino_layers(compiled: Any, inputs: Mapping[int, Any], n: int, warmup: int) -> list[dict[str, Any]]:
    """Run ``n`` times a model that was compiled with ``PERF_COUNT``; rows as of ``ort_layers``.

    ``inputs``: tensors by the index of the input.
    """
    request = compiled.create_infer_request()
    for index, tensor in inputs.items():
        request.set_input_tensor(index, tensor)
    times: dict[str, list[float]] = {}
    for run in range(warmup + n):
        request.infer()
        if run >= warmup:
            for told in request.profiling_info:
                if str(told.status).endswith("EXECUTED"):
                    times.setdefault(told.node_name, []).append(told.real_time.total_seconds() * 1e6)
    rows = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        taken = times.get(op.get_friendly_name())
        if taken:
            info = op.get_rt_info()
            rows.append(
                {
                    "names": _text(info, "originalLayersNames").split(","),
                    "op": _text(info, "layerType"),
                    "kernel": _text(info, "primitiveType"),
                    "us": statistics.median(taken),
                    "bytes": _bytes(op),
                    "weights": True,
                }
            )
    return rows


def _bytes(op: Any) -> int:
    """Of everything that it reads and writes, each in the precision that its maker gives it in."""
    read = sum(_size(port.get_source_output()) for port in op.inputs())
    return int(read + sum(_size(port) for port in op.outputs()))


def _size(port: Any) -> int:
    kinds = _text(port.get_node().get_rt_info(), "outputPrecisions").split(",")
    kind = kinds[min(port.get_index(), len(kinds) - 1)]
    bits = int("".join(c for c in kind if c.isdigit()) or 32)
    shape = port.get_partial_shape()
    return int(np.prod([dim.get_length() for dim in shape])) * bits // 8 if shape.is_static else 0


def _text(info: Any, key: str) -> str:
    value = info[key] if key in info else ""  # noqa: SIM401 (OpenVINO's map has no get)
    return str(getattr(value, "value", value))
