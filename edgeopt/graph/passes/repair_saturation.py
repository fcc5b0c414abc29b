"""Give every channel whose sums of products could overflow weights beside which they cannot.

Each gets the least change that is enough (``edgeopt.core.saturation.repair``): a step that is wider by the ratio of its
worst pair to the limit, never by as much as the bit that 7-bit weights give up everywhere. Other channels keep theirs.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.core.saturation import Layout, from_kernel_rows, kernel_rows, overflows, pair_sums, repair
from edgeopt.graph.integer_layers import IntegerLayer, Kernels, integer_layers, lanes_of
from edgeopt.graph.qdq import array_of, new_initializer

__all__ = ["RepairSaturation"]


class RepairSaturation(ir.passes.InPlacePass):
    """Rewrites weights, their scales and int32 biases; a weight that others read as well is copied first.

    Attributes:
        repaired: Channels that were changed, by the name of the layer's node.
        left: Nodes with channels that can overflow and that cannot be rewritten: integer operators, inner graphs, weights
            with zero points or several scales per channel.
        widest: The largest factor by which a step grew.
        lost_db: How far the changed channels' weights moved: their signal over the change, in decibels; infinity: none.
    """

    def __init__(self, kernels: Kernels = "onnxruntime") -> None:
        super().__init__()
        self.kernels = kernels
        self.repaired: dict[str, int] = {}
        self.left: list[str] = []
        self.widest = 1.0
        self._signal = self._noise = 0.0

    @property
    def lost_db(self) -> float:
        """See the class."""
        return 10 * math.log10(self._signal / self._noise) if self._noise else math.inf

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Repair what can overflow."""
        for layer in list(integer_layers(model.graph)):
            if layer.is_depthwise or not (over := _overflowing(layer, self.kernels)).any():
                continue
            name = layer.node.name or str(layer.node.outputs[0].name)
            scales = _channel_scales(layer, len(over)) if layer.node.graph is model.graph else None
            if scales is None:
                self.left.append(name)
                continue
            new, factors = _repaired(layer, self.kernels)
            self._note(
                kernel_rows(layer.weight, layer.layout)[over],
                kernel_rows(new, layer.layout)[over],
                scales[over],
                factors[over],
            )
            self.repaired[name] = int(over.sum())
            _rewrite(model.graph, layer, new, scales, factors)
        return ir.passes.PassResult(model, modified=bool(self.repaired))

    def ensures(self, model: ir.Model) -> None:
        """What was repaired can no longer overflow."""
        for layer in integer_layers(model.graph):
            name = layer.node.name or str(layer.node.outputs[0].name)
            if name in self.repaired and _overflowing(layer, self.kernels).any():
                raise GraphError("A repaired layer can still overflow.", got=name, fix="Please report this.")

    def _note(self, old: np.ndarray, new: np.ndarray, scales: np.ndarray, factors: np.ndarray) -> None:
        power = np.square(scales)[:, None]
        change = new.astype(np.float64) * factors[:, None] - old
        self._signal += float((np.square(old.astype(np.float64)) * power).sum())
        self._noise += float((np.square(change) * power).sum())
        self.widest = max(self.widest, float(factors.max()))


def _overflowing(layer: IntegerLayer, kernels: Kernels) -> np.ndarray:
    """Which channels can overflow in one of the orders in which kernels may read them: bool [channels]."""
    orders = [kernel_rows(layer.weight, layer.layout, lanes) for lanes in lanes_of(layer, kernels)]
    over: np.ndarray = np.any([overflows(pair_sums(rows), layer.high) for rows in orders], axis=0)
    return over


def _repaired(layer: IntegerLayer, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the factors of ``repair``, order by order: no repair makes a weight larger, so the first one holds."""
    weight, factors = layer.weight, np.ones(1)
    for lanes in lanes_of(layer, kernels):
        rows, wider = repair(kernel_rows(weight, layer.layout, lanes), layer.high)
        weight, factors = from_kernel_rows(rows, weight.shape, layer.layout, lanes), factors * wider
    return weight, factors


def _channel_scales(layer: IntegerLayer, channels: int) -> np.ndarray | None:
    """Float64 [channels]; None where the weight is not symmetric with one scale per channel or tensor."""
    node = layer.dequantize
    if node is None or layer.weight.ndim > (2 if layer.layout != "conv" else layer.weight.ndim):
        return None
    scale, stored = array_of(node.inputs[1]), array_of(node.inputs[0])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.dtype != np.float32 or (zero is not None and zero.any()):
        return None
    if scale.size == 1:
        return np.full(channels, float(scale.reshape(-1)[0]))
    axis = 1 if layer.layout == "columns" else 0
    if stored is None or stored.ndim != layer.weight.ndim or scale.shape != (channels,):
        return None
    if not np.array_equal(stored, layer.weight):  # transposed on its way to the node: the axis moves with it
        if stored.ndim != 2 or not np.array_equal(stored.T, layer.weight):
            return None
        axis = 1 - axis
    return scale.astype(np.float64) if node.attributes.get_int("axis", 1) % stored.ndim == axis else None


def _rewrite(graph: ir.Graph, layer: IntegerLayer, stored: np.ndarray, scales: np.ndarray, factors: np.ndarray) -> None:
    node, name, layout = layer.node, layer.node.outputs[0].name, layer.layout
    weight = new_initializer(graph, f"{name}_fitting", stored)
    wider = (scales * factors).astype(np.float32)
    own = ir.node(
        "DequantizeLinear",
        [
            weight,
            new_initializer(graph, f"{name}_fitting_scale", wider),
            new_initializer(graph, f"{name}_fitting_zero_point", np.zeros(len(wider), np.int8)),
        ],
        {"axis": _axis(layout)},
        num_outputs=1,
    )
    own.name = own.outputs[0].name = f"{name}_fitting_dq"
    old = [node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None]
    graph.insert_before(node, own)
    node.replace_input_with(1, own.outputs[0])
    _rescale_bias(graph, node, wider.astype(np.float64) / scales)
    for value in old:
        _drop(graph, value)


def _axis(layout: Layout) -> int:
    return 1 if layout == "columns" else 0


def _rescale_bias(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    """Write an int32 bias in the accumulator's new unit."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    source = value.producer() if value is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return  # a float bias has no unit
    stored, scale = array_of(source.inputs[0]), array_of(source.inputs[1])
    if stored is None or scale is None:
        return
    name = node.outputs[0].name
    units = np.rint(stored.astype(np.float64) / factors)
    own = ir.node(
        "DequantizeLinear",
        [
            new_initializer(graph, f"{name}_fitting_bias", units.astype(np.int32)),
            new_initializer(graph, f"{name}_fitting_bias_scale", (scale * factors).astype(np.float32)),
            new_initializer(graph, f"{name}_fitting_bias_zero_point", np.zeros(stored.shape, np.int32)),
        ],
        {"axis": 0},
        num_outputs=1,
    )
    own.name = own.outputs[0].name = f"{name}_fitting_bias_dq"
    graph.insert_before(node, own)
    node.replace_input_with(2, own.outputs[0])


def _drop(graph: ir.Graph, value: ir.Value | None) -> None:
    """Remove the nodes that made ``value``, as far as nobody else reads them."""
    while value is not None and not value.consumers() and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return
        value = node.inputs[0]
        graph.remove(node, safe=True)
