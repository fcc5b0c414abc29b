"""Spare torch's exporter what it finds out anew on every call: translations, types, where a pattern begins.

Building the tables of a thousand translations and decompositions takes half a second. To see where types are to be
promoted, the exporter runs every node of the program on fake tensors, a recurrent cell's operations for each time step,
though each node says its type. Its optimizer lists all nodes of the graph for each node and rule before it looks whether
that node can begin the rule's pattern.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch.ao.quantization.fx._decomposed  # noqa: F401 - a table built before its operations are there would lack them
from onnxscript.rewriter._basics import MatchResult
from onnxscript.rewriter._matcher import SimplePatternMatcher
from torch.fx import Interpreter, Node
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.fx.passes import type_promotion

__all__ = ["known"]

_DECOMPOSITIONS = "create_onnx_friendly_decomposition_table"
_decompose = getattr(_decomp, _DECOMPOSITIONS)
_build = ONNXRegistry.from_torchlib
_match_all = SimplePatternMatcher.match


@contextmanager
def known() -> Iterator[None]:
    """Let ``torch.onnx.export`` use, inside, what is known; the graph that it makes is the same."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(_translations)))
        stack.enter_context(mock.patch.object(_decomp, _DECOMPOSITIONS, _decompositions))
        stack.enter_context(mock.patch.object(type_promotion, "_TypePromotionInterpreter", _Known))
        stack.enter_context(mock.patch.object(SimplePatternMatcher, "match", _match))
        yield


def _match(
    self: SimplePatternMatcher, model: ir.Model, graph: ir.Graph | ir.Function, node: ir.Node, **options: Any
) -> MatchResult:
    if not self.pattern.output_nodes[0].op.matches(node.op_type):  # it is matched against the first one
        return MatchResult().fail("Another operation.", node)
    return _match_all(self, model, graph, node, **options)


def _translations(opset_version: int) -> ONNXRegistry:
    """A table of its own for each caller, who may add to it."""
    kept = _translations_of(opset_version)
    table = copy.copy(kept)
    table.functions = {target: list(found) for target, found in kept.functions.items()}
    return table


@cache
def _translations_of(opset_version: int) -> ONNXRegistry:
    return _build(opset_version=opset_version)


def _decompositions(implemented: Iterable[Any]) -> dict[Any, Any]:
    return dict(_decompositions_beside(frozenset(implemented)))


@cache
def _decompositions_beside(implemented: frozenset[Any]) -> Mapping[Any, Any]:
    return dict(_decompose(set(implemented)).items())


class _Known(type_promotion._TypePromotionInterpreter):  # noqa: SLF001
    """Reads a node's value where it says it; what promotion adds or changes is run, as ever."""

    def run_node(self, n: Node) -> Any:
        """Promote the types of one node; its value."""
        with self._set_current_node(n):
            if rule := type_promotion.get_type_promotion_rule(n, self.type_promotion_table):
                self._maybe_promote_node(n, rule)
        return n.meta["val"] if n.op == "call_function" and "val" in n.meta else Interpreter.run_node(self, n)
