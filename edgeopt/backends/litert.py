"""LiteRT (TensorFlow Lite): the graph as a torch program, converted to one ``.tflite`` file, run with XNNPACK."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.agent.runners import litert as runner
from edgeopt.agent.runners.quiet import quietly
from edgeopt.backends.base import Availability, Finding
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

if TYPE_CHECKING:
    from edgeopt.backends.torch_program.build import TorchProgram

__all__ = ["LiteRtBackend"]

HOW_TO_GET = "pip install 'edgeopt[litert]'"


class LiteRtBackend:
    """The ``litert`` backend. An engine is ``model.tflite``, at a fixed batch; one file serves x86 and ARM.

    The quantization is the graph's: its Q/DQ go through litert-torch's PT2E path, which keeps scales and zero points;
    nothing is calibrated again (ai-edge-quantizer would). The file's inputs and outputs have the graph's own types.
    """

    name = "litert"

    def available(self) -> Availability:
        """Whether the converter and the runtime are installed."""
        version = installed_version("ai-edge-litert")
        converter = installed_version("litert-torch")
        return Availability(
            version=version if converter else None,
            brings="Google's runtime for phones and boards: .tflite files, int8 and float through XNNPACK",
            how_to_get=HOW_TO_GET,
            detail=f"litert-torch {converter}" if converter else "",
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and no rule says that the graph is refused or computed wrongly."""
        check_options(rules, {})
        return predictions_left_out(lint(read_graph(graph), rules, target), self.name)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the torch program, convert it, and read back what the file holds."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        check_options(rules, {})
        path = directory / "model.tflite"
        with quietly():
            from edgeopt.backends.coverage.litert import read_file  # noqa: PLC0415
            from edgeopt.backends.litert_file import with_ports  # noqa: PLC0415
            from edgeopt.backends.torch_program.build import build_program  # noqa: PLC0415
            from edgeopt.backends.torch_program.graph import read_plan  # noqa: PLC0415
            from edgeopt.backends.torch_program.placement import without_int8  # noqa: PLC0415

            read = read_plan(graph, batch, "LiteRT")
            causes = without_int8(read, "LiteRT")
            form = "rounded" if any(node.op == "QuantizeLinear" for node in read.nodes) else "integer"
            program = build_program(graph, batch, "LiteRT", stays_float=causes, weights=form)
            plan = program.plan
            path.write_bytes(with_ports(_convert(program), plan.inputs, program.outputs))
            coverage, outside = read_file(path, program, causes, version)
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
                *batch_event("LiteRT", batch, plan.dynamic_batch),
                *coverage_events("compile", plan.graph.quantized, coverage, coverage.how),
                *(
                    Event(
                        kind="fallback",
                        stage="compile",
                        node=node,
                        message=f"LiteRT runs {op} outside XNNPACK, with its built-in kernels.",
                    )
                    for node, op in outside.items()
                ),
            ),
            coverage=coverage,
        )
        self.load(engine, 1).__exit__(None, None, None)  # a file that this very version cannot open is no engine
        return engine

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _convert(program: TorchProgram) -> bytes:
    """The converter's file.

    Raises:
        BackendError: litert-torch refused the program.
    """
    try:
        import litert_torch  # noqa: PLC0415
        from litert_torch.quantize.pt2e_quantizer import (  # noqa: PLC0415
            PT2EQuantizer,
            get_symmetric_quantization_config,
        )
        from litert_torch.quantize.quant_config import QuantConfig  # noqa: PLC0415

        options: dict[str, Any] = {}
        if any(node.op == "QuantizeLinear" for node in program.plan.nodes):
            # The quantizer itself is never run: its configuration says that the program holds static Q/DQ.
            static = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
            options["quant_config"] = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(static))
        made = litert_torch.convert(program.module, program.example, enable_x64=True, **options)
        return bytes(made.model_content())
    except BackendError:
        raise
    except Exception as error:
        raise wrap("LiteRT's converter cannot take the graph.", error) from error
