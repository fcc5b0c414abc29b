"""What an engine runs in int8: the runtime's word, the graph's multiplications, the recipe's reasons."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeopt.bundle.coverage import CoverageRow, CoverageSection
from edgeopt.bundle.document import LayerRow
from edgeopt.core.coverage import INT8, Coverage
from edgeopt.core.engine import Engine
from edgeopt.core.measurement import Condition, Measurement, not_measured
from edgeopt.pipeline import records
from edgeopt.pipeline.graphs import Graph

__all__ = ["coverage_figures", "coverage_section", "told_coverage", "with_macs"]

_INTEGER = ("int8", "w4a8")
_BY_DIALECT = (
    "Written in float on purpose: this runtime is slower for it in int8 (the target's sources have the figures)."
)
_UNSKIP = "Take it out of steps.quantize.skip."


def with_macs(coverage: Coverage | None, compiled: Path, portable: Path) -> Coverage | None:
    """The coverage with each operation's multiply-accumulates for one sample; what the dialect took out of int8 is said.

    Args:
        compiled: The ONNX file that the backend compiled.
        portable: The graph that it was written from: it knows the sizes behind operators of one runtime's own.
    """
    if coverage is None:
        return None
    from edgeopt.graph.costs import node_costs
    from edgeopt.graph.int8_macs import planned_nodes

    taken = planned_nodes(portable) - planned_nodes(compiled) if compiled != portable else frozenset[str]()
    macs = {cost.name: cost.macs for path in (portable, compiled) for cost in node_costs(path) if cost.macs}
    ops = tuple(dataclasses.replace(op, macs=op.macs or macs.get(op.node) or 0) for op in coverage.ops)
    return dataclasses.replace(
        coverage,
        ops=tuple(
            dataclasses.replace(op, cause=_BY_DIALECT, fix="") if op.node in taken and op.runs_in != INT8 else op
            for op in ops
        ),
    )


def told_coverage(
    engine: Engine | None, graph: Graph, *, elsewhere: bool
) -> tuple[CoverageSection | None, tuple[Measurement, ...]]:
    """An engine's coverage and its figures; of none, what the graph plans."""
    from edgeopt.graph.int8_macs import int8_macs_pct

    section = coverage_section(engine.coverage if engine is not None else None, graph, elsewhere=elsewhere)
    return section, coverage_figures(section, int8_macs_pct(graph.path))


def coverage_section(coverage: Coverage | None, graph: Graph, *, elsewhere: bool) -> CoverageSection | None:
    """The coverage with the layers' own names, and the quantizer's reasons where it left one in float on purpose.

    Args:
        graph: The portable graph of the engine.
        elsewhere: Whether the engine will run on another machine than this one, where the coverage was read.
    """
    if coverage is None:
        return None
    layers = _layers(graph)
    rows = []
    for op in coverage.ops:
        layer = layers.get(op.node)
        cause, fix = op.cause, op.fix
        if layer is not None and layer.precision not in _INTEGER and op.runs_in != INT8:
            cause = f"Left in {layer.precision}: {layer.reason}."
            fix = _UNSKIP if layer.reason.startswith("skipped by the recipe") else ""
        rows.append(
            CoverageRow(
                node=op.node,
                layer=layer.name if layer is not None else "",
                op=op.op,
                macs=op.macs,
                runs_in=op.runs_in,
                where=op.where,
                cause=cause,
                fix=fix,
            )
        )
    return CoverageSection(how=coverage.how, proxy=coverage.proxy or elsewhere, ops=tuple(rows))


def coverage_figures(section: CoverageSection | None, planned: Measurement) -> tuple[Measurement, ...]:
    """``int8_macs_pct`` and ``int8_ops_pct``, read from the runtime; what the graph plans where that does not tell.

    The condition ``source`` says which: ``runtime``, ``stand-in`` (another runtime or machine than will run it), ``plan``.
    """
    if section is None or not section.ops:
        return (planned,)
    conditions: dict[str, Condition] = {
        "how": section.how,
        "source": "stand-in" if section.proxy else "runtime",
    }
    inside = [row for row in section.ops if row.runs_in == INT8]
    unknown = [row for row in section.ops if not row.runs_in]
    if unknown:
        why = f"{section.how} does not tell of {len(unknown)} of {len(section.ops)} operations: {_first(unknown)}"
        return tuple(not_measured(name, "%", why) for name in ("int8_macs_pct", "int8_ops_pct"))
    ops = Measurement(
        name="int8_ops_pct",
        value=100 * len(inside) / len(section.ops),
        unit="%",
        conditions={**conditions, "ops": len(section.ops)},
    )
    uncounted = [row for row in section.ops if not row.macs]
    if uncounted:
        why = f"the multiplications of {_first(uncounted)} cannot be counted"
        return not_measured("int8_macs_pct", "%", why), ops
    macs = Measurement(
        name="int8_macs_pct",
        value=100 * sum(row.macs for row in inside) / section.macs,
        unit="%",
        conditions={**conditions, "macs": section.macs, "planned_pct": planned.value},
    )
    return macs, ops


def _layers(graph: Graph) -> dict[str, LayerRow]:
    """ONNX node → the layer that it came from, as the quantizer names it."""
    file = graph.path.parent / "nodes.json"
    if not graph.layers or not file.is_file():
        return {}
    from edgeopt.graph.layers import layer_nodes

    rows = {row.name: row for row in graph.layers}
    by_fx = {fx: rows[name] for name, fx in records.read(file, dict[str, str | None]).items() if fx and name in rows}
    return {node: by_fx[fx] for node, fx in layer_nodes(graph.path).items() if fx in by_fx}


def _first(rows: list[CoverageRow]) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{rows[0].op} {rows[0].name}{more}"
