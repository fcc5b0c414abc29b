"""From an ExportedProgram to the ONNX graph that every backend starts from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from onnx_ir.passes import common

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec
from edgeopt.graph.export_decomposed import spare_decomposition
from edgeopt.graph.export_known import known
from edgeopt.graph.export_names import mark_nodes, place_ranges, place_weight_bits
from edgeopt.graph.export_shapes import name_shapes
from edgeopt.graph.io import save_checked
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.check_weights import CheckWeights
from edgeopt.graph.passes.fold_pad import FoldPad
from edgeopt.graph.passes.fold_weight_transpose import FoldWeightTranspose
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.plain_recurrence import PlainRecurrence
from edgeopt.graph.passes.simplify import Simplify
from edgeopt.graph.passes.strip import Strip
from edgeopt.graph.passes.tidy import Tidy
from edgeopt.graph.sparsity import mark_sparsity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

__all__ = ["ExportResult", "export_onnx", "run_exporter"]

_WAYS_OUT = (
    "Two ways out: replace that operation in the model by ones that ONNX has, "
    "or export the model to ONNX yourself and compile the .onnx file."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """An exported graph.

    Attributes:
        path: The ONNX file.
        opset: Its opset, which is the one asked for.
        events: What was decided on the way.
    """

    path: Path
    opset: int
    events: tuple[Event, ...] = ()


def export_onnx(
    program: ExportedProgram,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    path: Path,
    *,
    opset: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    weight_bits: Mapping[str, int] | None = None,
    sparse: Mapping[str, str] | None = None,
    simplify: bool = True,
    dynamic_batch: bool = True,
) -> ExportResult:
    """Write ``program`` as ONNX: same names, same shapes, Q/DQ explicit, equal programs as equal bytes.

    Args:
        program: In eval mode; ``quantized_decomposed`` ops become QuantizeLinear and DequantizeLinear.
        inputs: One spec per graph input, in order; likewise ``outputs``.
        path: Where to write; external data goes beside it where the model exceeds 2 GiB.
        opset: The ONNX opset, exactly.
        ranges: fx name of a quantize node → (low, high) seen there in calibration; written onto the QuantizeLinear as
            metadata ``edgeopt.range``.
        weight_bits: fx name of a weighted node → bits that its integer weight needs, where that is less than 8; written
            onto the Conv, Gemm or MatMul as metadata ``edgeopt.weight_bits``. The graph itself holds int8 all the same:
            ONNX has int4 from opset 21 on, which not every runtime reads; a dialect packs it where its runtime does.
        sparse: fx name of a weighted node → the N:M pattern that its weight holds; proved, and written onto the Conv, Gemm
            or MatMul as metadata ``edgeopt.sparsity``.
        simplify: Fold constants and BatchNorm.
        dynamic_batch: False fixes a dynamic first dimension to 1 (to the spec's, where that is a number).

    Raises:
        GraphError: torch cannot export the program; the opset is not the one asked for; the specs do not fit; a range
            cannot be placed; a weight does not hold its pattern; or the result is not valid ONNX.
    """
    model, decomposed = run_exporter(program, inputs, outputs, opset=opset, simplify=simplify)
    actual = model.opset_imports.get("")
    if actual != opset:
        raise GraphError(
            "The exporter did not reach the opset asked for.",
            got=f"opset {actual} instead of {opset}",
            fix=f"Ask for opset {actual}, or for 18 and above.",
        )
    mark_nodes(model, program.graph, decomposed.graph)
    place_ranges(model, program.graph, decomposed.graph, ranges or {})
    place_weight_bits(model, weight_bits or {})
    fixed = name_shapes(model, inputs, outputs, dynamic_batch=dynamic_batch)
    shared = [FoldPad(), FoldWeightTranspose(), PlainRecurrence(), OwnZeroPoints(), CheckWeights(), Strip(), Tidy()]
    run_passes(model, [common.NameFixPass(), *([Simplify()] if simplify and fixed else []), *shared])
    mark_sparsity(model, sparse or {})
    save_checked(model, path)
    return ExportResult(path=path, opset=opset, events=(*_foreign_ops(model), *fixed))


def run_exporter(
    program: ExportedProgram,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    opset: int,
    simplify: bool,
) -> tuple[ir.Model, ExportedProgram]:
    """Run torch's exporter.

    Returns:
        The ONNX model as the exporter leaves it, and the decomposed program, whose node names the model carries.

    Raises:
        GraphError: torch cannot export the program, or the specs do not fit it.
    """
    signature = program.graph_signature
    for kind, specs, names in (
        ("input", inputs, signature.user_inputs),
        ("output", outputs, signature.user_outputs),
    ):
        if len(specs) != len(names):
            raise GraphError(f"The program has {len(names)} {kind}s.", got=f"{len(specs)} specifications")
    try:
        with known():
            exported = _exported(spare_decomposition(program), inputs, outputs, opset=opset, simplify=simplify)
    except Exception:  # noqa: BLE001 - an operation that only tracing takes apart, or one that ONNX has not: tracing tells
        try:
            exported = _exported(program, inputs, outputs, opset=opset, simplify=simplify)
        except Exception as error:  # torch raises many kinds; all of them mean that this model cannot be exported
            raise GraphError("torch cannot export the model to ONNX.", got=_root_line(error), fix=_WAYS_OUT) from error
    if exported is None or exported.exported_program is None:
        raise GraphError("torch returned no ONNX program.", fix=_WAYS_OUT)
    return exported.model, exported.exported_program


def _exported(
    program: ExportedProgram,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    opset: int,
    simplify: bool,
) -> torch.onnx.ONNXProgram | None:
    with _quiet():
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=opset,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            optimize=simplify,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself (absent torchvision, deprecations inside torch) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _root_line(error: BaseException) -> str:
    """The first useful line of the innermost cause; torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(c.isalpha() for c in line)), type(error).__name__)


def _foreign_ops(model: ir.Model) -> list[Event]:
    return [
        Event(
            kind="warning",
            stage="export",
            message=f"{node.op_type} is not an ONNX operator (domain {node.domain}); few runtimes know it.",
            node=node.name,
        )
        for node in model.graph
        if node.domain not in ("", "ai.onnx")
    ]
