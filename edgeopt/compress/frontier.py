"""The calibration samples on their way through a net, held where the next layer begins: quantized so far, and in float.

A layer-wise method asks for one layer's inputs after another. Run from the start each time, a net of 50 layers is run 50 times;
held at the last layer they go on from there. What is held is bounded: batches beyond ``KEPT_BYTES`` are run from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.evaluate import Quantized

__all__ = ["KEPT_BYTES", "Frontier"]

KEPT_BYTES = 2 << 30


@dataclass(slots=True)
class _Batch:
    """One batch and, where they are held, the live values of both runs."""

    inputs: list[torch.Tensor]
    count: int
    quantized: dict[Node, Any] = field(default_factory=dict)
    reference: dict[Node, Any] = field(default_factory=dict)
    held: bool = True


class Frontier:
    """Inputs of one layer after another, in the graph's order.

    Args:
        model: Observed, with fixed ranges. Its observers may be given other integers on the way, layer by layer.
        feed: Calibration samples, of which the first ``samples`` are read, once.
        kept_bytes: How much may be held; 0: every layer runs from the start.
    """

    def __init__(self, model: GraphModule, feed: Feed, samples: int, kept_bytes: int = KEPT_BYTES) -> None:
        self.quantized, self.reference = Quantized(model), Quantized(model, quantize=False)
        self._kept_bytes, self._at = kept_bytes, 0
        self._positions = {node: index for index, node in enumerate(model.graph.nodes)}
        self._batches: list[_Batch] = []
        left = samples
        for inputs, count in feed.batches():
            if left <= 0:
                break
            self._batches.append(_Batch(inputs=inputs, count=min(count, left)))
            left -= count

    def inputs(self, node: Node) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Argument 0 of ``node`` in the quantized run and in the float one, batch by batch, without rows that fill up.

        All of them have to be taken before the next layer is asked for, which must not come before ``node``.
        """
        stop, used = self._positions[node], 0
        for batch in self._batches:
            mine, theirs = self._at_node(batch, node, stop)
            held = _nbytes(batch.quantized) + _nbytes(batch.reference)
            if used + held <= self._kept_bytes:
                used += held
            elif batch.held:
                batch.held, batch.quantized, batch.reference = False, {}, {}
            yield mine[: batch.count], theirs[: batch.count]
        self._at = stop

    def _at_node(self, batch: _Batch, node: Node, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not batch.held:
            return self.quantized.until(node, batch.inputs)[0], self.reference.until(node, batch.inputs)[0]
        for runner, env in ((self.quantized, batch.quantized), (self.reference, batch.reference)):
            runner.advance(env, self._at, stop, batch.inputs)
        source: Any = node.args[0]
        return batch.quantized[source], batch.reference[source]

    def renew(self, node: Node) -> None:
        """Take the weight of ``node`` anew, as its observer was given other integers."""
        observer: Any = node.args[1]
        self.quantized.forget(str(observer.target))
        weight = self.quantized.fetch_attr(str(observer.args[0].target))
        fresh = self.quantized.call_module(str(observer.target), (weight,), {})
        for batch in self._batches:
            if batch.held:
                batch.quantized[observer] = fresh


def _nbytes(env: dict[Node, Any]) -> int:
    """Of the values that hang on the samples: weights are shared by all batches."""
    return sum(value.nbytes for node, value in env.items() if isinstance(value, torch.Tensor) and not _is_weight(node))


def _is_weight(node: Node) -> bool:
    return node.op == "get_attr" or (
        node.op == "call_module" and isinstance(node.args[0], Node) and node.args[0].op == "get_attr"
    )
