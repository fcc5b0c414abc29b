"""Take an exported program from training mode to inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

__all__ = ["training_switches", "turn_to_eval"]

_aten = torch.ops.aten

# Operator → position and name of the flag that is True while training (aten's native_functions.yaml).
_FLAGS: dict[Any, tuple[int, str]] = {
    _aten.dropout.default: (2, "train"),
    _aten.dropout_.default: (2, "train"),
    _aten.native_dropout.default: (2, "train"),
    _aten.feature_dropout.default: (2, "train"),
    _aten.alpha_dropout.default: (2, "train"),
    _aten.feature_alpha_dropout.default: (2, "train"),
    _aten.rrelu.default: (3, "training"),
    _aten.batch_norm.default: (5, "training"),
    _aten.native_batch_norm.default: (5, "training"),
    _aten._native_batch_norm_legit.default: (5, "training"),  # noqa: SLF001
    _aten.cudnn_batch_norm.default: (5, "training"),
}
_STATISTICS = 3  # where batch norms take their running mean


def training_switches(graph: fx.Graph) -> list[str]:
    """The names of the nodes that behave as in training.

    A batch norm without running statistics is not one of them: it has nothing else to use.
    """
    return [node.name for node in graph.nodes if _is_training(node)]


def turn_to_eval(module: fx.GraphModule) -> None:
    """Switch every node of an unlifted program to inference, in place, and drop the counting of training batches."""
    for node in list(module.graph.nodes):
        if _is_training(node):
            position, name = _FLAGS[node.target]
            if name in node.kwargs:
                node.update_kwarg(name, False)
            else:
                node.update_arg(position, False)
        elif _counts_batches(node):
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_training(node: fx.Node) -> bool:
    flag = _FLAGS.get(node.target) if node.op == "call_function" else None
    if flag is None:
        return False
    position, name = flag
    value = node.kwargs.get(name, node.args[position] if len(node.args) > position else False)
    if name == "training" and position > _STATISTICS + 1 and len(node.args) > _STATISTICS:
        return bool(value) and node.args[_STATISTICS] is not None
    return bool(value)


def _counts_batches(node: fx.Node) -> bool:
    if node.target is not _aten.add_.Tensor or node.users:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and source.op == "get_attr" and "num_batches_tracked" in str(source.target)
