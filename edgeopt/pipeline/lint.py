"""What the runtimes of a target will do with a graph, said before any of them is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.backends.lint import RUNTIMES, lint, rules_of
from edgeopt.backends.lint.document import LintResult, LintRow, RuleRow
from edgeopt.bundle.layout import MODEL
from edgeopt.bundle.load import load_bundle
from edgeopt.core.errors import EdgeOptError, ModelError, TargetError, nearest_first
from edgeopt.targets.load import find_target, list_targets
from edgeopt.targets.schema import RuntimeRules, Target
from edgeopt.version import __version__

__all__ = ["find_runtimes", "lint_graph", "lint_model", "list_rules"]

_MAY_SATURATE = "ORT019"


def lint_model(model: Path, *, target: str | Path, runtime: str | None = None) -> LintResult:
    """Put the rules of a target's runtimes to an ONNX file, or to the graph of a bundle. Nothing is compiled or run.

    Args:
        model: An ONNX file, looked at as it stands; or a bundle, whose graph is looked at in the form that the target's
            runtime is given.
        target: A name, an alias or a YAML file.
        runtime: One of the target's runtimes; None: all of them.

    Raises:
        EdgeOptError: The file is no ONNX model, the folder no bundle, or target or runtime are unknown.
    """
    described = find_target(target)
    wanted = find_runtimes(described, runtime)
    rows: list[LintRow] = []
    with _opened(model) as path:
        read = read_graph(path)
        for rules in wanted:
            rows += lint_graph(read, described, rules, as_compiled=path != model)
    return LintResult(
        edgeopt_version=__version__,
        model=str(model),
        graph="as compiled" if path != model else "as it stands",
        target=described.name,
        runtimes=tuple(rules.name for rules in wanted),
        opset=read.opset,
        nodes=len(read.model.graph.node),
        findings=tuple(rows),
    )


def lint_graph(graph: Graph, target: Target, rules: RuntimeRules, *, as_compiled: bool = False) -> list[LintRow]:
    """The findings of one runtime.

    Args:
        as_compiled: Whether to look at the graph in the runtime's dialect, as ``edgeopt compile`` would write it.
    """
    if as_compiled and graph.quantized + graph.packed:
        from edgeopt.graph.dialects import apply_dialect

        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            written = apply_dialect(rules.dialect, graph.path, Path(folder) / MODEL)
            return lint_graph(read_graph(written.path), target, rules)
    known = rules_of(rules.name)
    rows = [
        LintRow(
            runtime=rules.name,
            rule=found.rule,
            severity=known[found.rule].severity,
            title=known[found.rule].title,
            node=found.node,
            message=found.message,
            fix=found.fix,
            source=found.source,
        )
        for found in lint(graph, rules, target)
    ]
    return _proven(graph, rows) if any(row.rule == _MAY_SATURATE for row in rows) else rows


def _proven(graph: Graph, rows: list[LintRow]) -> list[LintRow]:
    """What may saturate by the size of its weights, held to the proof: layers proven safe go, others get their channels."""
    from edgeopt.graph.saturation import prove

    layers = {layer.node: layer for layer in prove(graph.path).layers}
    kept = []
    for row in rows:
        layer = layers.get(row.node or "") if row.rule == _MAY_SATURATE else None
        if layer is None:
            kept.append(row)
        elif not layer.is_safe:
            more = f"{len(layer.witnesses)} of its {layer.channels} channels can: a pair reaches {layer.largest}."
            kept.append(row.model_copy(update={"message": f"{row.message} {more}"}))
    return kept


def list_rules(target: str | Path | None = None, runtime: str | None = None) -> list[RuleRow]:
    """Every rule, those of a target's runtimes, or those of one runtime; in the order in which they are put.

    Raises:
        EdgeOptError: The target or the runtime is unknown.
    """
    if target is not None:
        names = [rules.name for rules in find_runtimes(find_target(target), runtime)]
    elif runtime is not None and runtime not in RUNTIMES:
        known = ", ".join(nearest_first(runtime, RUNTIMES))
        raise EdgeOptError("There are no rules for a runtime of that name.", got=repr(runtime), fix=f"Known: {known}.")
    else:
        names = list(RUNTIMES) if runtime is None else [runtime]
    return [
        RuleRow(
            runtime=name,
            rule=rule.id,
            severity=rule.severity,
            effect=rule.effect,
            title=rule.title,
            why=rule.why,
            fix=rule.fix,
            source=rule.source,
        )
        for name in names
        for rule in rules_of(name).values()
    ]


def find_runtimes(target: Target, runtime: str | None) -> tuple[RuntimeRules, ...]:
    """The target's runtimes, or the one that is named.

    Raises:
        TargetError: The target does not have it; its own are listed, and the targets that do.
    """
    if runtime is None:
        return target.runtimes
    found = tuple(rules for rules in target.runtimes if rules.name == runtime)
    if not found:
        own = ", ".join(nearest_first(runtime, [rules.name for rules in target.runtimes]))
        others = [each.name for each in list_targets() if any(rules.name == runtime for rules in each.runtimes)]
        there = f" Targets with {runtime}: {', '.join(others)}." if others else ""
        raise TargetError(
            f"The target {target.name} does not have this runtime.", got=repr(runtime), fix=f"It has {own}.{there}"
        )
    return found


@contextmanager
def _opened(model: Path) -> Iterator[Path]:
    """The graph's file: the model's own, or a bundle's portable graph."""
    if model.is_dir():
        yield load_bundle(model).directory / MODEL
    elif not model.exists():
        raise ModelError("There is no file or folder at this path.", got=model)
    else:
        yield model
