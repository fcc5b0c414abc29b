"""OpenVINO on a CPU: the graph at a static shape, saved as OpenVINO's own IR."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.agent.runners import openvino as runner
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.ov import openvino_coverage
from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.backends.lint import lint, predictions_left_out
from edgeopt.backends.openvino_artifacts import BLOB, BUILD_COMMAND, artifact_events, export_blob, write_builder
from edgeopt.backends.openvino_fold import fold, unindent
from edgeopt.backends.openvino_options import OPTIONS, read_options
from edgeopt.backends.support import (
    HostRunner,
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
_MULTIPLIERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_SEQUENCES = frozenset({"GRUSequence", "LSTMSequence", "RNNSequence"})
_CELL = "/Sequence"  # behind the name of the ONNX node that a recurrent sequence computes
_PACKED = frozenset({"i4", "u4", "i8", "u8"})


class OpenVinoBackend:
    """The ``openvino`` backend. An engine is ``model.xml`` + ``model.bin``, always at a static shape.

    With the option ``blob`` it is ``model.blob`` beside them. For a GPU or an NPU that is not here it is the IR and a
    script that compiles it on the device.

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
        read_options(rules)
        return predictions_left_out(lint(read_graph(graph), rules, target), self.name)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Read the ONNX graph, fix its batch, save the IR, and compile it once to see what stays in float."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        where = f"OpenVINO {version} on this machine"
        wanted = read_options(rules)
        read = read_graph(graph)
        options = wanted.for_graph(read)
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
            _name_cells(model)
            fold(model, read)
            _name_nodes(model, read)
            inputs = _specs(model.inputs, read.inputs)
            outputs = _specs(model.outputs, read.outputs)
            # compress_to_fp16 is on by default and changes numerics: it is asked for or not done.
            ov.save_model(model, directory / "model.xml", compress_to_fp16=wanted.compress)
            unindent(directory / "model.xml")
            if wanted.compress:
                model = core.read_model(directory / "model.xml")
            options |= {
                "inputs": [spec.name for spec in inputs],
                "outputs": [spec.name for spec in outputs],
                "dynamic_batch": list(dynamic),
            }
            if wanted.device.partition(".")[0] not in {name.partition(".")[0] for name in core.available_devices}:
                write_builder(directory, options)
                return Engine(
                    runtime=self.name,
                    runtime_version=version,
                    directory=directory,
                    entry=BLOB,
                    status="not_built",
                    inputs=inputs,
                    outputs=outputs,
                    options=options,
                    next_command=BUILD_COMMAND,
                    events=artifact_events(wanted, here=False),
                )
            compiled = core.compile_model(model, options["device"], runner.compile_properties(options, 1))
            coverage = openvino_coverage(compiled, read, version)
            unpacked = list(_nodes_not_in(compiled, read, read.packed, _PACKED))
            if wanted.blob:
                export_blob(compiled, directory)
        except BackendError:
            raise
        except Exception as error:
            raise wrap("OpenVINO cannot compile the graph.", error) from error
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry=BLOB if wanted.blob else "model.xml",
            status="built",
            inputs=inputs,
            outputs=outputs,
            options=options,
            events=artifact_events(wanted, here=True)
            + coverage_events("compile", read.quantized, coverage, where)
            + packed_events("compile", read.packed, unpacked, where),
            coverage=coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _name_cells(model: Any) -> None:
    """Name each recurrent sequence by its ONNX node, whose name OpenVINO gives to the transposition behind it."""
    for op in model.get_ordered_ops():
        if op.get_type_name() in _SEQUENCES:
            behind = [
                target.get_node().get_friendly_name() for out in op.outputs() for target in out.get_target_inputs()
            ]
            if behind:
                op.set_friendly_name(behind[0] + _CELL)


def _name_nodes(model: Any, graph: Graph) -> None:
    """Name what OpenVINO added by its place: the names that it makes itself count up and differ from run to run."""
    known = {node.name for node in graph.model.graph.node}
    known |= {name for node in graph.model.graph.node for name in node.output}
    known |= {value.name for value in (*graph.model.graph.input, *graph.model.graph.initializer)}
    for index, op in enumerate(model.get_ordered_ops()):
        if op.get_friendly_name().removesuffix(_CELL) not in known:
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
