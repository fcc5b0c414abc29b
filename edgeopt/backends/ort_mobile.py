"""ONNX Runtime's mobile format: one ``.ort`` file, and the operators that a reduced build of the runtime needs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import ort_mobile as runner
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.ort import ort_file_coverage
from edgeopt.backends.graphs import copy_graph, read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.onnxruntime import HOW_TO_GET, session_config
from edgeopt.backends.ort_mobile_tools import check_usability, convert, parse_usability
from edgeopt.backends.static_batch import fix_batch
from edgeopt.backends.support import HostRunner, check_options, coverage_events, installed_version, require_installed
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OPTIONS", "REPLAY", "OrtMobileBackend"]

REPLAY = "session.enable_saved_runtime_optimizations"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {"style": str, "static_batch": bool, "blocked": bool, "threads": int}
"""``style``: ``runtime`` or ``fixed``. ``static_batch``: fix the batch, which NNAPI and Core ML need to take a node.
``blocked``: in Fixed style for x86-64, the layout of this machine's vectors. ``threads``: what an app should use."""
_STYLES = ("runtime", "fixed")
_PLATFORMS = {"aarch64": "arm", "x86_64": "amd64"}
_MOST_THREADS = 64


class OrtMobileBackend:
    """The ``ort-mobile`` backend.

    Runtime style (the default): basic optimizations are applied, the others are saved and replayed on the phone, so
    one file serves every CPU of its architecture and leaves what NNAPI or Core ML want to take. The replay is off by
    default in ONNX Runtime, and int8 stays unfused and slow without it: the session option is part of the engine's
    options. Fixed style: all optimizations are applied now. It opens faster and needs no session option; a provider
    that takes nodes by their ONNX names finds fused ones. Nothing in either is specific to this machine's CPU unless
    ``blocked`` asks for it (a Fixed file in the blocked layout fails on ARM).
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
        _options(target, rules)
        return [finding for finding in lint(read_graph(graph), rules, target) if finding.severity != "note"]

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Convert in a process of its own; keep the ``.ort`` file, the operator list and the usability report."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        options = _options(target, rules)
        read = read_graph(graph)
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            source, made = Path(folder) / "in", Path(folder) / "out"
            source.mkdir()
            made.mkdir()
            copy_graph(read, source)
            if rules.options.get("static_batch"):
                read = fix_batch(read, source / "model.onnx", batch, "A mobile model with static_batch")
            done = convert(
                source,
                made,
                style=options["style"],
                platform=options["platform"],
                blocked=bool(rules.options.get("blocked")),
            )
            (directory / "model.ort").write_bytes(done.model.read_bytes())
            (directory / "required_operators.config").write_text(done.operators)
            said = check_usability(source)
            (directory / "mobile_usability.txt").write_text(said)
        coverage = ort_file_coverage(directory / "model.ort", options, read, version)
        where = f"ONNX Runtime {version} on this machine"
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry="model.ort",
            status="built",
            inputs=read.inputs,
            outputs=read.outputs,
            options=options,
            events=_events(options, said, blocked=bool(rules.options.get("blocked")))
            + coverage_events("compile", read.quantized, coverage, where),
            coverage=coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process, with the desktop build of the same runtime."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _options(target: Target, rules: RuntimeRules) -> dict[str, Any]:
    """What an app sets and what the file is: session options, style, architecture, threads.

    Raises:
        BackendError: An option is unknown, malformed, or contradicts another.
    """
    config = session_config(rules)  # spinning is off: it empties a battery
    given = check_options(rules, OPTIONS, others=config)
    style, platform = given.get("style", "runtime"), _PLATFORMS[target.isa.arch]
    if style not in _STYLES:
        fix = f"Use one of {', '.join(_STYLES)}."
        raise BackendError("ONNX Runtime's mobile format has no such style.", got=repr(style), fix=fix)
    if given.get("blocked") and (style, platform) != ("fixed", "amd64"):
        raise BackendError(
            "The blocked layout exists in Fixed style for x86-64 alone.",
            got=f"blocked with style {style!r} for {target.isa.arch}",
            fix="Leave blocked out, or set style to 'fixed' in a target of x86-64.",
        )
    threads = given.get("threads")
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise BackendError(f"The option 'threads' must be between 1 and {_MOST_THREADS}.", got=threads)
    if style == "runtime":
        config |= {REPLAY: "1"}
    return {
        "style": style,
        "platform": platform,
        "providers": ["CPUExecutionProvider"],
        "graph_optimization_level": "all",
        "disabled_optimizers": [],
        "config": config,
    } | ({"threads": threads} if threads is not None else {})


def _events(options: Mapping[str, Any], usability: str, *, blocked: bool) -> tuple[Event, ...]:
    messages = [use.sentence() for use in parse_usability(usability)]
    if options["style"] == "runtime":
        messages.insert(0, f"The .ort file replays its saved optimizations only with the session option {REPLAY}=1.")
    notes = tuple(Event(kind="note", stage="compile", message=message) for message in messages)
    if not blocked:
        return notes
    message = "The .ort file holds the blocked layout of this machine's vectors: it fails on a CPU with other ones."
    return (*notes, Event(kind="warning", stage="compile", message=message))
