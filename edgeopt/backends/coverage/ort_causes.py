"""Why ONNX Runtime left a multiplication in float that was planned in int8.

Its int8 kernels take the place of a pattern: DequantizeLinear, the operator, QuantizeLinear ("QDQ selectors" in ONNX
Runtime's sources, ``core/optimizer/qdq_transformer``). What breaks the pattern is found here; each rule was seen on
the runtime itself, and tests/backends/test_coverage_ort.py shows it there again, with and without its fix.
"""

from __future__ import annotations

import math

from edgeopt.backends.coverage.nodes import Multiplication
from edgeopt.backends.coverage.operands import operand_cause

__all__ = ["cause_of"]

_ABSORBED = ("Relu", "Clip")
_MOVED = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})
_UNKNOWN = "ONNX Runtime keeps it in float; none of edgeopt's rules says why."


def cause_of(one: Multiplication, level: str = "all") -> tuple[str, str]:
    """Why it runs in float, and what would bring it into int8 where that is known.

    Args:
        one: The node.
        level: The session's optimization level.
    """
    for rule in (operand_cause, _no_kernel, _wide):
        if told := rule(one):
            return told
    if level in ("disable", "basic"):
        return (
            f"The session's optimization level is {level!r}; int8 kernels come with 'extended'.",
            "Set the target's option graph_optimization_level to 'all'.",
        )
    for rule in (_scaled, _joined, _ends_in_float, _several_readers, _not_absorbed, _stands_behind):
        if told := rule(one):
            return told
    return _UNKNOWN, ""


def _no_kernel(one: Multiplication) -> tuple[str, str] | None:
    """ONNX Runtime's operator list (CPU provider) has QLinearConv, QLinearMatMul and QGemm, and no other such kernel."""
    if one.op == "ConvTranspose":
        return "ONNX Runtime's CPU provider has no int8 ConvTranspose.", "Resize and Conv instead have int8 kernels."
    return None


def _wide(one: Multiplication) -> tuple[str, str] | None:
    for what, grid in (("input", one.data), ("weight", one.weight)):
        if grid is not None and not grid.has_8_bits:
            return (
                f"Its {what} is quantized to {grid.dtype}; int8 kernels read 8 bits.",
                f"Quantize the {what} to 8 bits.",
            )
    grid = one.behind.grid
    if grid is not None and not grid.has_8_bits:
        return f"Its output is quantized to {grid.dtype}; int8 kernels write 8 bits.", "Quantize the output to 8 bits."
    return None


def _scaled(one: Multiplication) -> tuple[str, str] | None:
    """The bias of an int8 Gemm lies on the grid of the sums that it is added to: nothing may be scaled."""
    alpha, beta = one.attributes.get("alpha", 1.0), one.attributes.get("beta", 1.0)
    if one.op == "Gemm" and one.bias != "none" and (alpha != 1 or beta != 1):
        told = f"It has a bias, and alpha {alpha:g} and beta {beta:g}; the int8 kernel scales neither."
        return told, "Put them into weight and bias."
    return None


def _joined(one: Multiplication) -> tuple[str, str] | None:
    """MatMul and Add become a Gemm before int8 is looked at, and its bias is float."""
    if one.op != "MatMul" or one.behind.between[:1] != ("Add",):
        return None
    if one.behind.end == "quantize" and one.behind.between == ("Add",):
        return None
    return (
        "ONNX Runtime joins it with the Add behind it to a Gemm with a float bias, and no QuantizeLinear follows.",
        "Quantize what the Add gives, or write a Gemm whose bias is int32.",
    )


def _stands_behind(one: Multiplication) -> tuple[str, str] | None:
    """A product may give float, but ONNX Runtime looks for a grid behind Relu and Clip, and takes nothing where none is."""
    first = one.behind.between[:1]
    if one.op not in ("MatMul", "Gemm") or not first or first[0] not in _ABSORBED or one.behind.end == "quantize":
        return None
    return (
        f"{first[0]} follows it and no QuantizeLinear follows that.",
        f"Quantize what {first[0]} gives, on a grid from zero on.",
    )


def _ends_in_float(one: Multiplication) -> tuple[str, str] | None:
    """A product may give float; a convolution may not, nor a Gemm with a float bias."""
    if one.op == "Gemm" and one.bias == "float" and one.behind.end != "quantize":
        return (
            "Its bias is float and no QuantizeLinear follows it.",
            "Quantize the bias to int32, by the scale of the input times that of the weight.",
        )
    if one.op != "Conv" or one.behind.end not in ("output", "none") or one.behind.readers:
        return None
    between = [op for op in one.behind.between if op not in _MOVED]
    after = f"; {_and(between)} and the output follow" if between else "; it is an output of the graph"
    return f"No QuantizeLinear follows it, and an int8 convolution gives int8{after}.", "Quantize its output."


def _several_readers(one: Multiplication) -> tuple[str, str] | None:
    if one.op not in ("Conv", "Gemm") or not one.behind.readers:
        return None
    readers = list(dict.fromkeys(one.behind.readers))
    if one.behind.end == "output":
        readers.append("the graph's output")
    if readers == ["QuantizeLinear"]:
        return "Two QuantizeLinear read its output.", "Let its readers share one QuantizeLinear."
    return f"{_and(readers)} read its output in float.", "Quantize its output, and let every reader read that."


def _not_absorbed(one: Multiplication) -> tuple[str, str] | None:
    """Relu and Clip are the QuantizeLinear's own rounding to its range where its grid ends where they do."""
    behind = one.behind
    between = [op for op in behind.between if op not in _MOVED]
    if behind.end != "quantize" or not between:
        return None
    first = next((op for op in between if op not in _ABSORBED), None)
    if first is not None:
        return (
            f"{first} stands between it and its QuantizeLinear, and an int8 kernel absorbs only Relu and Clip.",
            f"Quantize what it gives before {first}.",
        )
    if behind.grid is None or not behind.grid.starts_at_zero:
        place = (
            ""
            if behind.grid is None
            else f" ({behind.grid.dtype}, zero point {', '.join(map(str, behind.grid.zero_points))})"
        )
        return (
            f"{_and(between)} stands between it and a grid that goes below zero{place}.",
            "Write the grid from zero on: zero point 0 of uint8, -128 of int8 (the dialects ort-x86 and ort-arm do).",
        )
    high = behind.clip[1] if behind.clip else math.inf
    top = behind.grid.highest
    if top is not None and top > high and not math.isclose(top, high, rel_tol=1e-6):
        return (
            f"Clip cuts at {high:g}, inside the grid behind it, which reaches {top:g}.",
            f"Let the grid end at {high:g} (the dialects ort-x86 and ort-arm do).",
        )
    return None


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
