"""From a graph module back to an ExportedProgram without tracing: its tensors become inputs, its values are known.

Quantization adds quantize and dequantize nodes to a graph and changes no shape of it, so that each node's value is the one
that the program it came from says, and those of the new nodes follow from their inputs. ``torch.export`` would run every
node again to learn the same: a second for a small net, and for a recurrent one a cell's operations for every time step.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from edgeopt.compress.attributes import attribute
from edgeopt.compress.normalize import mutates
from edgeopt.core.spec import TensorSpec
from edgeopt.model.copies import copied_graph, program_of

__all__ = ["lift"]

_QUANTIZE, _DEQUANTIZE = "quantized_decomposed.quantize_per_", "quantized_decomposed.dequantize_per_"
_Spec = TypeVar("_Spec", InputSpec, OutputSpec)


def lift(model: GraphModule, original: ExportedProgram, inputs: Sequence[TensorSpec]) -> ExportedProgram | None:
    """The program that computes what ``model`` does, with the inputs, outputs and dynamic sizes of ``original``.

    Args:
        model: ``original`` as a module, of whose calls none changes the shape of a value; read only. Tensors are shared.
        original: Read only.
        inputs: Of the model, in order.

    Returns:
        None where that cannot be told without tracing: a graph that changes its inputs or buffers, or that has other parts
        than calls of operations; an input of which a size is fixed that is dynamic in ``original``.
    """
    if not _is_plain(model, original) or _is_narrower(model, original, inputs):
        return None
    graph = copied_graph(model.graph)
    given = [node for node in graph.nodes if node.op == "placeholder"]
    results: Any = graph.output_node().args[0]
    before = original.graph_signature
    user = [spec for spec in before.input_specs if spec.kind is InputKind.USER_INPUT]
    if len(given) != len(user) or len(results) != len(before.output_specs):
        return None
    mode = next((n.meta["val"].fake_mode for n in given if isinstance(n.meta.get("val"), FakeTensor)), None)
    if mode is None:
        return None
    for node, spec in zip(given, user, strict=True):
        node.name = spec.arg.name
    tensors = _lift_tensors(model, graph)
    if len({node.name for node in graph.nodes}) != len(graph.nodes):
        return None
    for node in graph.nodes:
        _set_value(node, mode, tensors)
    kept = model.state_dict(keep_vars=True)
    return program_of(
        original,
        graph,
        graph_signature=ExportGraphSignature(
            input_specs=[
                *(_tensor_spec(node, tensors[node], kept) for node in tensors),
                *(_renamed(spec, node) for spec, node in zip(user, given, strict=True)),
            ],
            output_specs=[_renamed(spec, node) for spec, node in zip(before.output_specs, results, strict=True)],
        ),
        module_call_graph=[copy.deepcopy(entry) for entry in original.module_call_graph if not entry.fqn],
        state_dict={name: value for name, value in tensors.values() if name in kept},
        constants={name: value for name, value in tensors.values() if name not in kept},
    )


def _is_plain(model: GraphModule, original: ExportedProgram) -> bool:
    before = original.graph_signature
    if before.buffers_to_mutate or before.user_inputs_to_mutate or before.input_tokens:
        return False
    return all(
        node.op in ("placeholder", "output")
        or (node.op == "get_attr" and isinstance(attribute(model, str(node.target)), torch.Tensor))
        or (node.op == "call_function" and not mutates(node))
        for node in model.graph.nodes
    )


def _is_narrower(model: GraphModule, original: ExportedProgram, inputs: Sequence[TensorSpec]) -> bool:
    """Whether the inputs have a size fixed that is dynamic in the graph, or symbols that the original does not know."""
    values = [node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder"]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if len(tensors) != len(inputs):
        return True
    size: Any  # an int, or a SymInt that torch's types do not tell from one
    for value, spec in zip(tensors, inputs, strict=True):
        for size, declared in zip(value.shape, spec.shape, strict=True):
            if isinstance(size, int):
                continue
            if isinstance(declared, int) or not size.node.expr.free_symbols <= original.range_constraints.keys():
                return True
    return False


def _lift_tensors(model: GraphModule, graph: Graph) -> dict[Node, tuple[str, torch.Tensor]]:
    """Make an input, before the others, of every tensor that the graph reads: its node → dotted name, tensor."""
    tensors: dict[Node, tuple[str, torch.Tensor]] = {}
    nodes: dict[str, Node] = {}
    first = next(iter(graph.nodes))
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        if name not in nodes:
            value = attribute(model, name)
            prefix = "p" if isinstance(value, torch.nn.Parameter) else "b"
            with graph.inserting_before(first):
                nodes[name] = graph.placeholder(f"{prefix}_{name.replace('.', '_')}")
            nodes[name].target = nodes[name].name  # "a.b" and "a_b" are two
            tensors[nodes[name]] = name, value
        node.replace_all_uses_with(nodes[name])
        if node is first:
            first = node.next
        graph.erase_node(node)
    return tensors


def _set_value(node: Node, mode: FakeTensorMode, tensors: Mapping[Node, tuple[str, torch.Tensor]]) -> None:
    """Give a node its fake value, where it has none of this mode."""
    if node in tensors:
        node.meta["val"] = mode.from_tensor(tensors[node][1], static_shapes=True)
    elif node.op == "call_function" and not _is_known(node, mode):
        with mode:
            node.meta["val"] = _value(node)


def _value(node: Node) -> Any:
    target: Any = node.target
    source: Any = node.args[0]
    if str(target).startswith(_QUANTIZE):
        return torch.empty_like(source.meta["val"], dtype=node.args[-1])  # type: ignore[arg-type]  # its last is its dtype
    if str(target).startswith(_DEQUANTIZE):
        of_a_weight = not str(source.target).startswith(_QUANTIZE)
        return torch.empty_like(source.meta["val"], dtype=torch.float32) if of_a_weight else source.args[0].meta["val"]
    arguments, named = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    return target(*arguments, **named)


def _is_known(node: Node, mode: FakeTensorMode) -> bool:
    if "val" not in node.meta:
        return False
    leaves = pytree.tree_leaves(node.meta["val"])
    return all(leaf.fake_mode is mode for leaf in leaves if isinstance(leaf, FakeTensor))


def _tensor_spec(node: Node, tensor: tuple[str, torch.Tensor], kept: Mapping[str, torch.Tensor]) -> InputSpec:
    name, value = tensor
    if isinstance(value, torch.nn.Parameter):
        return InputSpec(InputKind.PARAMETER, TensorArgument(name=node.name), name)
    return InputSpec(InputKind.BUFFER, TensorArgument(name=node.name), name, persistent=name in kept)


def _renamed(spec: _Spec, node: Any) -> _Spec:
    """The specification with the name of the node that it is of now; a constant has none."""
    if not isinstance(node, Node):
        return spec
    return dataclasses.replace(spec, arg=dataclasses.replace(spec.arg, name=node.name))
