"""From a portable graph to engines: dialect, check, compile, each held against a second runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_file
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.coverage import with_macs
from edgeopt.pipeline.graphs import Graph
from edgeopt.pipeline.plan import Plan, PlannedCandidate
from edgeopt.pipeline.sparsity import sparsity_events
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import Precision, RuntimeRules

__all__ = ["Built", "Witness", "build_engine", "build_witness"]

# The runtime whose outputs an engine's are compared with: another implementation of the same graph.
_WITNESSES = {
    "coreml": "onnxruntime",
    "executorch": "onnxruntime",
    "litert": "onnxruntime",
    "onnxruntime": "openvino",
    "openvino": "onnxruntime",
    "ort-mobile": "openvino",
    "qnn": "onnxruntime",
    "tensorrt": "onnxruntime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A candidate with its engine.

    Attributes:
        graph: The neutral graph that it was made from.
        engine: None where the runtime refused it; ``failure`` has its words.
        key: Content hash of everything that made the engine, for the cache keys of what is measured on it.
    """

    planned: PlannedCandidate
    graph: Graph
    engine: Engine | None
    failure: str
    key: str
    events: list[Event]


def build_engine(context: RunContext, plan: Plan, planned: PlannedCandidate, graph: Graph) -> Built:
    """Write ``graph`` in the runtime's dialect and compile it.

    A reference that does not compile stops the run; a candidate that does not is reported and not shipped.
    """
    rules = planned.rules
    key = {
        "graph": hash_file(graph.path),
        "rules": rules.model_dump(mode="json"),
        "target": plan.target.model_dump(mode="json"),
        "version": planned.availability.version,
        "batch": plan.recipe.export.batch,
        "precision": planned.precision,
        "dialect": planned.dialect,
    }

    def build(folder: Path) -> None:
        _compile(folder, plan, planned, graph)

    try:
        folder = context.stage("engine", f"compile {planned.id}", key, build)
    except BackendError as error:
        if planned.role == "reference":
            raise
        event = Event(kind="warning", stage=f"compile {planned.id}", message=str(error))
        return Built(planned=planned, graph=graph, engine=None, failure=str(error), key="", events=[event])
    engine = records.read_engine(folder)
    events = [*records.read(folder / "events.json", list[Event]), *engine.events]
    return Built(planned=planned, graph=graph, engine=engine, failure="", key=folder.name, events=events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """The neutral graph on another runtime. ``label`` says so in the report."""

    engine: Engine
    key: str
    label: str


def build_witness(context: RunContext, plan: Plan, built: Built) -> Witness | None:
    """Compile a candidate's neutral graph for a second runtime; None where none is installed here."""
    name = _WITNESSES.get(built.planned.rules.name)
    availability = BACKENDS[name].available() if name else None
    if name is None or availability is None or availability.version is None:
        return None
    rules = RuntimeRules(
        name=name,
        dialect="float" if built.planned.dialect == "float" else _form(name),
        versions="",
        precisions=get_args(Precision),
        opset_max=plan.target.opset,
    )
    key = {
        "graph": hash_file(built.graph.path),
        "witness": rules.model_dump(mode="json"),
        "version": availability.version,
        "batch": plan.recipe.export.batch,
    }

    def build(folder: Path) -> None:
        from edgeopt.graph.dialects import apply_dialect
        from edgeopt.graph.io import load_onnx
        from edgeopt.graph.passes.round_bfloat16 import write_rounded

        (folder / "engine").mkdir()
        written = built.graph.path
        if rules.dialect != "float":
            written = apply_dialect(rules.dialect, written, folder / "model.onnx").path
        elif built.planned.precision == "bf16":
            written = write_rounded(load_onnx(written), folder / "model.onnx")
        batch = plan.recipe.export.batch
        records.write_engine(folder, BACKENDS[name].compile(written, plan.target, rules, folder / "engine", batch))

    folder = context.stage("engine", f"compile {built.planned.id}'s graph for {name}", key, build)
    label = f"the portable graph on {name} {availability.version}"
    return Witness(engine=records.read_engine(folder), key=folder.name, label=label)


def _form(runtime: str) -> str:
    """The dialect in which this machine's runtime is asked for what a graph means.

    As the graph is ("float"): slower, and computed as written. OpenVINO alone is asked in its own dialect: 2026.4 computes neutral int8
    graphs with concatenations wrongly on CPUs without AMX, by 12 to 34 dB.
    """
    if runtime != "openvino":
        return "float"
    return next(rules.dialect for rules in find_target("local").runtimes if rules.name == runtime)


def _compile(folder: Path, plan: Plan, planned: PlannedCandidate, graph: Graph) -> None:
    from edgeopt.graph.dialects import apply_dialect

    rules, backend = planned.rules, BACKENDS[planned.rules.name]
    (folder / "engine").mkdir()
    (folder / "dialect").mkdir()
    dialect = planned.dialect
    written = apply_dialect(dialect, graph.path, folder / "dialect" / "model.onnx")
    findings = backend.check(written.path, plan.target, rules)
    fatal = [f"{f.rule} {f.node or ''}: {f.message} {f.fix}".rstrip() for f in findings if f.severity == "error"]
    if fatal:
        raise BackendError(
            f"{rules.name} would not run this graph as written.",
            got="; ".join(fatal[:5]) + (f" (and {len(fatal) - 5} more)" if len(fatal) > 5 else ""),
            fix="Leave the node in float with --set steps.quantize.skip=[PATTERN], or choose another target.",
        )
    engine = backend.compile(written.path, plan.target, rules, folder / "engine", plan.recipe.export.batch)
    engine = replace(engine, coverage=with_macs(engine.coverage, written.path, graph.path))
    warnings = [
        Event(
            kind="warning", stage=f"check {planned.id}", message=f"{f.rule}: {f.message} {f.fix}".rstrip(), node=f.node
        )
        for f in findings
    ]
    sparsity = sparsity_events(written.path, plan.target, rules, stage=f"compile {planned.id}")
    records.write(folder / "events.json", list[Event], [*written.events, *warnings, *sparsity])
    records.write_engine(folder, engine)
