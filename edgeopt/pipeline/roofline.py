"""A bundle's layers against what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.bundle.layout import MODEL
from edgeopt.bundle.load import Bundle
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.pipeline.on_device import demand_runtime
from edgeopt.pipeline.remeasure import built_bundle, setting_of

if TYPE_CHECKING:
    from edgeopt.measure.roofline import LayerWork, Roofline

__all__ = ["roofline_of_bundle"]

_BYTES = {"int8": 1, "float16": 2, "bfloat16": 2}


def roofline_of_bundle(
    path: Path,
    *,
    device: str | Device = "local",
    threads: int | None = None,
    progress: ProgressListener = ignore_progress,
) -> Roofline:
    """Time each layer of a bundle's engine, and the peaks of the machine that it runs on.

    Raises:
        BundleError: As for ``bench_bundle``.
        DeviceError: The runtime has no profiler, or the engine cannot be run.
    """
    from edgeopt.measure.roofline import measure_roofline

    bundle = built_bundle(path)
    config, sample, batch = setting_of(bundle, {"threads": threads})
    with opened(device, progress=progress) as where:
        demand_runtime(where, bundle)
        return measure_roofline(
            where,
            bundle.engine,
            sample=sample,
            config=config,
            batch=batch,
            work_of=lambda layers: _work(bundle, layers),
        )


def _work(bundle: Bundle, layers: Sequence[Mapping[str, Any]]) -> list[LayerWork]:
    from edgeopt.backends.coverage.work import computed_nodes
    from edgeopt.graph.costs import node_costs, weight_sizes
    from edgeopt.measure.roofline import LayerWork

    portable = bundle.directory / MODEL
    compiled = bundle.engine.path if bundle.engine.path.suffix == ".onnx" else portable
    macs = {cost.name: cost.macs or 0 for file in (portable, compiled) for cost in node_costs(file)}
    weights = weight_sizes(compiled)
    names = {}
    if bundle.report.shipped.coverage is not None:
        names = {row.node: row.name for row in bundle.report.shipped.coverage.ops}
    return [
        LayerWork(
            name=names.get(node, node) or str(layer["names"][0]),
            macs=macs.get(node, 0),
            runs_in=runs_in,
            weight_bytes=weights.get(node, 0) * _BYTES.get(runs_in, 4),
        )
        for (node, runs_in), layer in zip(computed_nodes(compiled, layers), layers, strict=True)
    ]
