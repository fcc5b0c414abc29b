"""Runs an observed graph as it would be after conversion, without converting it: for scores and layer-wise methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.grouped import GroupedWeightObserver
from edgeopt.compress.observers import ActivationObserver, WeightObserver

__all__ = ["Quantized", "run_float", "run_quantized"]


class Quantized(Interpreter):
    """Evaluates a graph with fixed observers on the grids that they chose.

    Args:
        model: As ``prepare`` returns it.
        quantize: Whether to quantize at all; False gives the float outputs of the same graph.
    """

    def __init__(self, model: GraphModule, *, quantize: bool = True) -> None:
        super().__init__(model)
        self._quantize = quantize
        self._weights: dict[str, torch.Tensor] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An observer's grid; any other module as it is."""
        module = self.fetch_attr(target)
        if isinstance(module, ActivationObserver):
            return module.on_grid(args[0]) if self._quantize else args[0]
        if isinstance(module, WeightObserver | GroupedWeightObserver):
            if not self._quantize:
                return args[0]
            if target not in self._weights:
                self._weights[target] = module.restored(args[0])
            return self._weights[target]
        return super().call_module(target, args, kwargs)

    def forget(self, observer: str) -> None:
        """Take that weight's rounding anew at its next use."""
        self._weights.pop(observer, None)

    def advance(self, env: dict[Node, Any], start: int, stop: int, inputs: Sequence[torch.Tensor]) -> None:
        """Run the nodes at positions ``start`` to ``stop``, the latter not; ``env`` has what was computed before, and goes on.

        Args:
            env: Empty where ``start`` is 0; afterwards the values that nodes from ``stop`` on read.
        """
        self.env, self.args_iter = env, iter(inputs)
        nodes: Any = self.module.graph.nodes  # type: ignore[union-attr]
        for each in list(nodes)[start:stop]:
            env[each] = self.run_node(each)
            for done in self.user_to_last_uses.get(each, ()):
                env.pop(done, None)
        self.env = {}

    def until(self, node: Node, inputs: Sequence[torch.Tensor]) -> tuple[Any, Any]:
        """What argument 0 and argument 1 of ``node`` are on ``inputs``; nothing behind them is computed."""
        needed = _ancestors(node)
        self.env = {}
        self.args_iter = iter(inputs)
        for each in self.module.graph.nodes:  # type: ignore[union-attr]
            if each is node:
                break
            if each in needed or each.op == "placeholder":
                self.env[each] = self.run_node(each)
                for done in self.user_to_last_uses.get(each, ()):
                    if done not in node.all_input_nodes:
                        self.env.pop(done, None)
        first, second = (self.env[source] for source in node.args[:2])  # type: ignore[index]
        self.env = {}
        return first, second


def run_quantized(model: GraphModule) -> Callable[[Sequence[torch.Tensor]], Any]:
    """A callable on flat inputs, as ``Judge`` takes it."""
    runner = Quantized(model)
    return lambda inputs: runner.run(*inputs, enable_io_processing=False)


def run_float(model: GraphModule) -> Callable[[Sequence[torch.Tensor]], Any]:
    """The float outputs of an observed graph."""
    runner = Quantized(model, quantize=False)
    return lambda inputs: runner.run(*inputs, enable_io_processing=False)


def _ancestors(node: Node) -> set[Node]:
    found: set[Node] = set()
    pending = list(node.all_input_nodes)
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending.extend(current.all_input_nodes)
    return found
