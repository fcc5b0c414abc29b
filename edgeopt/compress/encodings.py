"""Which activations may leave symmetric int8 for uint8: from zero on, or with a zero point that calibration chooses.

What a graph makes says which are never negative: a grid from zero on has twice the points for them. Of the others those
may have a zero point whose readers have kernels for one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute
from edgeopt.compress.observers import ActivationObserver

__all__ = ["allow_uint8"]

A = torch.ops.aten
_ABOVE = {
    **dict.fromkeys((A.relu.default, A.relu_.default, A.abs.default, A.sqrt.default, A.exp.default), math.inf),
    **dict.fromkeys((A.relu6.default, A.relu6_.default), 6.0),
    **dict.fromkeys((A.softmax.int, A._softmax.default, A.sigmoid.default, A.hardsigmoid.default), 1.0),  # noqa: SLF001
}
_CLIPS = (A.hardtanh.default, A.hardtanh_.default, A.clamp.default, A.clamp_.default)
_CLIP = (-1.0, 1.0)  # of hardtanh, where it does not say
_CLAMP = (None, None)  # likewise of clamp
_MOVES = frozenset(
    (
        *(A.max_pool1d.default, A.max_pool2d.default, A.max_pool3d.default),
        *(A.view.default, A.reshape.default, A.flatten.using_ints, A.unsqueeze.default, A.squeeze.dim, A.squeeze.dims),
        *(A.permute.default, A.transpose.int, A.t.default, A.slice.Tensor, A.select.int),
        *(A.dropout.default, A.dropout_.default, A.clone.default, A.contiguous.default),
    )
)
_PRODUCTS = frozenset((A.linear.default, A.addmm.default, A.mm.default, A.matmul.default, A.bmm.default))
_KEEPS = (  # values of one tensor and nothing else but zeros, or their averages
    *_MOVES,
    *(A.amax.default, A.expand.default, A.pixel_shuffle.default),
    *(A.avg_pool1d.default, A.avg_pool2d.default, A.adaptive_avg_pool1d.default, A.adaptive_avg_pool2d.default),
    *(A.mean.dim, A.mean.default),
)
_PAIRS = {A.add.Tensor: operator.add, A.add_.Tensor: operator.add, A.mul.Tensor: operator.mul}
_PADS = (A.pad.default, A.constant_pad_nd.default)
_POWERS = (A.pow.Tensor_Scalar, A.square.default)
_Reach = Mapping[Node, float | None]


def allow_uint8(prepared: GraphModule, *, symmetric_products: bool) -> None:
    """Give each observer whose tensors are never negative a grid from zero on; let the others choose a zero point.

    Args:
        prepared: An observed graph, before anything was watched.
        symmetric_products: Whether what only linear layers read keeps a zero point of 0.
    """
    modules = dict(prepared.named_modules(remove_duplicate=False))
    reach: dict[Node, float | None] = {}
    watched: dict[ActivationObserver, list[Node]] = {}
    for node in prepared.graph.nodes:  # in an order in which each reads what came before
        reach[node] = _reach(node, reach, modules, prepared)
        observer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(observer, ActivationObserver):
            watched.setdefault(observer, []).append(node)
    for observer, nodes in watched.items():
        known = [top for node in nodes if (top := reach[node]) is not None]
        if len(known) == len(nodes):
            observer.start_at_zero(max(known))
        else:
            observer.shifts = not (symmetric_products and _feeds_products(nodes))


def _feeds_products(nodes: Sequence[Node]) -> bool:
    """Whether linear layers alone read what these observers pass on, directly or moved."""
    pending, seen, ends = list(nodes), set(nodes), set()
    while pending:
        for reader in pending.pop().users:
            if reader.target not in _MOVES:
                ends.add(reader.target)
            elif reader not in seen:
                seen.add(reader)
                pending.append(reader)
    return bool(ends) and ends <= _PRODUCTS


def _reach(node: Node, reach: _Reach, modules: Mapping[str, Any], model: GraphModule) -> float | None:
    """What a value that is never negative never exceeds (infinity where nothing says); None for one that may be negative."""
    if node.op == "call_function":
        return _made(node, reach)
    if node.op == "call_module":
        watches = isinstance(modules.get(str(node.target)), ActivationObserver)
        return reach.get(node.args[0]) if watches else None  # type: ignore[arg-type]
    value = attribute(model, str(node.target)) if node.op == "get_attr" else None
    held = isinstance(value, torch.Tensor) and value.numel() and bool((value >= 0).all())
    return float(value.max()) if held else None  # type: ignore[union-attr]


def _made(node: Node, reach: _Reach) -> float | None:
    """Likewise, of what an operation makes."""
    target: Any = node.target
    if target in _KEEPS:
        return reach.get(node.args[0])  # type: ignore[arg-type]
    rule = _RULES.get(target)
    return _ABOVE.get(target) if rule is None else rule(node, reach)


def _clipped(node: Node, reach: _Reach) -> float | None:
    low, high = _limits(node)
    top = reach.get(node.args[0])  # type: ignore[arg-type]
    if top is None and (low is None or low < 0):
        return None
    return max(0.0, min(math.inf if top is None else top, math.inf if high is None else high))


def _joined(node: Node, reach: _Reach) -> float | None:
    parts: Any = node.args[0]
    tops = [reach.get(one) for one in parts]
    return None if None in tops else max(tops)  # type: ignore[type-var]


def _paired(node: Node, reach: _Reach) -> float | None:
    """Of a sum or a product of two."""
    if node.target is A.mul.Tensor and node.args[0] is node.args[1]:
        return _to_the(node.args[0], 2, reach)
    one, other = (reach.get(side) if isinstance(side, Node) else None for side in node.args[:2])
    return None if node.kwargs or one is None or other is None else float(_PAIRS[node.target](one, other))  # type: ignore[index]


def _padded(node: Node, reach: _Reach) -> float | None:
    """Likewise, of a padded tensor."""
    given: Any = node.args
    mode, value = "constant", given[2:3]
    if node.target is A.pad.default:
        mode, value = (given[2] if len(given) > 2 else mode), given[3:4]
    top = reach.get(given[0])
    if top is None or mode != "constant":  # any other mode repeats the tensor's own values
        return top
    number = node.kwargs.get("value", value[0] if value else None) or 0.0
    return max(top, float(number)) if isinstance(number, int | float) and number >= 0 else None


def _power(node: Node, reach: _Reach) -> float | None:
    return _to_the(node.args[0], node.args[1] if node.target is A.pow.Tensor_Scalar else 2, reach)


def _to_the(base: Any, exponent: Any, reach: _Reach) -> float | None:
    """Of a power of a tensor."""
    top = reach.get(base)
    if not isinstance(exponent, int | float) or exponent <= 0 or (top is None and exponent % 2):
        return None
    return math.inf if top is None else float(top**exponent)


def _limits(node: Node) -> tuple[float | None, float | None]:
    given: Any = (*node.args[1:], *(_CLIP if "hardtanh" in str(node.target) else _CLAMP)[len(node.args) - 1 :])
    low, high = (node.kwargs.get(name, value) for name, value in zip(("min", "max"), given, strict=False))
    return (
        float(low) if isinstance(low, int | float) else None,
        float(high) if isinstance(high, int | float) else None,
    )


_RULES: Mapping[Any, Callable[[Node, _Reach], float | None]] = {
    **dict.fromkeys(_CLIPS, _clipped),
    **dict.fromkeys(_PADS, _padded),
    **dict.fromkeys(_POWERS, _power),
    **dict.fromkeys(_PAIRS, _paired),
    A.cat.default: _joined,
}
