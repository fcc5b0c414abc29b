"""A bundle's layers against what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.bundle.layout import MODEL
from edgeopt.bundle.load import Bundle
from edgeopt.bundle.roofline import MachinePeaks, Roofline
from edgeopt.core.errors import DeviceError
from edgeopt.core.events import Event, ProgressListener, ignore_progress
from edgeopt.core.fingerprint import hash_array, hash_tree
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.pipeline import records
from edgeopt.pipeline.amend import with_report
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.on_device import demand_runtime
from edgeopt.pipeline.remeasure import built_bundle, setting_of

if TYPE_CHECKING:
    from edgeopt.measure.roofline import LayerWork

__all__ = ["record_roofline", "roofline_of_bundle"]

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


def record_roofline(context: RunContext, bundle: Bundle, device: Device) -> Bundle:
    """The bundle with its roofline in the report; as it is, with a note, where its layers cannot be timed.

    The peaks are measured once for a device and a number of threads, and kept in the cache.
    """
    from edgeopt.measure.peaks import measure_peaks
    from edgeopt.measure.roofline import measure_roofline

    config, sample, batch = setting_of(bundle, {})
    where = {"device": device.info().model_dump(mode="json", exclude={"conditions"}), "threads": config.threads}

    def find_peaks(folder: Path) -> None:
        records.write(folder / "peaks.json", MachinePeaks, measure_peaks(device, config=config))

    peaks = records.read(
        context.stage("peaks", "measure the machine's peaks", where, find_peaks) / "peaks.json", MachinePeaks
    )

    def build(folder: Path) -> None:
        found = measure_roofline(
            device,
            bundle.engine,
            sample=sample,
            config=config,
            batch=batch,
            work_of=lambda layers: _work(bundle, layers),
            peaks=peaks,
        )
        records.write(folder / "roofline.json", Roofline, found)

    inputs = {
        **where,
        "engine": hash_tree(bundle.engine.directory),
        "options": dict(bundle.engine.options),
        "batch": batch,
        "sample": {name: hash_array(array) for name, array in sample.items()},
    }
    changes: dict[str, Any] = {}
    try:
        folder = context.stage("roofline", "time each layer", inputs, build)
        changes["roofline"] = records.read(folder / "roofline.json", Roofline)
    except DeviceError as error:
        context.note([Event(kind="note", stage="roofline", message=f"There is no roofline: {error}")])
        changes["events"] = tuple(context.events)
    return with_report(bundle, bundle.report.model_copy(update={**changes, "stages": tuple(context.stages)}))


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
