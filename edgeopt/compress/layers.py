"""Which layers a graph has, what they are called, and which of them the target runs in int8."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute, constant_nodes
from edgeopt.compress.layer_names import check_patterns, name_all
from edgeopt.compress.macs import multiplications
from edgeopt.compress.normalize import BATCH_NORMS, CONV_TRANSPOSES, CONVS
from edgeopt.compress.outputs import MAX_POOLS, POOLS, absorbed, is_quantized_later, is_spatial_pool
from edgeopt.recipes.schema import LayerPrecision, Quantize, weight_only
from edgeopt.targets.schema import QuantizationRules

__all__ = ["Layer", "find_layers", "named_layers"]

A = torch.ops.aten
_OPS: dict[Any, str] = {
    **dict.fromkeys(CONVS, "conv"),
    **dict.fromkeys(CONV_TRANSPOSES, "conv_transpose"),
    A.linear.default: "linear",
    **dict.fromkeys((A.matmul.default, A.bmm.default, A.mm.default), "matmul"),
    **dict.fromkeys((A.add.Tensor, A.add_.Tensor), "add"),
    **dict.fromkeys((*POOLS, *MAX_POOLS), "pool"),
    A.cat.default: "concat",
}
_ONE_GRID = (*MAX_POOLS, A.cat.default)  # they select values: what comes out lies on the grid of what goes in
# OpenVINO alone has int8 kernels for recurrent cells, of LSTMs: input and state on one grid, 17 dB of SQNR for a cell of 64
# with random weights (2026.4.1; 0.57 of float32's time, where bfloat16 keeps 46 dB in 0.74 for a GRU).
_FLOAT_OPS: dict[Any, tuple[str, str]] = {
    **dict.fromkeys(
        (A.gru.input, A.gru.data, A.lstm.input, A.lstm.data, A.rnn_tanh.input, A.rnn_relu.input),
        ("recurrent", "no runtime's int8 recurrent cells keep the accuracy"),
    ),
    **dict.fromkeys((A.conv3d.default, A.conv3d.padding), ("conv", "3-D convolutions are not quantized")),
    A.convolution.default: ("conv", "3-D convolutions are not quantized"),
    A.conv_transpose3d.input: ("conv_transpose", "3-D convolutions are not quantized"),
    A.scaled_dot_product_attention.default: ("attention", "masked or causal attention is one op here"),
    A.embedding.default: ("embedding", "a lookup, not arithmetic"),
    **dict.fromkeys(
        (A.addmm.default, A.baddbmm.default, A.einsum.default, A.bilinear.default),
        ("matmul", "this form of matrix product is not quantized"),
    ),
}
_WEIGHTED = ("conv", "conv_transpose", "linear")
_SMALL_SHARE = 0.01  # of a model's multiplications: a net of small layers alone has nothing else to quantize
_WEIGHT_BITS: dict[LayerPrecision, int] = {"w7a8": 7, "w4a8": 4, "w8": 8, "w4": 4}  # whatever the target
_THROUGH = (A.relu.default, A.relu_.default, A.hardtanh.default, A.hardtanh_.default, *BATCH_NORMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One op that int8 could apply to.

    Attributes:
        name: As the user knows it; unique.
        op: As ``LayerDecision.op``.
        node: Its fx node's name.
        activations: Positions among the node's arguments that are quantized as activations; empty where it is float,
            and where only its weight is quantized.
        reason: Why it is quantized, or why not.
        precision: What it computes in.
        weight_bits: Of its weight, where it has one and is quantized.
        quantize_output: Whether what ``absorbed`` gives for the node is quantized too, as no reader does it.
        one_grid: Whether all inputs and the output are put on one grid, so that no runtime needs to compute anything.
    """

    name: str
    op: str
    node: str
    activations: tuple[int, ...]
    reason: str
    precision: LayerPrecision
    weight_bits: int
    quantize_output: bool = False
    one_grid: bool = False

    def sources(self, node: Node) -> tuple[Node, ...]:
        """What is quantized in front of the layer's node; concatenation takes its inputs as a list."""
        arguments = node.args[0] if self.op == "concat" else [node.args[i] for i in self.activations]
        return tuple(arguments) if self.activations else ()  # type: ignore[arg-type]

    @property
    def quantized(self) -> bool:
        """Whether any of it is stored or computed as integers."""
        return self.precision != "float"

    @property
    def weighted(self) -> bool:
        """Whether argument 1 is a weight."""
        return self.op in _WEIGHTED


def find_layers(model: GraphModule, rules: QuantizationRules, config: Quantize) -> tuple[Layer, ...]:
    """Judge every conv, linear, matmul, add and recurrent op of a normalized graph, in its order.

    Args:
        model: As ``normalize`` returns it.
        rules: What the target quantizes.
        config: ``skip`` and ``assign`` name the layers that the recipe decides on.

    Raises:
        RecipeError: A pattern matches no layer; the nearest names are listed.
    """
    constants = constant_nodes(model.graph)
    found: list[tuple[Node, str, str]] = []  # node, op, why float (empty: could be int8)
    for node in model.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in _FLOAT_OPS:
            kind, why = _FLOAT_OPS[node.target]
            split = kind != "attention" or "matmul" in rules.quantized_ops
            found.append((node, kind, why if split else "the target does not quantize matmul"))
        elif (op := _OPS.get(node.target)) is not None and not _is_no_layer(node, op, rules, constants):
            found.append((node, op, _why_float(model, node, op, rules, constants)))
    names = name_all([(node, op) for node, op, _ in found])
    for option, patterns in (("skip", config.skip), ("assign", tuple(config.assign))):
        check_patterns(f"the quantize step's {option}", patterns, names)

    layers, counts = [], multiplications(model)
    weighted = [name for (_, op, _), name in zip(found, names, strict=True) if op in _WEIGHTED]
    ends = {*weighted[:1], *weighted[-1:]}
    for (node, op, why_float), name in zip(found, names, strict=True):
        wanted, why = _wanted(name, config, at_end=name in ends)
        if not why and op not in _WEIGHTED:
            # Without a weight there is only one way to be quantized; and none where only weights are.
            wanted, why = ("float", "only weights are quantized") if weight_only(wanted) else ("int8", "")
        why = why or why_float or _why_not_grouped(model, node, op, wanted, config)
        if not why and op == "linear" and wanted == "int8" and not any(fnmatchcase(name, p) for p in config.assign):
            why = _why_small(node, rules, counts)
        bits = _WEIGHT_BITS.get(wanted, rules.weight_bits)
        activations = () if why or weight_only(wanted) else _activations(node, op, rules)
        layers.append(
            Layer(
                name=name,
                op=op,
                node=node.name,
                activations=activations,
                reason=why or _why_integer(op, rules, activations, bits, config.group_size),
                precision="float" if why else wanted,
                weight_bits=bits,
                one_grid=bool(activations) and node.target in _ONE_GRID,
            )
        )
    layers = _without_strays(model, layers)
    written = {"conv": rules.quantize_conv_outputs, "linear": rules.quantize_linear_outputs}
    return tuple(_with_outputs(model, layers, {op for op, wanted in written.items() if wanted}))


def named_layers(model: GraphModule) -> list[tuple[Node, str, str]]:
    """Node, op and name of every layer but pools and concatenations, in order, named as ``find_layers`` names them.

    Args:
        model: Normalized or not; of one that is not, a linear layer may be called a matmul.
    """
    constants = constant_nodes(model.graph)
    found: list[tuple[Node, str]] = []
    for node in model.graph.nodes:
        op = _FLOAT_OPS[node.target][0] if node.target in _FLOAT_OPS else _OPS.get(node.target)
        if node.op != "call_function" or op in (None, "pool", "concat"):
            continue
        if op != "add" or _is_residual(node, constants):
            found.append((node, str(op)))
    return [(node, op, name) for (node, op), name in zip(found, name_all(found), strict=True)]


def _wanted(name: str, config: Quantize, *, at_end: bool) -> tuple[LayerPrecision, str]:
    """The precision that the recipe gives a layer, and, where that is float, why.

    ``at_end``: whether it is the first or the last layer with weights.
    """
    pattern = next((p for p in config.skip if fnmatchcase(name, p)), None)
    if pattern is not None:
        return "float", f"skipped by the recipe ({pattern!r})"
    pattern = next((p for p in config.assign if fnmatchcase(name, p)), None)
    if pattern is not None:
        wanted = config.assign[pattern]
        return wanted, f"assigned float by the recipe ({pattern!r})" if wanted == "float" else ""
    wanted = config.ends if at_end and config.ends is not None else config.precision
    return wanted, "the recipe leaves the net's ends in float" if wanted == "float" else ""


def _why_not_grouped(model: GraphModule, node: Node, op: str, wanted: LayerPrecision, config: Quantize) -> str:
    """Why a layer cannot have the weight-only precision that is wanted; empty where it can, or has another."""
    if not weight_only(wanted) or config.group_size is None:
        return ""
    if op != "linear":
        return f"{wanted} is for linear layers: no runtime has a kernel for a {op} with packed weights"
    inputs = attribute(model, str(node.args[1].target)).shape[-1]  # type: ignore[union-attr]
    if inputs % config.group_size:
        return f"its {inputs} inputs are no multiple of the group size {config.group_size}"
    return ""


def _without_strays(model: GraphModule, layers: list[Layer]) -> list[Layer]:
    """Leave out pools and concatenations where a Q would gain nothing: no int8 kernel makes what they read.

    A max-pool, too, between one convolution and one reader: the graph's passes move the Q behind it to its front.
    """
    nodes = {node.name: node for node in model.graph.nodes}
    read = {source for layer in layers if layer.quantized for source in layer.sources(nodes[layer.node])}
    ends: set[Node] = set()  # what int8 kernels make
    kept = []
    for layer in layers:
        node = nodes[layer.node]
        sources = tuple(node.args[0]) if layer.op == "concat" else node.args[:1]
        if layer.op == "concat" and not (any(s in ends for s in sources) and _leads_to(node, read)):
            continue
        if layer.op == "pool" and sources[0] not in ends:
            continue
        if node.target in MAX_POOLS and not (_leads_to(node, read) and _branches(node)):
            continue
        kept.append(layer)
        if layer.quantized and (layer.one_grid or layer.op in ("conv", "add")) and len(layer.sources(node)) != 0:
            ends.add(absorbed(node) if layer.op != "concat" else node)
    return kept


def _branches(node: Node) -> bool:
    """Whether a max-pool's input or output has several readers, or its input is itself only selected values."""
    source = node.args[0]
    return len(node.users) > 1 or (isinstance(source, Node) and (len(source.users) > 1 or source.target in _ONE_GRID))


def _leads_to(node: Node, read: set[Node]) -> bool:
    """Whether ``node`` or what a max-pool makes of it is quantized by a reader, and the graph returns none of it."""
    if any(reader.op == "output" for reader in node.users):
        return False
    return node in read or any(reader.target in MAX_POOLS and _leads_to(reader, read) for reader in node.users)


def _with_outputs(model: GraphModule, layers: list[Layer], ops: set[str]) -> list[Layer]:
    """Mark the layers of the kinds ``ops`` that nothing behind them quantizes."""
    if not ops:
        return layers
    nodes = {node.name: node for node in model.graph.nodes}
    inputs = {(layer.node, source) for layer in layers for source in layer.sources(nodes[layer.node])}
    marked = []
    for layer in layers:
        end = absorbed(nodes[layer.node])
        if layer.op in ops and layer.quantized and not is_quantized_later(end, lambda r, v: (r.name, v) in inputs):
            layer = replace(layer, reason=f"{layer.reason} and output", quantize_output=True)  # noqa: PLW2901
        marked.append(layer)
    return marked


def _is_no_layer(node: Node, op: str, rules: QuantizationRules, constants: set[Node]) -> bool:
    """A pool where there is nothing to win; an addition of a number, a constant or an integer (no residual one)."""
    if op == "concat":
        sources: Any = node.args[0]
        return op not in rules.quantized_ops or not all(_is_float(source) for source in sources)
    if op == "pool":
        return op not in rules.quantized_ops or not (node.target in MAX_POOLS or is_spatial_pool(node))
    return op == "add" and not _is_residual(node, constants)


def _is_residual(node: Node, constants: set[Node]) -> bool:
    return all(isinstance(o, Node) and o not in constants and _is_float(o) for o in node.args[:2])


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _why_small(node: Node, rules: QuantizationRules, counts: Mapping[str, int]) -> str:
    """Why a linear layer is not worth a grid in front of it; empty where it is, or its size is not known."""
    own = counts.get(node.name, 0)
    if not 0 < own < min(rules.smallest_linear, _SMALL_SHARE * sum(counts.values())):
        return ""
    return f"smaller than its grid would cost ({own:,} multiplications)"


def _why_float(model: GraphModule, node: Node, op: str, rules: QuantizationRules, constants: set[Node]) -> str:
    """Why a node cannot be int8; empty where it can."""
    if op not in rules.quantized_ops:
        return f"the target does not quantize {op}"
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return f"computes in {str(getattr(value, 'dtype', 'an unknown type')).removeprefix('torch.')}, not float32"
    if op in _WEIGHTED:
        return _why_weight_float(model, node.args[1])
    if op == "matmul":
        constant = [a for a in node.args[:2] if a in constants]
        return "one factor is a constant that is no matrix of weights" if constant else ""
    return _why_add_float(node, rules) if op == "add" else ""


def _why_weight_float(model: GraphModule, weight: Any) -> str:
    if not isinstance(weight, Node) or weight.op != "get_attr":
        return "its weight is computed from the input"
    values = attribute(model, str(weight.target))
    if values.dtype != torch.float32:
        return f"its weight is {str(values.dtype).removeprefix('torch.')}, not float32"
    if not torch.isfinite(values).all():
        return "its weight holds NaN or infinity"
    return ""


def _why_add_float(node: Node, rules: QuantizationRules) -> str:
    if rules.residual_add == "none":
        return "the target does not quantize residual additions"
    left, right = node.args[:2]
    if node.kwargs.get("alpha", 1) != 1:
        return "a scaled addition"
    if left is right:
        return "adds a tensor to itself"
    if left.meta["val"].ndim != right.meta["val"].ndim:  # type: ignore[union-attr]
        return "a broadcast, not a residual addition"
    through = _THROUGH if rules.residual_add == "both" else BATCH_NORMS
    if not any(_is_conv(operand, through) for operand in (left, right)):
        return "no convolution feeds it: a residual stream keeps its float precision"
    return ""


def _is_conv(node: Any, through: Sequence[Any]) -> bool:
    while isinstance(node, Node) and (node.target in through or _is_first_item(node)):
        node = node.args[0]
    return isinstance(node, Node) and node.target in (*CONVS, *CONV_TRANSPOSES)


def _is_first_item(node: Node) -> bool:
    """``getitem(batch_norm, 0)``, as decomposition writes it."""
    return node.target is operator.getitem and bool(node.args[1] == 0)


def _activations(node: Node, op: str, rules: QuantizationRules) -> tuple[int, ...]:
    if op in (*_WEIGHTED, "pool", "concat"):
        return (0,)
    if op == "matmul" or rules.residual_add == "both":
        return (0, 1)
    # TensorRT fuses the addition into the convolution before it; the other input, the skip, must be int8.
    from_conv = [_is_conv(operand, BATCH_NORMS) for operand in node.args[:2]]
    if all(from_conv):
        # Either may be the skip; the one that others read too is already int8 for them (MobileNetV2's blocks).
        shared = [len(operand.users) > 1 for operand in node.args[:2]]  # type: ignore[union-attr]
        return (0,) if shared[0] and not shared[1] else (1,)
    return (from_conv.index(False),)


def _why_integer(
    op: str, rules: QuantizationRules, activations: tuple[int, ...], bits: int, group_size: int | None
) -> str:
    if not activations:
        return f"{bits}-bit weights per group of {group_size}, float input"
    if op in _WEIGHTED:
        grain = "per output channel" if rules.per_channel_weights and op != "conv_transpose" else "per tensor"
        return f"{bits}-bit weights {grain}, 8-bit input"
    if op == "add" and len(activations) == 1:
        return "8-bit skip input"
    if op == "concat":
        return "8-bit inputs and output on one grid"
    return "8-bit input" if op == "pool" else "8-bit inputs"
