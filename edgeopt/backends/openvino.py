"""OpenVINO on a CPU: the graph at a static shape, saved as OpenVINO's own IR."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.agent.runners import openvino as runner
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.ov import openvino_coverage
from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.backends.lint import lint, predictions_left_out
from edgeopt.backends.support import (
    HostRunner,
    check_options,
    coverage_events,
    installed_version,
    packed_events,
    require_installed,
    wrap,
)
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OPTIONS", "OpenVinoBackend"]

HOW_TO_GET = "pip install 'edgeopt[openvino]'"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "device": str,
    "ENABLE_CPU_PINNING": bool,
    "ENABLE_HYPER_THREADING": bool,
    "SCHEDULING_CORE_TYPE": str,
    "MODEL_DISTRIBUTION_POLICY": list,
    "CPU_DENORMALS_OPTIMIZATION": bool,
    "PERFORMANCE_HINT": str,
    "NUM_STREAMS": int,
    "INFERENCE_PRECISION_HINT": str,
}
"""``device``, and OpenVINO's properties by their own names. Those that would lower the precision are not among them."""
# A target may state these, but not change them: another value would change numerics or what is measured.
_FIXED: Mapping[str, object] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
_MULTIPLIERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_PACKED = frozenset({"i4", "u4", "i8", "u8"})


class OpenVinoBackend:
    """The ``openvino`` backend. An engine is ``model.xml`` + ``model.bin``, always at a static shape.

    OpenVINO's int8 with a dynamic batch is silently wrong where a constant is expanded to the batch, so the shape is
    fixed before anything else sees the graph. Telemetry stays off: see ``import_openvino``.
    """

    name = "openvino"

    def available(self) -> Availability:
        """Whether it is installed."""
        return Availability(
            version=installed_version("openvino"),
            brings="the fastest int8 on Intel and AMD CPUs",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and what the rules find that no compile shows by itself."""
        _options(rules)
        return predictions_left_out(lint(read_graph(graph), rules, target), self.name)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Read the ONNX graph, fix its batch, save the IR, and compile it once to see what stays in float."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        where = f"OpenVINO {version} on this machine"
        options = _options(rules)
        read = read_graph(graph)
        read.require_batch_only("OpenVINO")
        ov = runner.import_openvino()
        try:
            core = ov.Core()
            model = core.read_model(str(graph))
            dynamic = read.dynamic_batch
            model.reshape(
                {
                    spec.name: list((spec.with_batch(batch) if spec.name in dynamic else spec).shape)
                    for spec in read.inputs
                }
            )
            _name_nodes(model, read)
            inputs = _specs(model.inputs, read.inputs)
            outputs = _specs(model.outputs, read.outputs)
            # compress_to_fp16 is on by default and would change numerics.
            ov.save_model(model, directory / "model.xml", compress_to_fp16=False)
            compiled = core.compile_model(model, options["device"], runner.compile_properties(options, 1))
            coverage = openvino_coverage(compiled, read, version)
            unpacked = list(_nodes_not_in(compiled, read, read.packed, _PACKED))
        except BackendError:
            raise
        except Exception as error:
            raise wrap("OpenVINO cannot compile the graph.", error) from error
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry="model.xml",
            status="built",
            inputs=inputs,
            outputs=outputs,
            options=options
            | {
                "inputs": [spec.name for spec in inputs],
                "outputs": [spec.name for spec in outputs],
                "dynamic_batch": list(dynamic),
            },
            events=coverage_events("compile", read.quantized, coverage, where)
            + packed_events("compile", read.packed, unpacked, where),
            coverage=coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _options(rules: RuntimeRules) -> dict[str, Any]:
    given = check_options(rules, OPTIONS)
    for key, value in _FIXED.items():
        if given.get(key, value) != value:
            raise BackendError(
                f"edgeopt compiles OpenVINO engines with {key} = {value!r}.",
                got=repr(given[key]),
                fix="Precision is the recipe's business: leave this option out of the target.",
            )
    properties = {key: value for key, value in sorted(given.items()) if key != "device"}
    return {"device": given.get("device", "CPU"), "properties": properties}


def _name_nodes(model: Any, graph: Graph) -> None:
    """Name what OpenVINO added by its place: the names that it makes itself count up and differ from run to run."""
    known = {node.name for node in graph.model.graph.node}
    known |= {name for node in graph.model.graph.node for name in node.output}
    known |= {value.name for value in (*graph.model.graph.input, *graph.model.graph.initializer)}
    for index, op in enumerate(model.get_ordered_ops()):
        if op.get_friendly_name() not in known:
            op.set_friendly_name(f"{op.get_type_name()}.{index}")


def _specs(ports: Any, wanted: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The model's ports as specs, named as in the ONNX graph, in its order and of its dtypes.

    Raises:
        BackendError: A port is missing, elsewhere, or of another dtype.
    """
    found = []
    for spec, port in zip(wanted, ports, strict=True):
        dtype = str(np.dtype(port.get_element_type().to_dtype()))
        if spec.name not in port.get_names() or dtype != spec.dtype:
            raise BackendError(
                "OpenVINO's inputs or outputs are not the ONNX graph's.",
                got=f"{sorted(port.get_names())} of {dtype} where the graph has {spec}",
            )
        found.append(TensorSpec(name=spec.name, dtype=dtype, shape=tuple(port.get_shape())))
    return tuple(found)


def _nodes_not_in(compiled: Any, graph: Graph, names: Iterable[str], types: frozenset[str]) -> Iterator[str]:
    """The ONNX nodes among ``names`` that OpenVINO's CPU plug-in executes in another type than these."""
    kept = set()
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if _text(info, "layerType") in _MULTIPLIERS and _text(info, "runtimePrecision") not in types:
            # OpenVINO adds suffixes to what it splits: "conv" becomes "conv/WithoutBiases".
            for part in _text(info, "originalLayersNames").split(","):
                pieces = part.split("/")
                kept |= {"/".join(pieces[:count]) for count in range(1, len(pieces) + 1)}
    for name in names:
        if kept & graph.names_of(name):
            yield name


def _text(info: Any, key: str) -> str:
    value = info[key] if key in info else ""  # noqa: SIM401 (OpenVINO's map has no get)
    return str(getattr(value, "value", value))
