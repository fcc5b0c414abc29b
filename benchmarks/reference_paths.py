"""edgeopt's artifacts beside those of each runtime's own documented road, on that runtime, timed in turns.

    python benchmarks/reference_paths.py build/zoo --nets resnet20 mobilenetv2 [--runtimes executorch litert browser]

The same trained net goes through edgeopt (target ``local-xnnpack`` or ``browser-wasm``) and through what the runtime's own
documentation says (``reference_paths/``): its quantizer, its calibration (the same 300 samples), its converter. Both files
run in edgeopt's runner of that runtime, batch 1, one thread, blocks in turns, in processes started anew several times; the
interval of the ratio is over these starts (Student's t on the logarithms). Accuracy of both on the same test samples
stands beside, so that a file that is fast and wrong is seen. ``*``: edgeopt is within 5 %, or faster. Each environment does
the runtimes that are installed in it (extras ``executorch``, ``litert``, ``browser``) and says which it leaves out.
Exit code 1 where a ratio is shown to be above 1.05, or a comparison failed; 5 where an interval is open, or where no runtime was there to compare.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import scipy.stats
import torch
from zoo_folder import Net, add_arguments, find_nets

import edgeopt
from edgeopt.agent.runners.quiet import quietly
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError, EdgeOptError, GraphError
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.measure.latency import measure_latency
from edgeopt.pipeline.records import read_engine
from edgeopt.recipes.schema import Measure
from edgeopt.targets.load import find_target

LIMIT = 1.05
RECIPES = {"fp32": "fp32", "int8": "int8-ptq"}
# What is compared: the target, its runtime, the device, and the module that writes the reference.
WAYS = {
    "executorch": ("local-xnnpack", "executorch", "local", "executorch"),
    "litert": ("local-xnnpack", "litert", "local", "litert"),
    "browser": ("browser-wasm", "onnxruntime", "browser", "onnxruntime_web"),
}
HEAD = (
    "net",
    "runtime",
    "precision",
    "edgeopt, ms",
    "reference, ms",
    "edgeopt / reference",
    "accuracy, %",
    "reference's, %",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--runtimes", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--precisions", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--starts", type=int, default=5, help="of all processes, 2 at least (default: 5)")
    parser.add_argument("--samples", type=int, default=200, help="timed inferences per engine and start")
    parser.add_argument("--accuracy", type=int, default=500, help="test samples (default: 500)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures")
    chosen = parser.parse_args()
    nets = find_nets(chosen.zoo, chosen.nets)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for runtime in chosen.runtimes:
        _, name, device, _ = WAYS[runtime]
        if BACKENDS[name].available().version is None:
            print(f"{runtime}: left out: {name} is not installed here", file=sys.stderr)
            continue
        with ExitStack() as stack:
            try:
                where = stack.enter_context(opened(device))
            except DeviceError as error:
                print(f"{runtime}: left out: {error}", file=sys.stderr)
                continue
            for net, precision in product(nets, chosen.precisions):
                try:
                    row = compare(net, runtime, precision, where, chosen)
                except EdgeOptError as error:
                    failed.append(f"{net.name}, {runtime}, {precision}: {error}")
                    print(f"FAILED {failed[-1]}", file=sys.stderr)
                    continue
                rows.append(row)
                print(f"| {' | '.join(cells(row))} |", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if failed or any(row["low"] > LIMIT for row in rows):
        return 1
    return 5 if not rows or any(row["high"] > LIMIT for row in rows) else 0


def compare(net: Net, runtime: str, precision: str, device: Device, chosen: argparse.Namespace) -> dict[str, Any]:
    """Both roads, run and timed."""
    with np.load(net.data) as data, tempfile.TemporaryDirectory(prefix="edgeopt-reference-") as scratch:
        folder = Path(scratch)
        ours = own_engine(net, runtime, precision, folder)
        road = importlib.import_module(f"reference_paths.{WAYS[runtime][3]}")
        (folder / "reference").mkdir()
        module = torch.export.load(str(net.model)).module()
        with quietly():  # LiteRT's converter prints its stages where the table goes
            road.write(module, torch.from_numpy(data["x_calibration"][:300]), precision, folder / "reference")
        theirs = as_engine(folder / "reference" / road.ENTRY, ours)
        x, y = data["x"][: chosen.accuracy], data["y"][: chosen.accuracy]
        name = ours.inputs[0].name
        shares = [accuracy(device, engine, (x, y), folder) for engine in (ours, theirs)]
        config = Measure(batch_sizes=(), latency_samples=chosen.samples, threads=1)
        logs, times = [], []
        for start in range(max(chosen.starts, 2)):
            found = measure_latency(
                device,
                {"edgeopt": ours, "reference": theirs},
                sample={name: x[:8]},
                config=config,
                batch=1,
                seed=start,
                cold_starts=1,
            )
            if failed := [f"{side}: {one.failed}" for side, one in found.items() if one.failed]:
                raise DeviceError("A file could not be timed.", got="; ".join(failed))
            mine, reference = (float(np.median(found[side].blocks_ms)) for side in ("edgeopt", "reference"))
            times.append((mine, reference))
            logs.append(np.log(mine / reference))
    interval = scipy.stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return {
        "net": net.name,
        "runtime": runtime,
        "precision": precision,
        "edgeopt_ms": float(np.median([mine for mine, _ in times])),
        "reference_ms": float(np.median([other for _, other in times])),
        "ratio": float(np.exp(np.mean(logs))),
        "low": float(np.exp(interval.low)),
        "high": float(np.exp(interval.high)),
        "starts": len(logs),
        "samples": chosen.samples,
        "accuracy_pct": shares,
        "test_samples": len(y),
    }


def own_engine(net: Net, runtime: str, precision: str, folder: Path) -> Engine:
    """What ``edgeopt compile`` makes for this runtime in this precision, shipped or not, as its cache keeps it.

    Raises:
        GraphError: No engine of the runtime came of it.
    """
    target, name = find_target(WAYS[runtime][0]), WAYS[runtime][1]
    with chosen_cache(folder / "cache") as cache:
        edgeopt.compile(
            net.model,
            target=target.name,
            data=str(net.data),
            recipe=RECIPES[precision],
            overrides=["measure.latency_samples=10", "measure.roofline=false", "limits.latency_ratio=null"],
            output=folder / "bundle",
        )
    for record in cache.glob("engine/*/stage.json"):
        key = json.loads(record.read_text(encoding="utf-8"))
        if "rules" in key and (key["rules"]["name"], key["precision"]) == (name, precision):
            return read_engine(record.parent)
    raise GraphError(f"edgeopt made no {precision} engine for {name}.")


@contextmanager
def chosen_cache(folder: Path) -> Iterator[Path]:
    """An empty cache for what is compiled inside: whatever is in it came of that."""
    before = os.environ.get("EDGEOPT_CACHE_DIR")
    os.environ["EDGEOPT_CACHE_DIR"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["EDGEOPT_CACHE_DIR"]
        else:
            os.environ["EDGEOPT_CACHE_DIR"] = before


def as_engine(path: Path, ours: Engine) -> Engine:
    """Another file of the same runtime, to be run as ours is.

    An ONNX file's input gets the name that ours has. A LiteRT file whose converter left int8 at its ports gets the QUANTIZE
    and DEQUANTIZE that ours has there, so that both do the whole work from the same float samples.
    """
    theirs = dataclasses.replace(ours, directory=path.parent, entry=path.name)
    if path.suffix == ".tflite":
        from edgeopt.backends.litert_file import with_ports  # noqa: PLC0415

        path.write_bytes(with_ports(path.read_bytes(), ours.inputs, ours.outputs))
    if path.suffix != ".onnx":
        return theirs
    model = onnx.load(path)
    graph, given, wanted = model.graph, model.graph.input[0].name, ours.inputs[0].name
    if given != wanted:  # both engines are timed on one sample, so their inputs need one name
        if any(wanted in node.output for node in graph.node):
            raise GraphError(f"A value inside {path.name} is already called {wanted!r}.")
        graph.input[0].name = wanted
        for node in graph.node:
            node.input[:] = [wanted if name == given else name for name in node.input]
        onnx.save(model, path)
    return dataclasses.replace(theirs, outputs=(dataclasses.replace(ours.outputs[0], name=graph.output[0].name),))


def accuracy(device: Device, engine: Engine, test: tuple[np.ndarray, np.ndarray], folder: Path) -> float:
    """Percent of the test samples that the engine gets right, run on the device."""
    x, y = test
    file = folder / "x.npz"
    np.savez(file, **{engine.inputs[0].name: x})
    with device.open(engine, threads=1) as session:
        session.request("load", runtime=engine.runtime, entry=session.entry, options=dict(engine.options), threads=1)
        session.request("infer", inputs=session.put(file), outputs="out.npz", batch=1)
        session.get("out.npz", folder / "out.npz")
    with np.load(folder / "out.npz") as archive:
        scores = archive[engine.outputs[0].name]
    return float(100 * np.mean(scores.argmax(1) == y))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """In the order of ``HEAD``."""
    verdict = " *" if row["high"] <= LIMIT else (" **slower**" if row["low"] > LIMIT else " open")
    ratio = f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{verdict}"
    times = (f"{row['edgeopt_ms']:.3f}", f"{row['reference_ms']:.3f}")
    return (row["net"], row["runtime"], row["precision"], *times, ratio, *(f"{one:.1f}" for one in row["accuracy_pct"]))


if __name__ == "__main__":
    sys.exit(main())
