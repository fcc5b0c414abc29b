"""FP16 or BF16 weights and activations, float32 inputs and outputs.

ONNX's own operator schemas decide, input by input, what may be of the narrow type: no list of operators to keep up to date.
onnxconverter-common 1.16 works with current onnx, but clamps constants to ±10⁴ and away from zero to 10⁻⁷ in silence (a
factor of 20,000 becomes one of 10,000); ONNX Runtime's converter lives in a runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.graph.float_range import FLOAT16, NarrowFloat, Reach
from edgeopt.graph.io import load_onnx, save_checked
from edgeopt.graph.passes.base import PassResult, run_passes
from edgeopt.graph.passes.opset import raise_opset
from edgeopt.graph.passes.tidy import Tidy
from edgeopt.graph.qdq import add_initializer, array_of

__all__ = ["convert_half", "narrow_nodes", "retype_attributes"]

_NOTABLE_LOSS = 0.01
_SINGLE = ir.DataType.FLOAT


def convert_half(
    source: Path,
    destination: Path,
    narrow: NarrowFloat = FLOAT16,
    *,
    keep_float32: Sequence[str] = (),
    reach: Mapping[str, Reach] | None = None,
    overflow: Literal["error", "keep_float32"] = "error",
) -> PassResult:
    """Write ``source`` with weights and activations of a narrow float type; graph inputs and outputs keep their types.

    A node stays in float32, behind casts, where ONNX does not define it for that type, where it is asked for, or where
    one of its constants has no such form: beyond its largest number, or a single one that would become zero (an epsilon).

    Args:
        keep_float32: ONNX operator types that stay in float32.
        reach: What the values of ``source`` reach on real data (``float_reach``); None: nothing is known of it.
        overflow: What becomes of the nodes that make or read a value beyond the type's largest: they stay in float32, each
            with an event, or the conversion is refused.

    Returns:
        The result, with one event for each node that stays in float32 for another reason than ``keep_float32``.

    Raises:
        GraphError: The graph has subgraphs (If, Loop, Scan); an operator type of ``keep_float32`` does not occur; or a
            value overflows and ``overflow`` is ``error``.
    """
    model = load_onnx(source)
    _refuse(model, keep_float32, narrow)
    _type_values(model, narrow)
    events: list[Event] = []
    beyond = {name: value.largest for name, value in (reach or {}).items() if value.largest > narrow.largest}
    wide = _wide_nodes(model, frozenset(keep_float32), beyond, events, narrow)
    if overflow == "error" and beyond:
        _refuse_overflow(wide, beyond, narrow)
    events += _losses(reach or {}, narrow)
    modified = _convert(model, wide, narrow.dtype)
    run_passes(model, [Tidy()])
    save_checked(model, destination)
    return PassResult(path=destination, modified=modified, events=tuple(events))


def narrow_nodes(model: ir.Model, nodes: Collection[ir.Node], narrow: NarrowFloat) -> bool:
    """Let ``nodes`` compute in a narrow float type, behind casts; ``model`` is changed.

    Those that ONNX does not define for the type, or whose constants have no such form, stay as they are.

    Returns:
        Whether any was converted.

    Raises:
        GraphError: An operator of the graph means something else at the opset that the type needs.
    """
    if not nodes:
        return False
    _type_values(model, narrow)
    chosen = {node for node in nodes if _obstacle(model, node, narrow) is None}
    return _convert(model, {node for node in model.graph if node not in chosen}, narrow.dtype)


def _type_values(model: ir.Model, narrow: NarrowFloat) -> None:
    """Raise the opset to where the type is defined, and give every value its type."""
    raise_opset(model, narrow.opset)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _refuse(model: ir.Model, keep_float32: Sequence[str], narrow: NarrowFloat) -> None:
    for node in model.graph:
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            raise GraphError(
                f"{node.op_type} holds a subgraph; edgeopt converts flat graphs to {narrow.name}.",
                got=node.name,
                fix="Compile it with the fp32 recipe, or export the model without data-dependent control flow.",
            )
    present = {node.op_type for node in model.graph}
    for op_type in keep_float32:
        if op_type not in present:
            raise GraphError(
                "keep_float32 names an operator that the graph does not have.",
                got=op_type,
                fix=f"It has {', '.join(sorted(present))}.",
            )


def _refuse_overflow(wide: set[ir.Node], beyond: Mapping[str, float], narrow: NarrowFloat) -> None:
    """Refuse a graph with values beyond the type that nothing keeps in float32.

    Raises:
        GraphError: There are such values.
    """
    found = [f"{name} ({largest:.3g})" for name, largest in beyond.items()]
    ops = {node.op_type for node in wide if _overflows(node, beyond)}
    raise GraphError(
        f"{len(found)} values of the graph are beyond {narrow.name}, which ends at {_ends(narrow)}, on the calibration data.",
        got=", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else ""),
        fix="Keep the nodes at them in float32 with --set steps.convert.overflow=keep_float32, or every "
        f"{' and '.join(sorted(ops))} with steps.convert.keep_float32.",
    )


def _overflows(node: ir.Node, beyond: Mapping[str, float]) -> str:
    """The first value at ``node`` that is beyond the type; empty where there is none."""
    return next((v.name for v in (*node.outputs, *node.inputs) if v is not None and v.name and v.name in beyond), "")


def _ends(narrow: NarrowFloat) -> str:
    """The largest number, to be read."""
    return f"{narrow.largest:.0f}" if narrow.largest < 1e6 else f"{narrow.largest:.3g}"


def _losses(reach: Mapping[str, Reach], narrow: NarrowFloat) -> list[Event]:
    """What rounds to zero: normal for the tails of a softmax, telling anywhere else."""
    lossy = sorted((value.lost, name) for name, value in reach.items() if value.lost > _NOTABLE_LOSS)
    if not lossy:
        return []
    share, name = lossy[-1]
    message = (
        f"In {len(lossy)} of {len(reach)} values more than {_NOTABLE_LOSS:.0%} of the elements round to zero in {narrow.name} "
        f"on the calibration data; most in {name} ({share:.1%})."
    )
    return [Event(kind="note", stage=narrow.name, message=message)]


def _wide_nodes(
    model: ir.Model, keep: frozenset[str], beyond: Mapping[str, float], events: list[Event], narrow: NarrowFloat
) -> set[ir.Node]:
    """The nodes that compute in float32."""
    wide = set()
    for node in model.graph:
        reason = None
        if node.op_type not in keep:
            value = _overflows(node, beyond)
            reason = (
                f"{value} reaches {beyond[value]:.3g} on the calibration data, {narrow.name} ends at {_ends(narrow)}"
                if value
                else _obstacle(model, node, narrow)
            )
            if reason is None:
                continue
            events.append(
                Event(
                    kind="fallback",
                    stage=narrow.name,
                    message=f"{node.op_type} stays in float32: {reason}.",
                    node=node.name,
                )
            )
        wide.add(node)
    return wide


def _obstacle(model: ir.Model, node: ir.Node, narrow: NarrowFloat) -> str | None:
    """Why ``node`` cannot compute in the type; None where it can, or where no float32 is involved."""
    if not any(value is not None and value.dtype == _SINGLE for value in (*node.inputs, *node.outputs)):
        return None
    types = _types(model, node)
    if types is None:
        return f"its definition (domain {node.domain or 'ai.onnx'}) is not known"
    for value, allowed in zip((*node.inputs, *node.outputs), types, strict=True):
        # an input that is float32 by definition (Resize's scales) stays so without the node
        if (
            value is not None
            and value.dtype == _SINGLE
            and len(allowed) > 1
            and f"tensor({narrow.name})" not in allowed
        ):
            return f"ONNX does not define it for {narrow.name}"
    for value in node.inputs:
        array = array_of(value)
        if value is None or array is None or array.dtype != np.float32 or not array.size:
            continue
        finite = np.abs(array[np.isfinite(array)])
        if finite.size and float(finite.max()) > narrow.largest:
            return f"constant {value.name} reaches {float(finite.max()):.3g}, {narrow.name} ends at {_ends(narrow)}"
        # a single number is an epsilon that keeps a division finite; a vector of such numbers is a bias of nothing
        if array.size == 1 and finite.any() and not finite.astype(narrow.dtype.numpy()).any():
            return f"constant {value.name} is {float(array.reshape(-1)[0]):.3g}, which is zero in {narrow.name}"
    return None


def _types(model: ir.Model, node: ir.Node) -> list[tuple[str, ...]] | None:
    """The types that the operator's schema allows for each input, then each output."""
    try:
        version = model.opset_imports.get(node.domain, 1)
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    constraints = {c.type_param_str: tuple(c.allowed_type_strs) for c in schema.type_constraints}

    def allowed(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> list[tuple[str, ...]]:
        # the last parameter of a variadic operator stands for all that follow
        chosen = [parameters[min(index, len(parameters) - 1)] for index in range(count)]
        return [constraints.get(parameter.type_str, (parameter.type_str,)) for parameter in chosen]

    return allowed(schema.inputs, len(node.inputs)) + allowed(schema.outputs, len(node.outputs))


def _convert(model: ir.Model, wide: set[ir.Node], half: ir.DataType) -> bool:
    """Give every float32 value its new type; ``model`` is changed. Returns whether anything changed."""
    graph = model.graph
    nodes = list(graph)
    made = [value for node in nodes if node not in wide for value in node.outputs if value.dtype == _SINGLE]
    for value in made:
        value.type = ir.TensorType(half)
    casts: dict[tuple[int, ir.DataType], ir.Value] = {}
    for node in nodes:
        if node not in wide:
            retype_attributes(node, _SINGLE, half)
        _convert_inputs(model, node, _SINGLE if node in wide else half, casts)
    ours = {id(value) for value in made}
    for index, output in enumerate(graph.outputs):
        if id(output) in ours:
            _restore_output(graph, index, output, half)
    return bool(made)


def _convert_inputs(
    model: ir.Model, node: ir.Node, wanted: ir.DataType, casts: dict[tuple[int, ir.DataType], ir.Value]
) -> None:
    types = _types(model, node)
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype not in (_SINGLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            continue
        # float32 by definition, e.g. Resize's scales
        target = _SINGLE if types is not None and types[index] == ("tensor(float)",) else wanted
        if value.dtype != target:
            node.replace_input_with(index, _as(model.graph, value, target, casts))


def _as(
    graph: ir.Graph, value: ir.Value, wanted: ir.DataType, casts: dict[tuple[int, ir.DataType], ir.Value]
) -> ir.Value:
    """``value`` as ``wanted``: a converted constant, or behind a Cast; made once per value."""
    key = (id(value), wanted)
    if key not in casts:
        name = f"{value.name}_{wanted.name.lower()}"
        array = array_of(value) if value.is_initializer() else None
        if array is not None:
            casts[key] = add_initializer(graph, name, array.astype(wanted.numpy()))
        else:
            casts[key] = _cast(graph, value, wanted, name)
    return casts[key]


def _cast(graph: ir.Graph, value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
    cast = ir.node("Cast", [value], {"to": wanted.value}, num_outputs=1, name=name)
    new = cast.outputs[0]
    new.name, new.shape, new.type = name, value.shape, ir.TensorType(wanted)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    return new


def _restore_output(graph: ir.Graph, index: int, value: ir.Value, half: ir.DataType) -> None:
    """The graph's output keeps its name and float32; the value behind it takes another name."""
    name = value.name
    value.name = f"{name}_{half.name.lower()}"
    cast = ir.node("Cast", [value], {"to": _SINGLE.value}, num_outputs=1, name=f"{name}_output")
    new = cast.outputs[0]
    new.name, new.shape, new.type = name, value.shape, ir.TensorType(_SINGLE)
    graph.append(cast)
    graph.outputs[index] = new


def retype_attributes(node: ir.Node, before: ir.DataType, after: ir.DataType) -> None:
    """What a node makes ``before`` by an attribute (``to`` of Cast, ``value`` of ConstantOfShape) it makes ``after``."""
    for key in ("to", "dtype"):
        if node.attributes.get_int(key, 0) == before.value:
            node.attributes[key] = ir.AttrInt64(key, after.value)
    attribute = node.attributes.get("value")
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        if tensor.dtype == before:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(tensor.numpy().astype(after.numpy())))
