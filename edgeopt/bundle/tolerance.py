"""How far a bundle's engine may be from its reference outputs on another machine."""

from __future__ import annotations

__all__ = ["TOLERANCES"]

# How far the engine may be from what it gave where it was compiled, as a share of each output's range. Float kernels of
# another CPU add in another order. An int8 step that rounds the other way inside the net moves the outputs by steps of
# their own size: 4 steps of 1/255 of the range. A wrong kernel is much further off (saturating int8 pair sums: 11 %).
TOLERANCES: dict[str, tuple[float, str]] = {
    "fp32": (1e-4, "1e-4 of each output's range"),
    "fp16": (5e-3, "5e-3 of each output's range"),
    "bf16": (4e-2, "4e-2 of each output's range"),
    "int8": (4 / 255, "4 int8 steps (4/255 of each output's range)"),
    "int8-fp16": (4 / 255, "4 int8 steps (4/255 of each output's range)"),
    "w4a8": (4 / 255, "4 int8 steps (4/255 of each output's range)"),
    "w8": (1e-4, "1e-4 of each output's range"),
    "w4": (1e-4, "1e-4 of each output's range"),
}
