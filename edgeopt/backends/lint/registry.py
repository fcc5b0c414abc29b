"""The rules of each runtime, and how they are put to a graph."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import cast

from edgeopt.backends.base import Finding
from edgeopt.backends.graphs import Graph
from edgeopt.backends.lint.base import Checker, Rule
from edgeopt.backends.lint.facts import Facts
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RUNTIMES", "lint", "predictions_left_out", "rules_of"]

_ROOM = "edgeopt.backends.lint"
RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("files", "generic", "onnxruntime"),
    "openvino": ("files", "generic", "openvino"),
    "ort-mobile": ("files", "generic", "onnxruntime", "ort_mobile"),
    "tensorrt": ("files", "generic", "tensorrt", "dla"),
    "litert": ("files", "generic", "torch_program", "litert", "xnnpack"),
    "executorch": ("files", "generic", "torch_program", "executorch", "xnnpack"),
    "coreml": ("files", "generic", "coreml"),
}
"""Runtime → the files of this room whose rules hold for it, in order. A runtime that is not here has those that hold
for every runtime."""
_EVERY = ("files", "generic")


def lint(graph: Graph, rules: RuntimeRules, target: Target | None = None) -> list[Finding]:
    """Everything that a runtime's rules find, errors first, then in the graph's order. Nothing is run.

    Args:
        rules: The runtime as the target describes it.
        target: Whose instruction set counts; None: rules that depend on it are left out.
    """
    found: list[Finding] = []
    facts = Facts.of(graph)
    for name in RUNTIMES.get(rules.name, _EVERY):
        check = cast("Checker", importlib.import_module(f"{_ROOM}.{name}").check)
        found += check(facts, target, rules)
        if name == "files" and found:  # what cannot be read cannot be looked at
            break
    unique = list(dict.fromkeys(found))
    order = ("error", "warning", "note")
    return sorted(unique, key=lambda finding: order.index(finding.severity))


def rules_of(runtime: str) -> dict[str, Rule]:
    """Every rule that holds for a runtime, by id."""
    made: dict[str, Rule] = {}
    for name in RUNTIMES.get(runtime, _EVERY):
        made |= importlib.import_module(f"{_ROOM}.{name}").RULES
    return made


def predictions_left_out(findings: Iterable[Finding], runtime: str) -> list[Finding]:
    """Without notes, and without what was predicted to run in float: a compile asks the runtime itself for that."""
    rules = rules_of(runtime)
    left = ("float", "slow", "portable")
    return [
        f for f in findings if f.severity == "error" or (f.severity == "warning" and rules[f.rule].effect not in left)
    ]
