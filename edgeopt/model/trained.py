"""The one form in which a model travels through edgeopt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeopt.core.events import Event
from edgeopt.core.sparsity import SparseWeight
from edgeopt.core.spec import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["ModelFormat", "TrainedModel", "count_parameters"]

ModelFormat = Literal["pt2", "state-dict", "torchscript", "pickle", "onnx", "module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that was loaded, and where it came from.

    Exactly one of ``program`` and ``onnx_path`` is set.

    Attributes:
        name: The file's stem.
        program: The exported program in eval mode, its batch dynamic wherever the model allows; None for ONNX.
        onnx_path: The ONNX file as given; None for every torch format.
        inputs: One spec per input, in the order of the model's forward.
        outputs: One spec per output, in order.
        source: The file it came from; None for an in-memory module.
        format: What the file turned out to be.
        sha256: Of the file, or of weights and graph for an in-memory module.
        identity: Sha256 over everything that determines the model (file, factory, arguments, input specs, graph).
        parameters: How many trained parameters it has.
        events: What had to be decided on the way, e.g. a batch that could not be made dynamic.
        sparse: Which parameters hold an N:M pattern, by their names in the float program; every step keeps it.
    """

    name: str
    program: ExportedProgram | None
    onnx_path: Path | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source: Path | None
    format: ModelFormat
    sha256: str
    identity: str
    parameters: int
    events: tuple[Event, ...] = ()
    sparse: Mapping[str, SparseWeight] = field(default_factory=dict)


def count_parameters(program: ExportedProgram) -> int:
    """How many trained parameters a program has; what two names share counts once."""
    state = program.state_dict
    tensors = {state[name].data_ptr(): state[name] for name in program.graph_signature.parameters if name in state}
    return sum(tensor.numel() for tensor in tensors.values())
