"""ONNX Runtime: its optimized graph says what became of each node, its profile that this is what ran.

The graph is taken before the runtime rewrites it for the CPU's memory layouts: there a float convolution becomes one of
another name, in another domain, and could not be told from one that was fused into int8.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.agent.runners import onnxruntime as runner
from edgeopt.backends.coverage.nodes import Multiplication, multiplications
from edgeopt.backends.coverage.ort_causes import cause_of
from edgeopt.backends.graphs import Graph, copy_graph
from edgeopt.backends.support import wrap
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp
from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec

__all__ = [
    "FLOAT_KERNELS",
    "INT8_KERNELS",
    "Kernel",
    "executed_kernels",
    "ort_coverage",
    "ort_file_coverage",
    "remade_from",
]

INT8_KERNELS = frozenset(
    {
        *("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"),
        "DynamicQuantizeMatMul",
    }
)
FLOAT_KERNELS = frozenset(
    {
        *("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulNBits"),
        *("NhwcFusedConv", "GRU", "LSTM", "RNN"),
    }
)
_KERNEL_TIME = "_kernel_time"
# What the runtime appends to the name of a node that it makes anew for another memory layout.
_REMADE = re.compile(r"(_token_\d+|_nchwc|_nhwc)+$")
_LEVELS = ("disable", "basic", "extended")
_CPU = "CPUExecutionProvider"
_TYPES = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "double": "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel that ran.

    Attributes:
        node: The optimized graph's node.
        op: Its operator.
        where: The execution provider.
        output: The type of its first output as ONNX Runtime writes it: ``float``, ``uint8``.
        duration_us: How long it took.
    """

    node: str
    op: str
    where: str
    output: str
    duration_us: float

    @property
    def source(self) -> str:
        """The node's name before the layout was changed."""
        return remade_from(self.node)


def ort_coverage(path: Path, options: Mapping[str, Any], graph: Graph, version: str) -> Coverage | None:
    """What ONNX Runtime runs each multiplication of ``graph`` in, on this machine's CPU.

    Args:
        path: The ONNX file that the engine opens.
        options: As the runner takes them.
        graph: The same file, read.

    Returns:
        None where nothing of the graph is quantized.

    Raises:
        BackendError: ONNX Runtime refused the graph.
    """
    found = multiplications(graph)
    if not any(one.planned or one.packed for one in found):
        return None
    ort = runner.import_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        named = path if _all_named(graph) else _named_copy(graph, Path(folder) / "named")
        optimized = _optimized_nodes(ort, named, options, Path(folder))
        kernels, why = _tried(named, options, graph, Path(folder))
    provider = "" if list(options.get("providers", [_CPU])) == [_CPU] else ", CPU provider"
    read = "the optimized graph" if kernels is None else "the optimized graph and the profile"
    how = f"{read} of ONNX Runtime {version} on this machine{provider}{why}"
    ops = tuple(_executed(one, node, kernels, options) for one, node in _matched(found, optimized))
    return Coverage(ops=ops, how=how, proxy=bool(provider))


def ort_file_coverage(path: Path, options: Mapping[str, Any], graph: Graph, version: str) -> Coverage | None:
    """Likewise of an ``.ort`` file, whose optimized graph cannot be written: by the names of the kernels that ran."""
    found = multiplications(graph)
    if not any(one.planned or one.packed for one in found):
        return None
    replayed = "" if options.get("style") == "fixed" else ", saved optimizations replayed"
    how = f"the profile of ONNX Runtime {version} on this machine{replayed}"
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        kernels, why = _tried(path, options, graph, Path(folder))
    how += why
    nodes = [
        _Node(name=k.source, op=k.op, outputs=(k.source,))
        for k in kernels or ()
        if k.op in INT8_KERNELS | FLOAT_KERNELS
    ]
    ops = tuple(_executed(one, node, kernels, options) for one, node in _matched(found, nodes))
    # A phone's kernels are others than this machine's.
    return Coverage(ops=ops, how=how, proxy=True)


def executed_kernels(
    path: Path, options: Mapping[str, Any], inputs: Iterable[TensorSpec], folder: Path
) -> list[Kernel]:
    """Run once on zeros, under ONNX Runtime's profiler, every open dimension at 1.

    Raises:
        BackendError: ONNX Runtime cannot; zeros are no valid input of every graph.
    """
    ort = runner.import_onnxruntime()
    made = runner.session_options(ort, options, 1)
    made.enable_profiling = True
    made.profile_file_prefix = str(folder / "profile")
    try:
        session = ort.InferenceSession(str(path), made, providers=[_CPU], disabled_optimizers=_disabled(options))
        session.run(None, {spec.name: np.zeros(_closed(spec), spec.dtype) for spec in inputs})
        text = Path(session.end_profiling()).read_text(encoding="utf-8")
    except Exception as error:
        raise wrap("ONNX Runtime cannot run the graph on zeros.", error) from error
    return list(_kernels(json.loads(text)))


def _tried(path: Path, options: Mapping[str, Any], graph: Graph, folder: Path) -> tuple[list[Kernel] | None, str]:
    """What ran, or None and why nothing did."""
    try:
        return executed_kernels(path, options, graph.inputs, folder), ""
    except BackendError as error:
        return None, f"; it could not be run on zeros: {error.got}"


def remade_from(name: str) -> str:
    """A node's name before ONNX Runtime made it anew for another memory layout."""
    return _REMADE.sub("", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """A node of the optimized graph that multiplies."""

    name: str
    op: str
    outputs: tuple[str, ...]


def _kernels(events: Iterable[Mapping[str, Any]]) -> Iterator[Kernel]:
    for event in events:
        name, told = str(event.get("name", "")), event.get("args", {})
        if name.endswith(_KERNEL_TIME) and "op_name" in told:
            shapes = told.get("output_type_shape") or [{}]
            yield Kernel(
                node=name.removesuffix(_KERNEL_TIME),
                op=str(told["op_name"]),
                where=str(told.get("provider", "")),
                output=next(iter(shapes[0]), ""),
                duration_us=float(event.get("dur", 0)),
            )


def _closed(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)


def _disabled(options: Mapping[str, Any]) -> list[str] | None:
    return list(options.get("disabled_optimizers", [])) or None


def _optimized_nodes(ort: Any, path: Path, options: Mapping[str, Any], folder: Path) -> list[_Node]:
    import onnx  # noqa: PLC0415

    level = options.get("graph_optimization_level", "all")
    made = runner.session_options(
        ort, {**options, "graph_optimization_level": level if level in _LEVELS else "extended"}, 1
    )
    made.optimized_model_filepath = str(folder / "optimized.onnx")
    try:
        ort.InferenceSession(str(path), made, providers=[_CPU], disabled_optimizers=_disabled(options))
        nodes = onnx.load(folder / "optimized.onnx", load_external_data=False).graph.node
    except Exception as error:
        raise wrap("ONNX Runtime cannot optimize the graph.", error) from error
    return [
        _Node(name=node.name, op=node.op_type, outputs=tuple(node.output))
        for node in nodes
        if node.op_type in INT8_KERNELS | FLOAT_KERNELS
    ]


def _matched(found: tuple[Multiplication, ...], nodes: list[_Node]) -> Iterator[tuple[Multiplication, _Node | None]]:
    """Each multiplication with the node that it became: by its name, its output, or the output of what it was fused with."""
    by_name = {node.name: node for node in nodes if node.name}
    by_output = {name: node for node in nodes for name in node.outputs}
    taken: dict[str, _Node] = {}
    claimed: set[int] = set()

    def claim(one: Multiplication, node: _Node | None) -> None:
        if node is not None and one.node not in taken and id(node) not in claimed:
            taken[one.node] = node
            claimed.add(id(node))

    for one in found:
        for name in (one.node, f"fused {one.node}", f"{one.node}/MatMulAddFusion"):
            claim(one, by_name.get(name))
    for steps in range(max((len(one.reached) for one in found), default=0)):
        for one in found:
            claim(one, by_output.get(one.reached[steps]) if steps < len(one.reached) else None)
    return ((one, taken.get(one.node)) for one in found)


def _executed(
    one: Multiplication, node: _Node | None, kernels: list[Kernel] | None, options: Mapping[str, Any]
) -> ExecutedOp:
    if node is None:
        cause = "ONNX Runtime folded it away or fused it into an operator that edgeopt does not know."
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="", cause=cause)
    ran = _ran(node, kernels)
    where = "" if ran is None or ran.where == _CPU else ran.where
    if node.op in INT8_KERNELS:
        if kernels is not None and (ran is None or ran.op not in INT8_KERNELS):
            cause = "The optimized graph has it in int8, and no such kernel was seen to run."
            return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="", where=where, cause=cause)
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=INT8, where=where)
    runs_in = _TYPES.get(ran.output, "float32") if ran is not None else "float32"
    cause, fix = cause_of(one, str(options.get("graph_optimization_level", "all")))
    return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=runs_in, where=where, cause=cause, fix=fix)


def _ran(node: _Node, kernels: list[Kernel] | None) -> Kernel | None:
    """The kernel of that node: under its own name, or under the one it got with another memory layout."""
    return next((k for k in kernels or () if node.name in (k.node, k.source)), None)


def _all_named(graph: Graph) -> bool:
    names = [node.name for node in graph.model.graph.node]
    return all(names) and len(set(names)) == len(names)


def _named_copy(graph: Graph, folder: Path) -> Path:
    """The graph with a name for every node: nodes are told apart by names, and the runtime makes none up."""
    import onnx  # noqa: PLC0415

    folder.mkdir()
    path = copy_graph(graph, folder)
    model = onnx.load(path, load_external_data=False)
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = node.output[0]
        seen.add(node.name)
    path.write_bytes(model.SerializeToString())
    return path
