"""What backends share: is a package here, are the options known, does a failed runtime give one clear error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgeopt.agent.runners.contract import BatchError, Ports, RunnerError, first_useful_line
from edgeopt.backends.base import Finding
from edgeopt.backends.graphs import Graph
from edgeopt.core.coverage import INT8, Coverage
from edgeopt.core.engine import Arrays
from edgeopt.core.errors import BackendError, nearest_first
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules

__all__ = [
    "HostRunner",
    "check_opset",
    "check_options",
    "coverage_events",
    "installed_version",
    "packed_events",
    "refuse",
    "require_installed",
    "wrap",
]


def installed_version(*distributions: str) -> str | None:
    """The version of the first of these distributions that is installed, or None. Imports nothing."""
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def require_installed(runtime: str, installed: str | None, how_to_get: str) -> str:
    """The version, or a refusal that says how to install it.

    Raises:
        BackendError: ``installed`` is None.
    """
    if installed is None:
        raise BackendError(f"The runtime {runtime} is not installed.", fix=f"Install it: {how_to_get}.")
    return installed


def check_opset(graph: Graph, rules: RuntimeRules, rule: str) -> list[Finding]:
    """An error where the graph's opset is newer than the target's runtime reads."""
    if graph.opset <= rules.opset_max:
        return []
    message = f"The graph has opset {graph.opset}; {rules.name} {rules.versions} reads up to {rules.opset_max}."
    return [Finding(severity="error", rule=rule, node=None, message=message)]


def check_options(
    rules: RuntimeRules, known: Mapping[str, type | tuple[type, ...]], others: Iterable[str] = ()
) -> dict[str, Any]:
    """The target's options for this runtime, every key known and of its type; ``others`` were checked elsewhere.

    Raises:
        BackendError: A key is unknown (the nearest known ones are listed) or its value has another type.
    """
    options = {key: value for key, value in rules.options.items() if key not in set(others)}
    for key, value in options.items():
        if key not in known:
            choices = ", ".join(nearest_first(key, known))
            raise BackendError(
                f"The target gives the runtime {rules.name} an option that it does not have.",
                got=repr(key),
                fix=f"Known: {choices}.",
            )
        kind = known[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # bool is an int to Python, not to a reader.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(each.__name__ for each in kinds)
            raise BackendError(
                f"The option {key!r} of the runtime {rules.name} must be of type {names}.", got=repr(value)
            )
    return options


def refuse(runtime: str, findings: Iterable[Finding]) -> None:
    """Stop where a finding is an error.

    Raises:
        BackendError: Listing every rule that was broken, each with its first node and how many more there are.
    """
    broken: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity == "error":
            broken.setdefault(finding.rule, []).append(finding)
    if broken:
        texts = []
        for rule, found in broken.items():
            place = f" at {found[0].node}" if found[0].node else ""
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            texts.append(f"{rule}{place}{more}: {found[0].message} {found[0].fix}".rstrip())
        raise BackendError(f"The runtime {runtime} cannot take this graph.", got=" ".join(texts).rstrip("."))


def packed_events(stage: str, packed: Iterable[str], left: Iterable[str], where: str) -> tuple[Event, ...]:
    """One note on how many nodes multiply by packed weights, and one fall-back for each that unpacks them first."""
    nodes, unpacked = list(packed), set(left)
    if not nodes:
        return ()
    missed = [node for node in nodes if node in unpacked]
    note = Event(
        kind="note",
        stage=stage,
        message=f"{len(nodes) - len(missed)} of {len(nodes)} layers with packed weights multiply by them as they are "
        f"stored, in float ({where}).",
    )
    message = f"Its packed weight is unpacked in every inference ({len(missed)} of {len(nodes)} such layers; {where})."
    return note, *(Event(kind="fallback", stage=stage, node=node, message=message) for node in missed)


def coverage_events(stage: str, quantized: Iterable[str], coverage: Coverage | None, where: str) -> tuple[Event, ...]:
    """One note on how many of the quantized nodes run in int8, and one fall-back for each that runs in float."""
    nodes = list(quantized)
    if not nodes or coverage is None:
        return ()
    runs_in = {op.node: op.runs_in for op in coverage.ops}
    inside = sum(runs_in.get(node) == INT8 for node in nodes)
    missed = [node for node in nodes if runs_in.get(node, "") not in (INT8, "")]
    note = Event(
        kind="note",
        stage=stage,
        message=f"{inside} of {len(nodes)} quantized convolutions and matrix products run in int8 ({where}).",
    )
    # The same sentence for each, so that a report can put them together.
    message = f"Quantized, but runs in float ({len(missed)} of {len(nodes)} quantized nodes; {where})."
    return note, *(Event(kind="fallback", stage=stage, node=node, message=message) for node in missed)


def wrap(what: str, error: BaseException) -> BackendError:
    """A runtime's exception as ours, with its own first useful line."""
    return BackendError(what, got=first_useful_line(error).rstrip("."))


class HostRunner:
    """An agent's runner in this process, its errors turned into ``BackendError``."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @classmethod
    def open(cls, open_runner: Any, path: Path, options: Mapping[str, Any], threads: int | None) -> Self:
        """Open with a runner file's ``open_runner``.

        Raises:
            BackendError: It refused.
        """
        try:
            return cls(open_runner(path, options, threads))
        except RunnerError as error:
            raise BackendError(str(error)) from error

    @property
    def inputs(self) -> Ports:
        """Name → (dtype, shape)."""
        ports: Ports = self._runner.inputs
        return ports

    @property
    def outputs(self) -> Ports:
        """Name → (dtype, shape)."""
        ports: Ports = self._runner.outputs
        return ports

    @property
    def fallbacks(self) -> list[str]:
        """What was asked for and is not there."""
        return list(self._runner.fallbacks)

    @property
    def version(self) -> str:
        """The runtime's version."""
        return str(self._runner.version)

    def infer(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            BackendError: The inputs are not the engine's, or the run failed.
        """
        try:
            results: dict[str, np.ndarray] = self._runner.infer(inputs)
        except RunnerError as error:
            raise BackendError(str(error)) from error
        return results

    def resize(self, batch: int) -> None:
        """Make ready for another batch.

        Raises:
            BackendError: The engine cannot run at it.
        """
        try:
            self._runner.resize(batch)
        except BatchError as error:
            raise BackendError(str(error)) from error

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, trace)
