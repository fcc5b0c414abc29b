"""What calibration saw, tensor by tensor, read back from the graph that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import activation_points

__all__ = ["CalibratedTensor", "calibrated_tensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedTensor:
    """A quantized activation.

    Attributes:
        name: The tensor that is quantized, as the graph names it.
        low: Smallest value of its calibrated range, and ``high`` the largest, in the tensor's own unit.
        scale: Of its grid in the neutral graph, > 0.
    """

    name: str
    low: float
    high: float
    scale: float


def calibrated_tensors(path: Path) -> list[CalibratedTensor]:
    """Every activation of a neutral graph whose calibrated range is recorded, in the order of the graph."""
    return [
        CalibratedTensor(name=point.tensor.name or "", low=point.low, high=point.high, scale=float(point.scale))
        for point in activation_points(load_onnx(path).graph)
        if point.low is not None and point.high is not None
    ]
