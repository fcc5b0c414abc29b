"""ExecuTorch: the graph as a torch program, lowered to one ``.pte`` file; by XNNPACK for CPUs of any architecture."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import executorch as runner
from edgeopt.agent.runners.quiet import quietly
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.executorch_delegates import ELSEWHERE, Delegate, delegate_of, lower_elsewhere
from edgeopt.backends.executorch_qnn import SOC, lower_to_qnn
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import lint, predictions_left_out
from edgeopt.backends.support import (
    HostRunner,
    check_options,
    coverage_events,
    installed_version,
    require_installed,
    wrap,
)
from edgeopt.backends.torch_program.engine import batch_event, runner_ports
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["ExecuTorchBackend"]

HOW_TO_GET = "pip install 'edgeopt[executorch]'"
_ENTRY = "model.pte"
_OPTIONS: Mapping[str, type | tuple[type, ...]] = {"delegate": str, "soc": str}


class ExecuTorchBackend:
    """The ``executorch`` backend. An engine is ``model.pte``, at a fixed batch; one file serves x86 and ARM.

    The quantization is the graph's: its Q/DQ become ``quantized_decomposed`` ops at the same scales and zero points,
    which the XNNPACK partitioner takes into int8 kernels. What the partitioner leaves runs in ExecuTorch's portable
    kernels, in float; each such operation is an event.
    """

    name = "executorch"

    def available(self) -> Availability:
        """Whether it is installed."""
        return Availability(
            version=installed_version("executorch"),
            brings="PyTorch's own runtime for phones and boards: .pte files, int8 and float through XNNPACK",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and no rule says that the graph is refused or computed wrongly."""
        check_options(rules, _OPTIONS)
        delegate_of(rules.options)
        return predictions_left_out(lint(read_graph(graph), rules, target), self.name)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the torch program, lower it to XNNPACK, and read back what was lowered."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        check_options(rules, _OPTIONS)
        if (delegate := delegate_of(rules.options)) is not None:
            return _compile_elsewhere(graph, rules, directory, batch, delegate)
        with quietly():
            from edgeopt.backends.coverage.xnnpack import read_delegates  # noqa: PLC0415
            from edgeopt.backends.torch_program.build import build_program  # noqa: PLC0415
            from edgeopt.backends.torch_program.graph import read_plan  # noqa: PLC0415
            from edgeopt.backends.torch_program.placement import without_int8  # noqa: PLC0415

            causes = without_int8(read_plan(graph, batch, "ExecuTorch"), "XNNPACK")
            program = build_program(graph, batch, "ExecuTorch", stays_float=causes)
            edge, data = _lower(program.exported)
            report = read_delegates(edge, program, causes, version)
        path = directory / _ENTRY
        path.write_bytes(data)
        plan = program.plan
        engine = Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry=path.name,
            status="built",
            inputs=plan.inputs,
            outputs=program.outputs,
            options=runner_ports(plan.inputs, program.outputs, plan.dynamic_batch, rows=plan.rows),
            events=(
                *batch_event("ExecuTorch", batch, plan.dynamic_batch),
                *coverage_events("compile", plan.graph.quantized, report.coverage, report.coverage.how),
                *_outside(report.outside, report.delegates),
            ),
            coverage=report.coverage,
        )
        self.load(engine, 1).__exit__(None, None, None)  # a program that this very version cannot open is no engine
        return engine

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


_FLOAT16 = (Event(kind="note", stage="compile", message="The Hexagon computes this float32 graph in float16."),)


def _compile_elsewhere(graph: Path, rules: RuntimeRules, directory: Path, batch: int, delegate: Delegate) -> Engine:
    """Lower a float graph for hardware that is not here.

    Raises:
        BackendError: The graph is quantized: what this delegate makes of Q/DQ cannot be held against the graph here.
    """
    with quietly():
        from edgeopt.backends.torch_program.build import build_program  # noqa: PLC0415

        program = build_program(graph, batch, "ExecuTorch")
        plan = program.plan
        if plan.graph.quantized:
            raise BackendError(
                f"ExecuTorch's {delegate.title} delegate is given float graphs only.",
                got=f"{len(plan.graph.quantized)} quantized layers",
                fix="Use recipe fp32; int8 on phones: delegate xnnpack, or a Core ML or QNN target.",
            )
        is_qnn = delegate is ELSEWHERE["qnn"]
        lowered = (
            lower_to_qnn(graph, batch, str(rules.options.get("soc", SOC)))
            if is_qnn
            else lower_elsewhere(program, delegate)
        )
    (directory / _ENTRY).write_bytes(lowered.data)
    return Engine(
        runtime="executorch",
        runtime_version=installed_version("executorch") or "",
        directory=directory,
        entry=_ENTRY,
        status="not_built",
        why_not_built=delegate.not_run,
        inputs=plan.inputs,
        outputs=program.outputs,
        options=runner_ports(plan.inputs, program.outputs, plan.dynamic_batch, rows=plan.rows),
        next_command=delegate.next_command,
        events=(
            *batch_event("ExecuTorch", batch, plan.dynamic_batch),
            lowered.event(delegate),
            *(_FLOAT16 if is_qnn else ()),
        ),
    )


def _lower(exported: Any) -> tuple[Any, bytes]:
    """The edge program with its delegates, and the ``.pte`` file.

    Raises:
        BackendError: ExecuTorch refused it.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
        from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415

        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return edge, bytes(edge.to_executorch().buffer)
    except BackendError:
        raise
    except Exception as error:
        raise wrap("ExecuTorch cannot compile the graph.", error) from error


def _outside(outside: dict[str, str] | Any, delegates: int) -> tuple[Event, ...]:
    """One fall-back per operation outside the delegate, and one where that parts it."""
    events = [
        Event(
            kind="fallback",
            stage="compile",
            node=node,
            message=f"ExecuTorch runs {op.partition('.')[0]} outside XNNPACK, with its portable kernels.",
        )
        for node, op in outside.items()
    ]
    if delegates > 1:
        message = (
            f"The graph is parted into {delegates} XNNPACK delegates, by the operations that XNNPACK does not take."
        )
        events.append(Event(kind="note", stage="compile", message=message))
    return tuple(events)
