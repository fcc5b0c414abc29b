"""A Core ML package held against the graph that it was made from: grids, integers, inputs and outputs, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.backends.coreml_names import PORT_TYPES
from edgeopt.backends.coreml_program import Operation, Program, read_package
from edgeopt.backends.graphs import WEIGHTED_OPS
from edgeopt.backends.torch_program.build import TorchProgram
from edgeopt.backends.torch_program.graph import Plan
from edgeopt.core.errors import BackendError

__all__ = ["PRODUCTS", "Proof", "hold_against"]

PRODUCTS: Mapping[str, tuple[str, str]] = {
    "conv": ("x", "weight"),
    "conv_transpose": ("x", "weight"),
    "linear": ("x", "weight"),
    "matmul": ("x", "y"),
}
"""MIL's products → the names of their data and their weight."""
_MOVES = frozenset({"reshape", "transpose", "expand_dims", "squeeze", "pad", "max_pool", "slice_by_index", "cast"})
_Grid = tuple[bytes, bytes]
"""Scales as float32, and zero points counted from the lowest integer, as int64: both as bytes.

uint8 with zero point 128 and int8 with 0 are the same points; coremltools writes the second for the first.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the package was found to hold.

    Attributes:
        quantized: Quantized products of the graph; ``in_int8``: of those, how many have int8 data and an int8 weight.
        grids: Different grids of activations; ``weights``: int8 weights; ``weight_bytes``: their size.
    """

    quantized: int
    in_int8: int
    grids: int
    weights: int
    weight_bytes: int

    def sentence(self, minimum: str) -> str:
        """For the report."""
        if not self.quantized:
            return f"The package, for {minimum} and newer, was read back: its inputs and outputs are the graph's."
        return (
            f"{self.in_int8} of {self.quantized} quantized convolutions and matrix products have int8 data and int8 weights "
            f"in the package (for {minimum} and newer), and its {self.grids} grids and {self.weights} integer weights "
            f"({self.weight_bytes:,} bytes) are the graph's own; whether a device computes them in int8 is Core ML's choice "
            "there."
        )


def hold_against(package: Path, program: TorchProgram, features: Mapping[str, str]) -> Proof:
    """Read the package back and compare.

    Raises:
        BackendError: An input, output, grid or integer weight of the graph is not there as it was.
    """
    made, plan = read_package(package), program.plan
    for specs, ports in ((plan.inputs, made.inputs), (program.outputs, made.outputs)):
        wanted = {features[s.name]: (PORT_TYPES.get(s.dtype, s.dtype), tuple(s.shape)) for s in specs}
        if wanted != dict(ports):
            raise BackendError("The Core ML package has other inputs or outputs than the graph.", got=ports)
    grids, there = set(_graph_grids(plan)), set(_package_grids(made))
    if grids != there:
        raise BackendError(
            "coremltools changed the quantization of the graph.",
            got=f"{len(grids - there)} of {len(grids)} grids are missing from the package, {len(there - grids)} are new",
        )
    weights = list(_graph_weights(plan))
    stored = {_weight_key(values, scale, zero) for values, scale, zero in _package_weights(made)}
    lost = [name for name, values, scale, zero in weights if not _keys(values, scale, zero) & stored]
    if lost:
        raise BackendError("coremltools changed integer weights of the graph.", got=", ".join(lost[:5]))
    return Proof(
        quantized=len(plan.graph.quantized),
        in_int8=sum(_is_int8(operation, made) for operation in made.operations if operation.op in PRODUCTS),
        grids=len(grids),
        weights=len(weights),
        weight_bytes=sum(values.nbytes for _, values, _, _ in weights),
    )


def _graph_grids(plan: Plan) -> Iterator[_Grid]:
    for node in plan.nodes:
        if node.op == "QuantizeLinear" and node.inputs[0] not in plan.constants:
            zero = plan.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(1, np.uint8)
            yield _grid(plan.constants[node.inputs[1]], zero, zero.dtype.name)


def _package_grids(made: Program) -> Iterator[_Grid]:
    """Of ``quantize`` and of ``dequantize``, which must not differ."""
    kinds = {operation.output: operation.dtype for operation in made.operations}
    for operation in made.operations:
        if operation.op in ("quantize", "dequantize"):
            kind = operation.dtype if operation.op == "quantize" else kinds.get(operation.inputs["input"], "")
            zero = made.constant(operation, "zero_point")
            yield _grid(made.constant(operation, "scale"), np.zeros(1, kind) if zero is None else zero, kind)


def _grid(scale: np.ndarray, zero: np.ndarray, kind: str) -> _Grid:
    zeros = np.broadcast_to(np.ravel(zero).astype(np.int64) - np.iinfo(kind).min, np.size(scale))
    return np.ravel(scale).astype(np.float32).tobytes(), zeros.tobytes()


def _graph_weights(plan: Plan) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, integers, scales and zero points of the products' 8-bit weights."""
    makers = {name: node for node in plan.nodes for name in node.outputs}
    seen = set()
    for node in plan.nodes:
        maker = makers.get(node.inputs[1]) if node.op in WEIGHTED_OPS else None
        while maker is not None and maker.op in ("Transpose", "Reshape"):
            maker = makers.get(maker.inputs[0])
        if maker is None or maker.op != "DequantizeLinear" or maker.inputs[0] not in plan.constants:
            continue
        values, scale = plan.constants[maker.inputs[0]], plan.constants[maker.inputs[1]]
        if values.dtype.name in ("int8", "uint8") and not maker.attributes.get("block_size") and maker.name not in seen:
            seen.add(maker.name)
            zero = plan.constants[maker.inputs[2]] if len(maker.inputs) > 2 else np.zeros(1, values.dtype)
            yield maker.inputs[0], values, scale, zero


def _package_weights(made: Program) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for operation in made.operations:
        if operation.op in ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"):
            older = operation.op == "constexpr_affine_dequantize"
            values = made.constant(operation, "quantized_data" if older else "data")
            zero = made.constant(operation, "zero_point" if older else "offset")
            yield values, made.constant(operation, "scale"), np.zeros(1, values.dtype) if zero is None else zero


def _weight_key(values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> tuple[bytes, _Grid]:
    return np.ascontiguousarray(values).tobytes(), _grid(scale, zero, values.dtype.name)


def _keys(values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> set[tuple[bytes, _Grid]]:
    """As it is stored, and turned: ONNX's products take [in, out], Core ML's [out, in]."""
    return {_weight_key(turned, scale, zero) for turned in (values, values.swapaxes(0, -1))}


def _is_int8(operation: Operation, made: Program) -> bool:
    """Whether both sides of a product come from integers of 8 bits, moved about at most."""
    makers = {each.output: each for each in made.operations}
    for side, parameter in enumerate(PRODUCTS[operation.op]):
        name = operation.inputs.get(parameter)
        maker, moved = makers.get(name) if isinstance(name, str) else None, False
        for _ in range(len(made.operations)):
            if maker is None or maker.op not in _MOVES:
                break
            source = maker.inputs.get("x")
            maker = makers.get(source) if isinstance(source, str) else None
            moved = True
        # Two activations count as the graph counts them: where a dequantize stands right in front.
        if side and moved and maker is not None and maker.op == "dequantize":
            return False
        if maker is None or maker.op.removeprefix("constexpr_") not in (
            "dequantize",
            "affine_dequantize",
            "blockwise_shift_scale",
        ):
            return False
    return True
