"""SmoothQuant: outliers in what LayerNorm gives move into the weights of the linear layers behind it.

Source: G. Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
equations 3 and 4: Y = (X·diag(s)⁻¹)·(diag(s)·W), sⱼ = max|Xⱼ|^α / max|Wⱼ|^(1−α), s⁻¹ folded into the LayerNorm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.attributes import attribute, copy_constant
from edgeopt.compress.calibrate import Feed
from edgeopt.core.events import Progress, ProgressListener

__all__ = ["smooth"]

A = torch.ops.aten
_NORM, _LINEAR = A.layer_norm.default, A.linear.default
_THROUGH = (A.clone.default, A.dropout.default, A.contiguous.default)
_FLOOR = 1e-5


def smooth(graph: GraphModule, feed: Feed, alpha: float, progress: ProgressListener) -> int:
    """Smooth every LayerNorm whose only readers are linear layers; the graph computes what it did.

    Args:
        graph: Normalized; changed in place.
        feed: Calibration samples, read once.
        alpha: How much of the difficulty moves, in [0, 1].
        progress: Told about each batch.

    Returns:
        How many LayerNorms there were.
    """
    found = {}
    for node in list(graph.graph.nodes):
        readers = _linears(node) if node.target is _NORM and _has_affine(node) else []
        if readers:
            found[node] = readers
    if not found:
        return 0
    largest = _largest(graph, list(found), feed, progress)
    for norm, readers in found.items():
        _move(graph, norm, readers, largest, alpha)
    graph.recompile()
    return len(found)


def _linears(node: Node) -> list[Node]:
    """The linear layers that read ``node``; empty where anything else does."""
    found: list[Node] = []
    for reader in node.users:
        if reader.target is _LINEAR and isinstance(reader.args[1], Node) and reader.args[1].op == "get_attr":
            found.append(reader)
        elif reader.target in _THROUGH and (behind := _linears(reader)):
            found += behind
        else:
            return []
    return found


def _has_affine(norm: Node) -> bool:
    """Whether a LayerNorm is over the last axis alone and has constants to fold the scales into."""
    shape: Any = norm.args[1]
    affine = norm.args[2:4]
    return len(shape) == 1 and len(affine) == 2 and all(isinstance(a, Node) and a.op == "get_attr" for a in affine)


class _Largest(Interpreter):
    """Keeps max|x| per channel of the last axis of chosen nodes."""

    def __init__(self, graph: GraphModule, nodes: Sequence[Node]) -> None:
        super().__init__(graph)
        self.values: dict[str, torch.Tensor] = {}
        self._names = {node.name for node in nodes}

    def run_node(self, n: Node) -> Any:
        """Run one node and look at it."""
        result = super().run_node(n)
        if n.name in self._names:
            seen = result.abs().reshape(-1, result.shape[-1]).amax(0)
            self.values[n.name] = torch.maximum(self.values[n.name], seen) if n.name in self.values else seen
        return result


def _largest(
    graph: GraphModule, norms: Sequence[Node], feed: Feed, progress: ProgressListener
) -> dict[str, torch.Tensor]:
    runner, done = _Largest(graph, norms), 0
    for inputs, count in feed.batches():
        runner.run(*inputs, enable_io_processing=False)
        done += count
        progress(Progress(stage="smooth", done=done, total=feed.samples))
    return runner.values


def _move(
    graph: GraphModule, norm: Node, readers: Sequence[Node], largest: Mapping[str, torch.Tensor], alpha: float
) -> None:
    for position in (2, 3):
        with graph.graph.inserting_before(norm):
            norm.update_arg(position, copy_constant(graph, norm.args[position]))  # type: ignore[arg-type]
    for reader in readers:
        with graph.graph.inserting_before(reader):
            reader.update_arg(1, copy_constant(graph, reader.args[1]))  # type: ignore[arg-type]
    weights = [attribute(graph, str(reader.args[1].target)) for reader in readers]  # type: ignore[union-attr]
    weight = torch.stack([w.abs().amax(0) for w in weights]).amax(0).clamp_min(_FLOOR)
    scale = (largest[norm.name].clamp_min(_FLOOR) ** alpha / weight ** (1 - alpha)).clamp_min(_FLOOR)
    with torch.no_grad():
        for position in (2, 3):
            attribute(graph, str(norm.args[position].target)).div_(scale)  # type: ignore[union-attr]
        for w in weights:
            w.mul_(scale)
