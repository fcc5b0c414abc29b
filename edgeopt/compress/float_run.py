"""Runs a float graph, observed or not, as fast as torch can on a CPU: calibration is mostly this.

Convolutions take their values channels-last, clip in the same pass over memory, and pad for themselves. Rounding may
differ from the plain graph's in the last bits; where torch has no oneDNN, the plain graph runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.observers import ActivationObserver

__all__ = ["FloatRunner"]

A = torch.ops.aten
_CONV = (None, [1, 1], [0, 0], [1, 1], 1)  # bias, stride, padding, dilation, groups of aten.conv2d where left out
_CLIP = (-1.0, 1.0)  # likewise the limits of aten.hardtanh
_PAD = ("constant", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conv:
    """How one conv2d is run.

    Attributes:
        arguments: Padding, its own and that of the Pad in front of it; stride, dilation, groups.
        clip: oneDNN's name of what follows at once, and its limits.
    """

    arguments: tuple[list[int], list[int], list[int], int]
    clip: tuple[str, list[float]]


class FloatRunner(Interpreter):
    """An interpreter of one float graph whose weights do not change while it lives.

    Args:
        model: Observers in it are called as they stand; only a Pad's zeros they may not see.
    """

    def __init__(self, model: GraphModule) -> None:
        super().__init__(model)
        self._convs, self._passed = _plan(model)
        self._weights: dict[Node, torch.Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node; what a convolution has done already is passed by."""
        if n in self._passed:
            return self.env[n.args[0]]  # type: ignore[index]
        conv = self._convs.get(n)
        if conv is not None:
            return self._convolve(n, conv)
        if n.target is A.view.default:  # of a value that lies channels-last there is no view
            return self.env[n.args[0]].reshape(*self.fetch_args_kwargs_from_env(n)[0][1:])  # type: ignore[index]
        return super().run_node(n)

    def _convolve(self, n: Any, conv: _Conv) -> torch.Tensor:
        x, weight = (self.env[a] for a in n.args[:2])
        bias = self.env[n.args[2]] if len(n.args) > 2 and n.args[2] is not None else None
        if n not in self._weights:
            padding, stride, dilation, groups = conv.arguments
            self._weights[n] = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]  # noqa: SLF001
                weight.to_mkldnn(), padding, stride, dilation, groups, x.shape
            )
        result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001 (what torch.compile calls)
            x, self._weights[n], bias, *conv.arguments, *conv.clip, ""
        )
        return result


def _plan(model: GraphModule) -> tuple[Mapping[Node, _Conv], frozenset[Node]]:
    """The convolutions that are run here, and the nodes that they do the work of."""
    nodes: list[Any] = list(model.graph.nodes)
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not onednn or any(n.target is A.as_strided.default for n in nodes):
        return {}, frozenset()
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {n for n in nodes if n.target is A.conv2d.default and _is_image(n) and _is_stored(n.args[1])}
    pads: dict[Any, Any] = {n: n.args[1] for n in nodes if n.target is A.pad.default and _only_pads(n, found, modules)}
    convs: dict[Node, _Conv] = {}
    passed = set(pads)
    for node in found:
        _, stride, padding, dilation, groups = _arguments(node, 2, _CONV)
        left, _, top, _ = pads.get(_source(node.args[0], modules), (0, 0, 0, 0))
        clip = next(iter(node.users)) if len(node.users) == 1 else node
        name, limits = _clip(clip)
        if name != "none":
            passed.add(clip)
        convs[node] = _Conv(
            arguments=([padding[0] + top, padding[-1] + left], [*stride], [*dilation], groups), clip=(name, limits)
        )
    return convs, frozenset(passed)


def _arguments(node: Any, first: int, defaults: Sequence[Any]) -> list[Any]:
    """The arguments from position ``first`` on, those that were left out with their defaults."""
    given = node.args[first:]
    return [*given, *defaults[len(given) :]]


def _is_image(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.ndim == 4 and value.dtype is torch.float32


def _is_stored(weight: Any) -> bool:
    """Whether a weight is the same in every run: an attribute, perhaps behind its observer."""
    return bool((weight.args[0] if weight.op == "call_module" else weight).op == "get_attr")


def _only_pads(pad: Any, convs: AbstractSet[Node], modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether it adds as many zeros on either side, for nothing but the data of ``convs``."""
    amounts = pad.args[1]
    mode, value = _arguments(pad, 2, _PAD)
    if mode != "constant" or value not in (None, 0) or len(amounts) != 4 or min(amounts) < 0:
        return False
    if amounts[0] != amounts[1] or amounts[2] != amounts[3]:
        return False
    behind = [u for user in pad.users for u in (user.users if _is_observer(user, modules) else [user])]
    return all(u in convs and _source(u.args[0], modules) is pad and pad not in u.args[1:] for u in behind)


def _source(node: Any, modules: Mapping[str, torch.nn.Module]) -> Any:
    """What an observer watches; any other node itself."""
    return node.args[0] if _is_observer(node, modules) else node


def _is_observer(node: Node, modules: Mapping[str, torch.nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], ActivationObserver)


def _clip(node: Any) -> tuple[str, list[float]]:
    """The name in oneDNN of a clip and its limits; "none" for any other node."""
    if node.target is A.relu.default:
        return "relu", []
    if node.target is A.hardtanh.default:
        return "hardtanh", _arguments(node, 1, _CLIP)
    return "none", []
