"""N:M sparse weights of a program: made by magnitude, found again in a student, followed to the layers that read them.

The groups lie along the input channels: of a convolution's weight [O, I, kh, kw] each output channel and each position of
the kernel has I / M groups, of a linear layer's [O, I] each output has. That is what TensorRT looks for before it takes a
sparse kernel (NVIDIA TensorRT documentation, Structured Sparsity: for each output channel and each spatial pixel of the
kernel, every four input channels have at least two zeros). By magnitude, then trained on: A. Mishra et al. 2021,
"Accelerating Sparse Deep Neural Networks", section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute, source_name
from edgeopt.compress.base import LayerDecision, StepContext, StepResult
from edgeopt.compress.layer_names import check_patterns
from edgeopt.compress.layers import named_layers
from edgeopt.compress.macs import multiplications
from edgeopt.compress.normalize import CONVS, normalize
from edgeopt.compress.program_state import with_state
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event, EventKind
from edgeopt.core.fingerprint import hash_json
from edgeopt.core.sparsity import Pattern, SparseWeight
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Sparsify

__all__ = ["nm_mask", "sparse_nodes", "sparsify_program", "student_masks"]

_JUDGED = ("conv", "conv_transpose", "linear", "recurrent")
_WEIGHTED = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "baddbmm")
_MOVES = ("t", "transpose", "permute", "expand", "view", "clone", "detach")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A layer; ``why``: why it is left dense, empty where it is not. ``parameter`` and ``axis``: of its weight."""

    name: str
    op: str
    node: Node
    why: str
    parameter: str = ""
    axis: int = 1


def nm_mask(weight: torch.Tensor, pattern: Pattern, axis: int) -> torch.Tensor:
    """True at the ``kept`` largest magnitudes of each group along ``axis``, the first of equal ones; bool, as ``weight``.

    Args:
        weight: float; its length along ``axis`` is a multiple of the pattern's group.
    """
    magnitude = weight.detach().abs().movedim(axis, -1)
    groups = magnitude.reshape(*magnitude.shape[:-1], -1, pattern.group)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., : pattern.kept], value=True)
    return mask.reshape(magnitude.shape).movedim(-1, axis).contiguous()


def sparsify_program(model: TrainedModel, config: Sparsify, context: StepContext) -> StepResult:
    """Zero the smallest weights of every group; ``SparsifyStep.run`` has checked that there is a program.

    Raises:
        RecipeError: A pattern of ``skip`` matches no layer, or no layer can be made sparse.
    """
    program, pattern = model.program, Pattern.read(config.pattern)
    if program is None:
        raise TypeError("SparsifyStep.run passes a program")
    graph = normalize(program, split_attention=False)
    parameters = {name: value for name, value in program.state_dict.items() if isinstance(value, torch.nn.Parameter)}
    layers = _judge(graph, parameters, config, pattern)
    sparse = {layer.parameter: SparseWeight(pattern=str(pattern), axis=layer.axis) for layer in layers if not layer.why}
    if not sparse:
        raise RecipeError(
            f"There is no layer that could be made {pattern} sparse.",
            got="; ".join(f"{layer.name}: {layer.why}" for layer in layers[:5]) or "a model without weighted layers",
            fix="Leave the sparsify step out.",
        )
    masked = {name: parameters[name] * nm_mask(parameters[name], pattern, one.axis) for name, one in sparse.items()}
    # A tied weight has several names.
    places = {parameters[name].data_ptr(): value for name, value in masked.items()}
    values = {name: places[p.data_ptr()] for name, p in parameters.items() if p.data_ptr() in places}
    zeros, total = (sum(f(value) for value in masked.values()) for f in (lambda v: int((v == 0).sum()), torch.numel))
    return StepResult(
        model=dataclasses.replace(
            model,
            program=with_state(program, values),
            sparse={**model.sparse, **sparse},
            identity=hash_json(
                {
                    "model": model.identity,
                    "step": {"sparsify": config.model_dump(mode="json")},
                    "seed": context.seed,
                }
            ),
        ),
        decisions=tuple(
            LayerDecision(
                name=layer.name, op=layer.op, precision="float", reason=layer.why or f"{pattern} sparse", node=None
            )
            for layer in layers
        ),
        events=tuple(_events(layers, pattern, multiplications(graph))),
        stats={
            "pattern": str(pattern),
            "layers": len(layers),
            "layers_sparse": sum(not layer.why for layer in layers),
            "zeros_pct": 100 * zeros / total,
        },
    )


def student_masks(
    graph: GraphModule, sparse: Mapping[str, SparseWeight], names: Mapping[str, str], *, normalized: bool = False
) -> dict[str, torch.Tensor]:
    """Masks of a student's sparse parameters, as ``Job.masks`` has them.

    Args:
        graph: What the student was made from, its weights as they are at the start.
        sparse: The model's.
        names: Name of a tensor in the graph → in the student; what the student does not read is left out.
        normalized: Whether ``graph`` went through ``normalize``, where every weight has its input channels on axis 1.
    """
    masks = {}
    for node in graph.graph.nodes:
        one = sparse.get(source_name(node)) if node.op == "get_attr" else None
        if one is not None and str(node.target) in names:
            axis = 1 if normalized else one.axis
            masks[names[str(node.target)]] = nm_mask(
                attribute(graph, str(node.target)), Pattern.read(one.pattern), axis
            )
    return masks


def sparse_nodes(model: TrainedModel) -> dict[str, str]:
    """The fx node of each layer of the model's program whose weight is sparse → its pattern."""
    program, found = model.program, {}
    if program is None:
        return {}
    known = program.graph_signature.inputs_to_parameters
    inputs = {known[n.name]: n for n in program.graph.nodes if n.op == "placeholder" and n.name in known}
    for name, one in model.sparse.items():
        reading = one.nodes or (tuple(_readers(inputs[name])) if name in inputs else ())
        found.update(dict.fromkeys(reading, one.pattern))
    return found


def _readers(source: Node) -> Iterator[str]:
    for user in source.users:
        parts = str(user.target).split(".")
        if parts[0] != "aten" or len(parts) < 2:
            continue
        if parts[1].startswith(_WEIGHTED):
            yield user.name
        elif parts[1] in _MOVES:
            yield from _readers(user)


def _judge(
    graph: GraphModule, parameters: Mapping[str, torch.Tensor], config: Sparsify, pattern: Pattern
) -> list[_Judged]:
    found = [(node, op, name) for node, op, name in named_layers(graph) if op in _JUDGED]
    check_patterns("the sparsify step's skip", config.skip, [name for _, _, name in found])
    layers = []
    for node, op, name in found:
        skip = next((p for p in config.skip if fnmatchcase(name, p)), None)
        why = f"skipped by the recipe ({skip!r})" if skip is not None else _why_dense(graph, node, op, pattern)
        parameter, axis = ("", 1) if why else _place(graph, node, parameters)
        if not why and not parameter:
            why = "its weight is no parameter, but computed from others"
        layers.append(_Judged(name=name, op=op, node=node, why=why, parameter=parameter, axis=axis))
    return _without_shared(graph, parameters, layers)


def _why_dense(graph: GraphModule, node: Node, op: str, pattern: Pattern) -> str:
    if op not in ("conv", "linear"):
        return "no runtime has sparse kernels for it"
    if op == "conv" and node.target not in CONVS:
        return "3-D convolutions are left dense"
    source: Any = node.args[1]
    if not isinstance(source, Node) or source.op != "get_attr":
        return "its weight is computed from the input"
    groups = int(str(node.args[6])) if op == "conv" and len(node.args) > 6 else 1
    if groups > 1:
        return "sparse kernels take no grouped or depthwise convolution"
    inputs = attribute(graph, str(source.target)).shape[1]
    return f"its {inputs} input channels are no multiple of {pattern.group}" if inputs % pattern.group else ""


def _place(graph: GraphModule, node: Node, parameters: Mapping[str, torch.Tensor]) -> tuple[str, int]:
    """The parameter that a layer's weight is, and the axis of its input channels; no name where it is none as it stands."""
    source: Any = node.args[1]
    name, weight = source_name(source), attribute(graph, str(source.target))
    parameter = parameters.get(name)
    if parameter is None or not parameter.is_floating_point():
        return "", 1
    if parameter.shape == weight.shape and torch.equal(parameter, weight):
        return name, 1
    if parameter.ndim == 2 and parameter.T.shape == weight.shape and torch.equal(parameter.T, weight):
        return name, 0
    return "", 1


def _without_shared(
    graph: GraphModule, parameters: Mapping[str, torch.Tensor], layers: Sequence[_Judged]
) -> list[_Judged]:
    """Leave dense what is also read by something that is not sparse: an embedding, a layer that is skipped."""
    places = {name: value.data_ptr() for name, value in parameters.items()}
    readers: dict[int, set[tuple[str, int]]] = {}
    for node in graph.graph.nodes:
        place = places.get(source_name(node)) if node.op == "get_attr" else None
        if place is not None:
            for user in node.users:
                readers.setdefault(place, set()).update((user.name, i) for i, a in enumerate(user.args) if a is node)
    sparse: dict[int, set[tuple[str, int]]] = {}
    for layer in layers:
        if not layer.why:
            sparse.setdefault(places[layer.parameter], set()).add((layer.node.name, 1))
    kept = []
    for layer in layers:
        others = () if layer.why else readers[places[layer.parameter]] - sparse[places[layer.parameter]]
        why = f"its weight is shared with {min(others)[0]}, which is not sparse" if others else layer.why
        kept.append(dataclasses.replace(layer, why=why))
    return kept


def _events(layers: Sequence[_Judged], pattern: Pattern, counts: Mapping[str, int]) -> Iterator[Event]:
    made = [layer for layer in layers if not layer.why]
    whole = sum(counts.values())
    share = (
        f", {100 * sum(counts.get(x.node.name, 0) for x in made) / whole:.1f} % of the multiplications" if whole else ""
    )
    message = f"{len(made)} of {len(layers)} layers are {pattern} sparse{share}."
    yield Event(kind="note", stage="sparsify", message=message)
    dense: dict[str, list[str]] = {}
    for layer in layers:
        if layer.why:
            dense.setdefault(layer.why, []).append(layer.name)
    for why, names in dense.items():
        kind: EventKind = "note" if why.startswith("skipped") else "fallback"
        yield Event(kind=kind, stage="sparsify", message=f"{', '.join(names)} left dense: {why}.")
