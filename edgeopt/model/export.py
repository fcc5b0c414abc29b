"""From a module, or a program exported before, to one in eval mode whose batch is dynamic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from edgeopt.core.errors import ModelError
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec
from edgeopt.model.agreement import disagreement
from edgeopt.model.examples import concrete_shape, example_inputs
from edgeopt.model.failures import export_failure, first_line, user_line
from edgeopt.model.quiet import quiet
from edgeopt.model.rebatch import STRATEGIES, Rebatched, Strategy, name_inputs
from edgeopt.model.signature import is_flat, program_inputs
from edgeopt.model.torchscript import convert_script
from edgeopt.model.training import training_switches, turn_to_eval

__all__ = ["BATCH", "export_module", "export_script", "refine_program", "sharing_batch"]

BATCH = "batch"
_STAGE = "load"
_RARE = 7

Exported = tuple[ExportedProgram, tuple[Event, ...]]


def export_module(module: torch.nn.Module, specs: Sequence[TensorSpec]) -> Exported:
    """Export a module in eval mode, with a dynamic batch wherever it allows one.

    Args:
        module: Is left as it was, its training flags included.
        specs: One per tensor of its forward, in order. A batch given as a number is the one to fall back to.

    Raises:
        ModelError: torch.export cannot take it (the offending line and two ways out), or the user named a batch that
            the module cannot vary.
    """
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        return _export(module, specs)
    finally:
        for part, flag in training.items():
            part.training = flag


def refine_program(program: ExportedProgram) -> Exported:
    """Bring a program that was exported elsewhere into eval mode, with plain tensor inputs and a dynamic batch.

    Raises:
        ModelError: An input is not a tensor.
    """
    events: tuple[Event, ...] = ()
    if not is_flat(program):
        program = _flattened(program)
    switches = training_switches(program.graph)
    if switches:
        program = _in_eval_mode(program)
        events = (_training_event(switches),)
    specs = program_inputs(program)
    if any(spec.has_dynamic_batch for spec in specs) or not sharing_batch(specs):
        return program, events
    refined, more = _rebatched(program, specs)
    return refined, (*events, *more)


def export_script(script: torch.jit.ScriptModule, specs: Sequence[TensorSpec]) -> Exported:
    """Convert a TorchScript module, and make its batch dynamic wherever it gives the same rows.

    Raises:
        ModelError: It cannot be converted, or the user named a batch that it cannot vary.
    """
    sharing = sharing_batch(specs)
    batch = concrete_shape(specs)[sharing[0]][0] if sharing else 1
    reason = "it has no input with a batch"
    if sharing:
        # Traced with a size that is hardly anything else in a network, every such literal is the batch.
        fixed = [spec.with_batch(_RARE) if at in sharing else spec for at, spec in enumerate(specs)]
        try:
            traced = convert_script(script, fixed, batch=_RARE, sharing=sharing)
        except ModelError as error:
            reason = error.what
        else:
            found = _follow_batch(traced, specs, sharing, traced_with=_RARE, reference=script, batch=batch)
            if isinstance(found, ExportedProgram):
                return _out_of_training(found)
            reason = found
    module = convert_script(script, specs, batch=batch, sharing=sharing)
    if sharing and specs[sharing[0]].has_dynamic_batch:
        raise _fixed_batch(specs[sharing[0]], reason)
    program, events = _out_of_training(_trace(_named(module, specs, batch), specs, ()))
    return program, (*events, _static_event(batch, reason)) if sharing else events


def sharing_batch(specs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """The positions of the inputs whose first dimension is that of the first input that has one."""
    first = next((spec.batch for spec in specs if spec.batch is not None), None)
    return tuple(at for at, spec in enumerate(specs) if spec.batch is not None and spec.batch == first)


def _export(module: torch.nn.Module, specs: Sequence[TensorSpec]) -> Exported:
    sharing = sharing_batch(specs)
    batch = concrete_shape(specs)[sharing[0]][0] if sharing else 1
    named = bool(sharing) and specs[sharing[0]].has_dynamic_batch
    reason = "it has no input with a batch"
    for candidate in dict.fromkeys((sharing, sharing[:1])) if sharing else ():
        try:
            program = _trace(module, specs, candidate)
        except Exception as error:  # noqa: BLE001  torch.export raises whatever the user's code raises
            line = user_line(error)
            reason = f"{first_line(error)}" + (f", at {line}" if line else "")
            continue
        program, events = _out_of_training(program)
        call = program.module(check_guards=False)
        against = module if not events else _trace_call(module, specs, batch, candidate)
        difference = disagreement(against, call, specs, batch=batch, sharing=candidate)
        if difference is None:
            return program, events
        reason = difference
    try:
        program = _trace(module, specs, ())
    except Exception as error:
        _refuse_wrong_shapes(module, specs)
        raise export_failure(error) from error
    if named:
        raise _fixed_batch(specs[sharing[0]], reason)
    program, events = _out_of_training(program)
    return program, (*events, _static_event(batch, reason)) if sharing else events


def _refuse_wrong_shapes(module: torch.nn.Module, specs: Sequence[TensorSpec]) -> None:
    """Say so where the module itself, without any export, fails on such inputs."""
    inputs = example_inputs(specs)
    try:
        with torch.no_grad():
            module(*inputs)
    except Exception as error:
        line = user_line(error)
        raise ModelError(
            f"The model itself fails on such inputs ({type(error).__name__}: {first_line(error)})"
            + (f", at {line}." if line else "."),
            got=", ".join(f"{spec.name} of shape {tuple(i.shape)}" for spec, i in zip(specs, inputs, strict=True)),
            fix="Check --input: number and order of the inputs, their dtypes and shapes; "
            "give a fixed batch as a number.",
        ) from error


def _trace(module: torch.nn.Module, specs: Sequence[TensorSpec], sharing: Sequence[int]) -> ExportedProgram:
    dims: dict[str, Any] = {}
    shapes: list[dict[int, Any]] = []
    for at, spec in enumerate(specs):
        # A name is the user's word that the dimension varies; the batch varies where this trial says so.
        axes: dict[int, Any] = {
            axis: dims.setdefault(dim, Dim(dim, min=1))
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and not (axis == 0 and at in sharing)
        }
        if at in sharing:
            axes[0] = dims.setdefault(BATCH, Dim(BATCH, min=1))
        shapes.append(axes)
    # One row would be taken for a constant: torch specializes sizes of 0 and 1.
    inputs = example_inputs(specs, batch=2 if sharing else None, sharing=sharing)
    static = not any(shapes)
    return _export_once(module, inputs, None if static else tuple(shapes))


def _export_once(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], shapes: Any) -> ExportedProgram:
    with quiet(), torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


def _trace_call(
    module: torch.nn.Module, specs: Sequence[TensorSpec], batch: int, sharing: Sequence[int]
) -> Callable[..., Any]:
    """A static program of the module, turned to eval: the reference where the module itself stays random."""
    inputs = example_inputs(specs, batch=batch, sharing=sharing)
    program, _ = _out_of_training(_export_once(module, inputs, None))
    return program.module(check_guards=False)


def _out_of_training(program: ExportedProgram) -> Exported:
    switches = training_switches(program.graph)
    if not switches:
        return program, ()
    return _in_eval_mode(program), (_training_event(switches),)


def _in_eval_mode(program: ExportedProgram) -> ExportedProgram:
    module = _graph_module(program)
    turn_to_eval(module)
    return _again(program, module)


def _again(program: ExportedProgram, module: torch.nn.Module) -> ExportedProgram:
    """Export ``module``, made from ``program``, with the dynamic dimensions that the program has."""
    specs = program_inputs(program)
    names: dict[str, Any] = {}
    shapes = [
        {axis: names.setdefault(dim, Dim.DYNAMIC) for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for spec in specs
    ]
    dynamic = tuple(shapes) if any(shapes) else None
    try:
        return _export_once(module, example_inputs(specs), dynamic)
    except Exception as error:
        raise export_failure(error, "The exported program cannot be traced again.") from error


class _Flattened(torch.nn.Module):
    """Calls a module of nested inputs with its tensors in order."""

    def __init__(self, module: torch.nn.Module, spec: pytree.TreeSpec, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module

        def forward(*inputs: torch.Tensor) -> Any:
            args, kwargs = pytree.tree_unflatten(list(inputs), spec)
            return self.module(*args, **kwargs)

        name_inputs(self, forward, names)


def _flattened(program: ExportedProgram) -> ExportedProgram:
    spec = program.call_spec.in_spec
    if spec is None:
        raise ModelError("The exported program does not say how it is called.", fix="Export and save it again.")
    names = [spec.name for spec in program_inputs(program)]
    return _again(program, _Flattened(program.module(check_guards=False), spec, names))


def _rebatched(program: ExportedProgram, specs: Sequence[TensorSpec]) -> Exported:
    module = _graph_module(program)
    everyone = sharing_batch(specs)
    batch = concrete_shape(specs)[everyone[0]][0]
    reason = ""
    for sharing in dict.fromkeys((everyone, everyone[:1])):
        found = _follow_batch(module, specs, sharing, traced_with=batch, reference=module, batch=batch)
        if isinstance(found, ExportedProgram):
            return found, (_dynamic_event(batch),)
        reason = reason or found
    return program, (_static_event(batch, reason),)


def _follow_batch(
    module: fx.GraphModule,
    specs: Sequence[TensorSpec],
    sharing: Sequence[int],
    *,
    traced_with: int,
    reference: Callable[..., Any],
    batch: int,
) -> ExportedProgram | str:
    """Export a traced module again with a dynamic batch, or say why its outputs are not those of ``reference``."""
    reason = ""
    for strategy in STRATEGIES[traced_with == 1]:
        candidate = _named(module, specs, traced_with, position=sharing[0], is_batch=strategy)
        try:
            program = _trace(candidate, specs, sharing)
        except Exception as error:  # noqa: BLE001  torch.export raises whatever the graph raises
            line = user_line(error)
            reason = first_line(error) + (f", at {line}" if line else "")
            continue
        difference = disagreement(reference, program.module(check_guards=False), specs, batch=batch, sharing=sharing)
        if difference is None:
            _keep_origins(module.graph, program.graph)
            return program
        reason = difference
    return reason


def _keep_origins(old: fx.Graph, new: fx.Graph) -> None:
    """Let the nodes of ``new`` say which layer and which line they come from, as those of ``old`` did."""
    known = {node.name: node for node in old.nodes}
    for node in new.nodes:
        before = known.get(node.name)
        if node.op == "call_function" and before is not None and before.target == node.target:
            for key in ("nn_module_stack", "stack_trace", "torch_fn"):
                if key in before.meta:
                    node.meta[key] = before.meta[key]


def _named(
    module: fx.GraphModule,
    specs: Sequence[TensorSpec],
    batch: int,
    *,
    position: int = 0,
    is_batch: Strategy = STRATEGIES[True][0],
) -> Rebatched:
    names = [spec.name for spec in specs]
    return Rebatched(module, batch=batch, names=names, position=position, is_batch=is_batch)


def _graph_module(program: ExportedProgram) -> fx.GraphModule:
    module = program.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise TypeError(type(module).__name__)
    return module


def _fixed_batch(spec: TensorSpec, reason: str) -> ModelError:
    return ModelError(
        f"The model cannot take a batch of any size: {reason.rstrip('.')}.",
        got=str(spec),
        fix=f"Give the batch as a number, for example {spec.with_batch(1)}.",
    )


def _training_event(switches: list[str]) -> Event:
    shown = ", ".join(switches[:5]) + (", …" if len(switches) > 5 else "")
    return Event(
        kind="warning",
        stage=_STAGE,
        message=f"The model was exported in training mode ({shown}); it was switched to inference. "
        "Call model.eval() before exporting.",
        node=switches[0],
    )


def _static_event(batch: int, reason: str) -> Event:
    return Event(
        kind="fallback", stage=_STAGE, message=f"The batch stays fixed at {batch}: made dynamic, {reason.rstrip('.')}."
    )


def _dynamic_event(batch: int) -> Event:
    return Event(
        kind="note",
        stage=_STAGE,
        message=f"The model was exported for a batch of {batch}; it was traced again with a dynamic batch, and gives "
        "the same outputs row by row.",
    )
