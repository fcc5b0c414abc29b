"""Core ML: the graph as a torch program, converted to an ``.mlpackage``; Apple's systems alone compile and run it."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeopt.agent.runners.quiet import quietly
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coreml_names import TARGETS, deployment_target, feature_names
from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.support import check_options, installed_version, refuse, require_installed
from edgeopt.core.engine import CONVERTED, Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["COMPILED", "NEXT_COMMAND", "NOT_RUN", "OPTIONS", "PACKAGE", "SCRIPT", "SETTINGS", "CoreMlBackend"]

HOW_TO_GET = "pip install 'edgeopt[coreml]'"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {"minimum_deployment_target": str}
PACKAGE, COMPILED, SETTINGS = "model.mlpackage", "model.mlmodelc", "coreml.json"
SCRIPT = Path(__file__).with_name("on_device") / "verify_coreml.py"
NEXT_COMMAND = f"python3 {SCRIPT.name}"
NOT_RUN = f"{CONVERTED}: needs macOS or iOS"


class CoreMlBackend:
    """The ``coreml`` backend: convert-only. The folder holds ``model.mlpackage`` and ``verify_coreml.py``.

    A package is a source form: Core ML compiles it to ``model.mlmodelc`` on the device, and chooses there which of CPU,
    GPU and Neural Engine computes what. So the engine is never ``built`` here, and nothing is measured.
    The quantization is the graph's: its Q/DQ become MIL's ``quantize`` and ``dequantize``, its weights int8 constants.
    The package is read back and held against the graph: every grid and every integer must be there unchanged.
    Precision is the graph's too: what is float32 in it stays so, what was converted to float16 computes in float16.
    """

    name = "coreml"

    def available(self) -> Availability:
        """Whether the converter is installed."""
        return Availability(
            version=installed_version("coremltools"),
            brings="Core ML packages for iOS and macOS: converted here, run on Apple's systems only",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and what the rules for Core ML find."""
        _options(rules)
        return _lint(read_graph(graph), target, rules)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the torch program, convert it, hold the package against the graph, and add what proves it on a Mac."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        minimum = _options(rules)
        read = read_graph(graph)
        read.require_batch_only("Core ML")
        refuse("Core ML", _lint(read, target, rules))
        with quietly():
            from edgeopt.backends.coreml_convert import write_package  # noqa: PLC0415
            from edgeopt.backends.coreml_folder import write_script  # noqa: PLC0415
            from edgeopt.backends.coreml_proof import hold_against  # noqa: PLC0415
            from edgeopt.backends.torch_program.build import build_program  # noqa: PLC0415

            program = build_program(graph, batch, "Core ML")
            plan = program.plan
            features = feature_names([*plan.inputs, *program.outputs])
            write_package(program, features, minimum, directory / PACKAGE)
            proof = hold_against(directory / PACKAGE, program, features)
            write_script(directory, program, features, minimum)
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry=COMPILED,
            status="not_built",
            why_not_built=NOT_RUN,
            inputs=plan.inputs,
            outputs=program.outputs,
            options={"features": features, "minimum_deployment_target": minimum},
            next_command=NEXT_COMMAND,
            events=(
                *_fixed_batch(batch, read),
                *_narrowed(read),
                Event(kind="note", stage="compile", message=proof.sentence(minimum)),
                Event(
                    kind="note",
                    stage="compile",
                    message=f"Converted by coremltools {version}, not run: needs macOS or iOS. On a Mac, in the engine's "
                    f"folder, {NEXT_COMMAND} runs the reference inputs and compares.",
                ),
            ),
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Refuse: only macOS and iOS run it.

        Raises:
            BackendError: Always.
        """
        raise BackendError(
            "A Core ML package runs on macOS and iOS only.",
            got=PACKAGE,
            fix=f"On a Mac, in the engine's folder: {NEXT_COMMAND}.",
        )


def _options(rules: RuntimeRules) -> str:
    """The oldest system that the package is for.

    Raises:
        BackendError: An option is unknown, or names no system that coremltools knows.
    """
    check_options(rules, OPTIONS)
    name = deployment_target(rules)
    if name not in TARGETS:
        raise BackendError(
            "Core ML has no such minimum_deployment_target.", got=repr(name), fix=f"Use one of {', '.join(TARGETS)}."
        )
    return name


def _lint(graph: Graph, target: Target, rules: RuntimeRules) -> list[Finding]:
    """Errors and warnings of Core ML's own rules; those for all runtimes are ``edgeopt lint``'s affair."""
    return [found for found in lint(graph, rules, target) if found.rule.startswith("CML") and found.severity != "note"]


def _fixed_batch(batch: int, graph: Graph) -> Iterator[Event]:
    if graph.dynamic_batch:
        message = f"The Core ML package takes batches of {batch} (export.batch); the graph takes any."
        yield Event(kind="note", stage="compile", message=message)


def _narrowed(graph: Graph) -> Iterator[Event]:
    """Says which inputs and outputs change their type: Core ML has no 64-bit integers."""
    names = [spec.name for spec in (*graph.inputs, *graph.outputs) if spec.dtype == "int64"]
    if names:
        message = f"Core ML has no int64: {', '.join(names)} {'is' if len(names) == 1 else 'are'} int32 in the package."
        yield Event(kind="note", stage="compile", message=message)
