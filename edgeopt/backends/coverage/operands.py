"""Why a multiplication was never planned in int8: what its operands are."""

from __future__ import annotations

from edgeopt.backends.coverage.nodes import Multiplication

__all__ = ["operand_cause"]

_QUANTIZE = "Quantize it (steps.quantize), or take it out of the recipe's skip."


def operand_cause(one: Multiplication) -> tuple[str, str] | None:
    """Which operand is float, and what would change that; None where the graph asks for int8."""
    if one.planned:
        return None
    if one.op in ("GRU", "LSTM", "RNN"):
        return f"No runtime's int8 {one.op} keeps the accuracy, so it is left in float.", ""
    if one.packed:
        return "Only its weight is stored in integers: it multiplies in float, as the graph says.", "Use int8 or w4a8."
    if one.data is not None:
        return "Its weight is float." if one.weight_is_constant else "Its second operand is float.", _QUANTIZE
    if one.weight is not None:
        return "Its input is float.", _QUANTIZE
    return ("Input and weight are float." if one.weight_is_constant else "Both operands are float."), _QUANTIZE
