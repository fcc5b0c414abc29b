"""The dialects by name, and how one is applied to a file."""

from __future__ import annotations

from pathlib import Path

from edgeopt.core.registry import Registry
from edgeopt.graph.dialects.base import Dialect, DialectResult
from edgeopt.graph.io import load_onnx, save_checked
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.tidy import Tidy

__all__ = ["DIALECTS", "apply_dialect"]

DIALECTS: Registry[Dialect] = Registry(
    "dialect",
    {
        "float": "edgeopt.graph.dialects.float:DIALECT",
        "neutral": "edgeopt.graph.dialects.neutral:DIALECT",
        "openvino": "edgeopt.graph.dialects.openvino:DIALECT",
        "openvino-amx": "edgeopt.graph.dialects.openvino_amx:DIALECT",
        "openvino-amx-bf16-products": "edgeopt.graph.dialects.openvino_amx_bf16_products:DIALECT",
        "openvino-bf16-products": "edgeopt.graph.dialects.openvino_bf16_products:DIALECT",
        "openvino-novnni": "edgeopt.graph.dialects.openvino_novnni:DIALECT",
        "ort-arm": "edgeopt.graph.dialects.ort_arm:DIALECT",
        "ort-wasm": "edgeopt.graph.dialects.ort_wasm:DIALECT",
        "ort-x86": "edgeopt.graph.dialects.ort_x86:DIALECT",
        "ort-x86-float-stem": "edgeopt.graph.dialects.ort_x86_float_stem:DIALECT",
        "ort-x86-novnni": "edgeopt.graph.dialects.ort_x86_novnni:DIALECT",
        "ort-x86-one-scale": "edgeopt.graph.dialects.ort_x86_one_scale:DIALECT",
        "ort-x86-products": "edgeopt.graph.dialects.ort_x86_products:DIALECT",
        "tensorrt": "edgeopt.graph.dialects.tensorrt:DIALECT",
        "xnnpack": "edgeopt.graph.dialects.xnnpack:DIALECT",
    },
    "edgeopt.dialects",
)


def apply_dialect(name: str, source: Path, destination: Path) -> DialectResult:
    """Write ``source`` in the dialect ``name``.

    Args:
        name: A name of ``DIALECTS``.
        source: A neutral graph: activations symmetric int8, or uint8 from zero on, as ``export_onnx`` writes it.
        destination: Where to write; the same bytes each time.

    Raises:
        EdgeOptError: There is no such dialect.
        GraphError: The graph cannot be read, or holds what the dialect's runtime rejects.
    """
    dialect = DIALECTS[name]
    model = load_onnx(source)
    run_passes(model, [Tidy()])  # events name nodes, and a foreign graph's may have no names
    rewrite = dialect.rewrite(model)
    run_passes(model, [Tidy()])
    save_checked(model, destination)
    return DialectResult(
        path=destination,
        same_points=rewrite.same_points,
        repaired=rewrite.repaired,
        coarser=rewrite.coarser,
        events=rewrite.events,
    )
