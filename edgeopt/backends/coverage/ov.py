"""OpenVINO: the compiled model's runtime graph says which kernel runs each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeopt.backends.coverage.nodes import Multiplication, multiplications
from edgeopt.backends.coverage.operands import operand_cause
from edgeopt.backends.graphs import Graph
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp

__all__ = ["MULTIPLIERS", "known_node", "names_of_nodes", "openvino_coverage", "openvino_ops", "precision_of"]

MULTIPLIERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell"})
_FUSED = frozenset({"Subgraph", "MHA", "ScaledDotProductAttention"})
_PRECISIONS = {"i8": INT8, "u8": INT8, "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_UNKNOWN = "OpenVINO keeps it in float; none of edgeopt's rules says why."
_SCALED = "/Dequantization"  # behind a node whose operands OpenVINO left in integers
_SUFFIX = "_original"  # on a node whose output's name went to the model's result


def openvino_coverage(compiled: Any, graph: Graph, version: str) -> Coverage | None:
    """What OpenVINO runs each multiplication of ``graph`` in.

    Returns:
        None where nothing of the graph is quantized.
    """
    found = multiplications(graph)
    if not any(one.planned or one.packed for one in found):
        return None
    how = f"the runtime graph of OpenVINO {version} on this machine"
    return Coverage(ops=openvino_ops(list(_layers(compiled)), found), how=how)


def openvino_ops(layers: Sequence[Mapping[str, Any]], found: tuple[Multiplication, ...]) -> tuple[ExecutedOp, ...]:
    """What each multiplication runs in, by the layers of a compiled model: ``op``, ``kernel``, ``names``, ``precision``."""
    kernels = _kernels(layers, found)
    return tuple(_executed(one, kernels.get(one.node)) for one in found)


def precision_of(primitive: str, precision: str) -> str:
    """What a kernel multiplies in; empty where OpenVINO does not tell.

    The name of the kernel decides (``brgconv_avx512_amx_i8``): ``runtimePrecision`` is that of the data it reads. A
    convolution whose activations are int8 with zero point −128 is listed there as i8, runs ``brgconv_avx512_f32``, and
    took 3.9 times the time of the same one on uint8 (OpenVINO 2026.4.1, four convolutions of 64 channels, in turns).
    """
    told = _PRECISIONS.get(primitive.rsplit("_", 1)[-1].lower())
    return told or ("" if primitive.startswith(("brg", "jit", "gemm", "ref")) else _PRECISIONS.get(precision, ""))


def names_of_nodes(found: tuple[Multiplication, ...]) -> dict[str, str]:
    """What a kernel may be called → the node that multiplies there."""
    known = {name: one.node for one in found for name in one.names}
    for one in found:  # a kernel may have the name of the last thing that it was fused with
        for name in (*one.reached, *filter(None, one.followers)):
            known.setdefault(name, one.node)
    return known


def _kernels(layers: Sequence[Mapping[str, Any]], found: tuple[Multiplication, ...]) -> dict[str, str]:
    """ONNX node → precision of the kernel that multiplies for it."""
    known = names_of_nodes(found)
    made: dict[str, str] = {}
    # Products of attention are compiled into one kernel with what stands between them; small products too.
    for kinds, nodes in ((MULTIPLIERS, known), (_FUSED, _of_products(found, known))):
        for layer in layers:
            if layer["op"] in kinds:
                precision = precision_of(str(layer["kernel"]), str(layer.get("precision", "")))
                if kinds is _FUSED and any(_SCALED in str(name) for name in layer["names"]):
                    precision = ""  # what is scaled back behind it may be a product in int8: the kernel does not say
                for name in layer["names"]:
                    node = known_node(str(name), nodes)
                    if node is not None:
                        made.setdefault(node, precision)
    return made


def _layers(compiled: Any) -> Iterator[dict[str, Any]]:
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        yield {
            "op": _text(info, "layerType"),
            "kernel": _text(info, "primitiveType"),
            "precision": _text(info, "runtimePrecision"),
            "names": _text(info, "originalLayersNames").split(","),
        }


def _of_products(found: tuple[Multiplication, ...], known: dict[str, str]) -> dict[str, str]:
    """``known``, of matrix products only."""
    products = {one.node for one in found if one.op == "MatMul"}
    return {name: node for name, node in known.items() if node in products}


def known_node(name: str, known: dict[str, str]) -> str | None:
    """The node that a name belongs to: OpenVINO adds suffixes to what it splits, ``conv`` becomes ``conv/WithoutBiases``."""
    for candidate in _shortened(name):
        if candidate in known:
            return known[candidate]
        if candidate.endswith(_SUFFIX) and candidate.removesuffix(_SUFFIX) in known:
            return known[candidate.removesuffix(_SUFFIX)]
    return None


def _shortened(name: str) -> Iterator[str]:
    """The name, the longest form first: a node may be called as the scope of another."""
    pieces = name.split("/")
    for count in range(len(pieces), 0, -1):
        yield "/".join(pieces[:count])


def _executed(one: Multiplication, precision: str | None) -> ExecutedOp:
    if precision is None:
        cause = "OpenVINO folded it away or made another operator of it."
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="", cause=cause)
    if not precision:
        cause = "OpenVINO compiled it into one kernel with its neighbours, and does not say what that multiplies in."
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="", cause=cause)
    if precision == INT8:
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=INT8)
    cause, fix = _cause(one)
    return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=precision, cause=cause, fix=fix)


def _cause(one: Multiplication) -> tuple[str, str]:
    """Each rule was seen on OpenVINO 2026.4.1 (tests/backends/test_coverage_openvino.py), with and without its fix."""
    for rule in (operand_cause, _wide, _weight_grid, _signed_input):
        if told := rule(one):
            return told
    return _UNKNOWN, ""


def _wide(one: Multiplication) -> tuple[str, str] | None:
    for what, grid in (("input", one.data), ("weight", one.weight)):
        if grid is not None and not grid.has_8_bits:
            return (
                f"Its {what} is quantized to {grid.dtype}; int8 kernels read 8 bits.",
                f"Quantize the {what} to 8 bits.",
            )
    return None


def _weight_grid(one: Multiplication) -> tuple[str, str] | None:
    grid = one.weight
    if grid is None or not one.weight_is_constant or one.op not in ("Conv", "ConvTranspose"):
        return None
    if any(grid.zero_points):
        return "Its weight has a zero point other than 0.", "Quantize the weight symmetrically, as int8."
    outputs = 0 if one.op == "Conv" else 1
    if grid.axis is not None and grid.axis != outputs:
        return (
            f"The scales of its weight lie along axis {grid.axis}, not along the output channels ({outputs}).",
            f"Quantize the weight per output channel (axis {outputs}), or per tensor.",
        )
    return None


def _signed_input(one: Multiplication) -> tuple[str, str] | None:
    grid = one.data
    if grid is None or not any(grid.zero_points):
        return None
    if one.op == "ConvTranspose":
        return "The zero point of its input is not 0.", "Quantize the input of a ConvTranspose with zero point 0."
    if grid.dtype == "int8":
        return (
            f"Its input is int8 with zero point {', '.join(map(str, grid.zero_points))}.",
            "Write its input as uint8 (the dialect openvino does), or as int8 with zero point 0.",
        )
    return None


def _text(info: Any, key: str) -> str:
    value = info[key] if key in info else ""  # noqa: SIM401 (OpenVINO's map has no get)
    return str(getattr(value, "value", value))
