"""The teacher: the model as it was before the recipe's first step."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeopt.compress.base import StepContext
from edgeopt.model.trained import TrainedModel

__all__ = ["reference_graph"]


def reference_graph(
    model: TrainedModel, graph: GraphModule, context: StepContext, graph_of: Callable[[ExportedProgram], GraphModule]
) -> GraphModule:
    """A graph of its own, and tensors of its own, that a training is taught by and scored against.

    Args:
        model: As it entered the step.
        graph: Its graph; the reference where the step is the recipe's first.
        context: Has the original, where it is another.
        graph_of: Makes the graph of the original's program, as it made ``graph``.
    """
    original = context.original
    if original is not None and original.program is not None and original.identity != model.identity:
        graph = graph_of(original.program)
    return copy.deepcopy(graph)
