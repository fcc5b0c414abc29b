"""ExecuTorch's delegates for other hardware than this machine's: lowered here, run on a phone only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeopt.backends.support import wrap
from edgeopt.core.engine import CONVERTED
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event

__all__ = [
    "ELSEWHERE",
    "HERE",
    "Delegate",
    "Lowered",
    "delegate_of",
    "lower_elsewhere",
    "read_lowered",
    "refuse_nothing_taken",
]

HERE = "xnnpack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """What lowers to other hardware.

    Attributes:
        title: As ExecuTorch's documentation calls it.
        module, partitioner: Where it is in the package.
        needs: What else has to be installed, and the extra that brings it; empty where nothing.
        runs_on: Where the file runs.
        next_command: What runs it there, in the engine's folder.
    """

    title: str
    module: str
    partitioner: str
    needs: str = ""
    extra: str = ""
    runs_on: str
    next_command: str

    @property
    def not_run(self) -> str:
        """Why there is no engine of this machine's."""
        return f"{CONVERTED}: needs {self.runs_on}"


ELSEWHERE: Mapping[str, Delegate] = {
    "coreml": Delegate(
        title="Core ML",
        module="executorch.backends.apple.coreml.partition",
        partitioner="CoreMLPartitioner",
        needs="coremltools",
        extra="pip install 'edgeopt[coreml]'",
        runs_on="macOS or iOS, and ExecuTorch's Core ML backend",
        next_command="coreml_executor_runner --model_path model.pte",
    ),
    "vulkan": Delegate(
        title="Vulkan",
        module="executorch.backends.vulkan.partitioner.vulkan_partitioner",
        partitioner="VulkanPartitioner",
        runs_on="an Android device with Vulkan 1.1, and ExecuTorch's Vulkan backend",
        next_command="adb push model.pte /data/local/tmp/ && "
        "adb shell /data/local/tmp/executor_runner --model_path /data/local/tmp/model.pte",
    ),
    "qnn": Delegate(
        title="QNN",
        module="executorch.backends.qualcomm.partition.qnn_partitioner",
        partitioner="QnnPartitioner",
        needs="onnxruntime-qnn",
        extra="pip install 'edgeopt[executorch-qnn]'",
        runs_on="a Snapdragon with Hexagon, ExecuTorch's QNN backend and Qualcomm's libraries",
        next_command="adb push model.pte /data/local/tmp/ && "
        "adb shell /data/local/tmp/qnn_executor_runner --model_path /data/local/tmp/model.pte",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The program, and what the delegate took of it.

    Attributes:
        parts: How many parts of the graph the delegate runs; more than one: data goes back and forth between them.
        macs, taken_macs: Multiply-accumulates for one sample, of all products and of those that the delegate took.
        outside: Operations that ExecuTorch's portable kernels run, by name, each once.
    """

    data: bytes = b""
    parts: int
    macs: int
    taken_macs: int
    outside: tuple[str, ...]

    def event(self, delegate: Delegate) -> Event:
        """What was taken, as a note; as a fall-back where anything is left outside."""
        share = f"{100 * self.taken_macs / self.macs:.2f} % of the multiplications" if self.macs else "what it knows"
        left = f"; outside, in portable kernels: {', '.join(self.outside)}" if self.outside else ""
        message = (
            f"{delegate.title} took {share}, in {self.parts} "
            f"part{'' if self.parts == 1 else 's'}{left}. Not run: it needs {delegate.runs_on}."
        )
        return Event(kind="fallback" if self.outside else "note", stage="compile", message=message)


def delegate_of(options: Mapping[str, Any]) -> Delegate | None:
    """What ``options: {delegate: …}`` asks for; None for XNNPACK, which runs here.

    Raises:
        BackendError: There is no such delegate.
    """
    name = str(options.get("delegate", HERE))
    if name != HERE and name not in ELSEWHERE:
        known = ", ".join([HERE, *ELSEWHERE])
        raise BackendError("ExecuTorch has no such delegate.", got=f"delegate: {name}", fix=f"Use one of {known}.")
    return ELSEWHERE.get(name)


def lower_elsewhere(program: Any, delegate: Delegate) -> Lowered:
    """Lower a float program.

    Args:
        program: A ``TorchProgram``.

    Raises:
        BackendError: What the delegate needs is not installed; it took nothing; or ExecuTorch refused the graph.
    """
    from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415

    try:
        made = getattr(importlib.import_module(delegate.module), delegate.partitioner)
    except ImportError as error:
        raise BackendError(
            f"ExecuTorch's {delegate.title} delegate needs {delegate.needs or 'a package'}, which is not installed.",
            got=error,
            fix=delegate.extra or None,
        ) from error
    try:
        edge = to_edge_transform_and_lower(program.exported, partitioner=[made(**_settings(delegate))])
        # Read first: to_executorch changes the same graph, and what is outside is then named convolution.out.
        found = read_lowered(edge.exported_program().graph_module, program)
        data = bytes(edge.to_executorch().buffer)
    except Exception as error:
        raise wrap(f"ExecuTorch cannot lower the graph to {delegate.title}.", error) from error
    refuse_nothing_taken(found, delegate)
    return replace(found, data=data)


def refuse_nothing_taken(found: Lowered, delegate: Delegate) -> None:
    """Refuse a program of which the delegate runs no part.

    Raises:
        BackendError: It runs none.
    """
    if not found.parts:
        left = ", ".join(found.outside[:5]) or "no operation"
        raise BackendError(f"ExecuTorch's {delegate.title} delegate takes nothing of this graph.", got=left)


def _settings(delegate: Delegate) -> dict[str, Any]:
    """Core ML computes in float16 unless it is told what the graph says."""
    if delegate.title != "Core ML":
        return {}
    import coremltools  # noqa: PLC0415
    from executorch.backends.apple.coreml.compiler import CoreMLBackend  # noqa: PLC0415

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT32, minimum_deployment_target=coremltools.target.iOS17
    )
    return {"compile_specs": specs}


def read_lowered(module: Any, program: Any) -> Lowered:
    """What a lowered graph module says of its parts and of what is outside of them; without the program's bytes."""
    from edgeopt.backends.coverage.xnnpack import MULTIPLIES, macs_of, op_of  # noqa: PLC0415

    inside, outside, parts = [], [], 0
    for node in module.graph.nodes:
        if node.op == "get_attr" and hasattr(getattr(module, node.target), "processed_bytes"):
            parts += 1
            inside += list(getattr(module, node.target).original_module.graph.nodes)
        elif node.op == "call_function" and op_of(node) is not None:
            outside.append(node)
    products = [
        [macs_of(node, program) for node in nodes if node.op == "call_function" and op_of(node) in MULTIPLIES]
        for nodes in (inside, outside)
    ]
    return Lowered(
        parts=parts,
        macs=sum(products[0]) + sum(products[1]),
        taken_macs=sum(products[0]),
        outside=tuple(dict.fromkeys(str(op_of(node)).partition(".")[0] for node in outside)),
    )
