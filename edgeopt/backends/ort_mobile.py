"""ONNX Runtime's mobile format: one ``.ort`` file, and the operators that a reduced build of the runtime needs."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import ort_mobile as runner
from edgeopt.agent.runners.contract import first_useful_line
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.ort import ort_file_coverage
from edgeopt.backends.graphs import copy_graph, read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.onnxruntime import HOW_TO_GET, session_config
from edgeopt.backends.support import HostRunner, check_options, coverage_events, installed_version, require_installed
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OrtMobileBackend"]

REPLAY = "session.enable_saved_runtime_optimizations"
_TIMEOUT_S = 1800
# The converter writes its tables in the order of a hash that is seeded with an address: without this, two runs give
# two files. Where the system forbids it (some containers, macOS), the files differ in that order and in nothing else.
_FIXED_ADDRESSES = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).personality(0x0040000)
except (AttributeError, OSError):
    pass
os.execv(sys.executable, [sys.executable, "-P", *sys.argv[1:]])
"""


class OrtMobileBackend:
    """The ``ort-mobile`` backend.

    The file is written in Runtime style for ARM: basic optimizations are applied, the others are saved and replayed
    on the phone, so one file serves every ARM core and leaves what NNAPI or Core ML want to take. Nothing in it is
    specific to this machine's CPU (a Fixed file made for amd64 fails on ARM). The replay is off by default in ONNX
    Runtime, and int8 stays unfused and slow without it: the session option is part of the engine's options.
    """

    name = "ort-mobile"

    def available(self) -> Availability:
        """Whether the converter is installed: it comes with onnxruntime."""
        return Availability(
            version=installed_version("onnxruntime", "onnxruntime-gpu"),
            brings=".ort files for ONNX Runtime on Android and iOS",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and what the rules find.

        Nothing else tells what runs in float: the converter does not, and no phone is here to ask.
        """
        _options(rules)
        return [finding for finding in lint(read_graph(graph), rules, target) if finding.severity != "note"]

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Convert in a process of its own, and keep the ``.ort`` file and the operator list."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        options = _options(rules)
        read = read_graph(graph)
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            source, made = Path(folder) / "in", Path(folder) / "out"
            source.mkdir()
            made.mkdir()
            copy_graph(read, source)
            _convert(source, made)
            _move(made / "model.with_runtime_opt.ort", directory / "model.ort")
            config = (made / "required_operators_and_types.with_runtime_opt.config").read_text()
            # The first line is a comment with the command's date or paths in some versions.
            lines = [line for line in config.splitlines() if not line.startswith("#")]
            (directory / "required_operators.config").write_text("\n".join(lines) + "\n")
        coverage = ort_file_coverage(directory / "model.ort", options, read, version)
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry="model.ort",
            status="built",
            inputs=read.inputs,
            outputs=read.outputs,
            options=options,
            events=(
                Event(
                    kind="note",
                    stage="compile",
                    message=f"The .ort file replays its saved optimizations only with the session option {REPLAY}=1.",
                ),
                *coverage_events("compile", read.quantized, coverage, f"ONNX Runtime {version} on this machine"),
            ),
            coverage=coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process, with the desktop build of the same runtime."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _options(rules: RuntimeRules) -> dict[str, Any]:
    config = session_config(rules)  # spinning is off: it empties a battery
    check_options(rules, {}, others=config)
    return {
        "providers": ["CPUExecutionProvider"],
        "graph_optimization_level": "all",
        "disabled_optimizers": [],
        "config": config | {REPLAY: "1"},
    }


def _convert(source: Path, made: Path) -> None:
    """Run ONNX Runtime's own converter.

    Raises:
        BackendError: It failed, or took longer than half an hour.
    """
    # --optimization_style takes all words up to the next flag: it must not stand before the folder.
    arguments = ["--optimization_style", "Runtime", "--target_platform", "arm", "--enable_type_reduction"]
    arguments += ["--output_dir", str(made), str(source)]
    command = [sys.executable, "-P", "-c", _FIXED_ADDRESSES, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
    command += arguments
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORT_CONVERT_")}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError("ONNX Runtime's converter did not end within half an hour.") from error
    if done.returncode != 0:
        # The exception is the last line; the lines above it are the traceback.
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise BackendError("ONNX Runtime cannot convert the graph to the .ort format.", got=first_useful_line(said))


def _move(source: Path, destination: Path) -> None:
    if not source.is_file():
        raise BackendError("ONNX Runtime's converter wrote no .ort file.", got=source.name)
    destination.write_bytes(source.read_bytes())
