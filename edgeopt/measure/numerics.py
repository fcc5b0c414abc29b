"""How far an engine's outputs on another instruction set are from this machine's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeopt.bundle.numerics import OutputDifference
from edgeopt.core.errors import DeviceError

__all__ = ["compare_outputs", "expected_words", "within"]

_LEVELS = 255
# An int8 step that rounds the other way inside the net moves the outputs by up to one of their own. OpenVINO's x86 and
# Arm kernels requantize differently: 1.3 steps on a small CNN whose predictions and accuracy were equal.
_STEPS = {"openvino": 2.0}
# Float kernels of another CPU add in another order, with and without fused multiply-add: some units of float32's last
# place (6e-8) per sum. Weights alone in few bits are multiplied in float.
_RELATIVE = {"fp32": 1e-6, "w8": 1e-6, "w4": 1e-6, "fp16": 5e-3, "bf16": 4e-2}


def compare_outputs(
    host: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], precision: str
) -> tuple[OutputDifference, ...]:
    """Compare outputs by name, in float64.

    Args:
        host: One array [N, …] per output.
        other: The same outputs from the other device.
        precision: The engine's; of integer ones differences are also given in steps of an 8-bit output.

    Raises:
        DeviceError: The outputs have other names or shapes.
    """
    shapes = {name: array.shape for name, array in host.items()}
    others = {name: array.shape for name, array in other.items()}
    if shapes != others:
        raise DeviceError("The device's outputs are not of the host's form.", got=f"{others}, and the host's {shapes}")
    return tuple(_difference(name, host[name], other[name], precision) for name in host)


def within(differences: Sequence[OutputDifference], runtime: str, precision: str) -> bool:
    """Whether every output is as near as ``expected_words`` says."""
    limit = _RELATIVE.get(precision, _STEPS.get(runtime, 1.0) / _LEVELS)
    return all(row.relative is not None and row.relative <= limit for row in differences)


def expected_words(runtime: str, precision: str) -> str:
    """What is normal between two correct CPUs."""
    if precision in _RELATIVE:
        return f"at most {_RELATIVE[precision]:g} of each output's range"
    steps = _STEPS.get(runtime, 1.0)
    return f"at most {steps:g} {'step' if steps == 1 else 'steps'} of 1/{_LEVELS} of each output's range"


def _difference(name: str, host: np.ndarray, other: np.ndarray, precision: str) -> OutputDifference:
    a, b = host.astype(np.float64), other.astype(np.float64)
    apart = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    apart[same] = 0.0  # equal infinities are equal
    largest = float(apart.max(initial=0.0))
    extent = max(float(np.ptp(a)), float(np.abs(a).max())) if a.size else 0.0
    told = bool(np.isfinite(largest)) and bool(np.isfinite(extent))
    relative = None
    if told:
        relative = largest / extent if extent else (0.0 if largest == 0.0 else None)
    ranked = a.ndim == 2 and a.shape[1] > 1
    return OutputDifference(
        name=name,
        values=a.size,
        differing=int((~same).sum()),
        largest=largest if np.isfinite(largest) else None,
        relative=relative,
        steps=None if relative is None or precision in _RELATIVE else relative * _LEVELS,
        changed_predictions=int((a.argmax(1) != b.argmax(1)).sum()) if ranked else None,
    )
