"""A TensorRT engine, built on the device that will run it, brought back into the bundle, and measured there."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle.document import Report
from edgeopt.bundle.layout import ENGINE, RECIPE, REPORT_JSON, TARGET, read_reference
from edgeopt.bundle.load import Bundle, load_bundle, verify_files
from edgeopt.bundle.manifest import Manifest
from edgeopt.bundle.write import write_bundle
from edgeopt.core.errors import BackendError, BundleError
from edgeopt.core.events import Event, Progress, ProgressListener, ignore_progress
from edgeopt.devices.base import Device
from edgeopt.devices.registry import opened
from edgeopt.devices.ssh.device import SshDevice
from edgeopt.gate.limits import judge
from edgeopt.pipeline.on_device import demand_runtime, judged_for, told_of_resuming
from edgeopt.recipes.load import load_recipe
from edgeopt.report.write import write_report
from edgeopt.targets.load import read_target

__all__ = ["build_bundle"]

_SCRIPT = "build_engine.py"
_MADE = ("layers.json", "timing.cache", "timing.cache.json")
_TIMED_OUT_S = 7200.0


def build_bundle(
    path: Path, *, device: str | Device, progress: ProgressListener = ignore_progress, measure: bool = True
) -> Bundle:
    """Build a bundle's engine on its device, and measure it there.

    The engine's folder is sent, its own script run there, and what it makes (plan, timing cache, layer information)
    brought back. The bundle is then written anew, whole or not at all, with the engine among its hashed files and the
    figures in its report.

    Args:
        device: A machine behind SSH that is what the bundle's target describes.

    Raises:
        BundleError: Its engine is built already or is none that a device builds, or its files were changed.
        TargetError: The device is not what the target describes.
        DeviceError: The device cannot be reached, or has no TensorRT in a version that the target asks for.
        BackendError: TensorRT refused the model; its own words are in the message.
    """
    bundle = _unbuilt(path)
    with opened(device, progress=progress) as where:
        if not isinstance(where, SshDevice):
            raise BundleError(
                "An engine is built this way on a device behind SSH.",
                got=device,
                fix=f"On this machine: cd {path / ENGINE} && {bundle.engine.next_command}.",
            )
        demand_runtime(where, bundle)
        _, reason = judged_for(read_target(bundle.directory / TARGET), where)
        with tempfile.TemporaryDirectory(prefix="edgeopt-built-") as scratch:
            folder = Path(scratch) / ENGINE
            shutil.copytree(bundle.engine.directory, folder)
            progress(Progress(stage=f"build on {where.address.label}", done=0, total=None))
            told = _build(where, bundle, folder)
            progress(Progress(stage=f"build on {where.address.label}", done=1, total=1))
            destination = _rewritten(bundle, folder, str(told["version"]), bundle.report)
            built = load_bundle(destination)
            report = _report(built, where, told, reason, progress, measure=measure)
            _rewritten(built, folder, str(told["version"]), report)
    return load_bundle(destination)


def _unbuilt(path: Path) -> Bundle:
    bundle = load_bundle(path)
    record = bundle.manifest.engine
    if record.status == "built":
        raise BundleError("The bundle's engine is built already.", got=path, fix="Measure it with `edgeopt bench`.")
    if not (bundle.engine.directory / _SCRIPT).is_file():
        raise BundleError("The bundle's engine is none that a device builds.", got=f"{bundle.manifest.runtime}, {path}")
    if problems := verify_files(bundle):
        raise BundleError("The bundle's files are not as they were written.", got="; ".join(map(str, problems[:3])))
    return bundle


def _build(where: SshDevice, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Run the script there, and fetch what it made into ``folder``.

    Returns:
        The script's own report.
    """
    entry = bundle.manifest.engine.entry
    files = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in {*_MADE, entry, f"{entry}.json"}
    }
    report = folder.with_name("report.json")
    work = where.work("build")
    work.send(files, "send the engine's folder")
    module = str(bundle.engine.options.get("module", "tensorrt"))
    code, said = work.run([_SCRIPT, "--module", module, "--verify", "--report", "report.json"], _TIMED_OUT_S)
    if not work.has("report.json"):
        last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
        raise BackendError("The TensorRT build ended without a report.", got=f"{last} ({where.address.text})")
    work.get("report.json", report)
    told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    if told.get("errors"):
        raise BackendError(f"TensorRT on {where.name} did not build the engine.", got=told["errors"][0].rstrip("."))
    if code:
        rows = ", ".join(f"{r['output']}: cosine {r['cosine']:.4f}" for r in told.get("verify", {}).get("outputs", []))
        raise BackendError(
            "The engine that TensorRT built computes something else than the model.",
            got=rows or said.strip()[-200:],
            fix="The bundle was left as it was. Compile in a higher precision, or report the graph to NVIDIA.",
        )
    for name in (entry, f"{entry}.json", *_MADE):
        if work.has(name):
            work.get(name, folder / name)
    return told


def _rewritten(bundle: Bundle, engine: Path, version: str, report: Report) -> Path:
    """The bundle with another engine folder and report, in the same place."""

    def fill(folder: Path) -> None:
        for name in bundle.manifest.files:
            source = bundle.directory / name
            if not name.startswith((f"{ENGINE}/", REPORT_JSON.partition(".")[0] + ".")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / name)
        shutil.copytree(engine, folder / ENGINE)
        write_report(report, folder)

    def manifest(_: Path) -> Manifest:
        record = bundle.manifest.engine.model_copy(update={"status": "built", "next_command": None})
        return bundle.manifest.model_copy(update={"engine": record, "runtime_version": version})

    return write_bundle(bundle.directory, fill, manifest)


def _report(
    bundle: Bundle, where: SshDevice, told: dict[str, Any], reason: str, progress: ProgressListener, *, measure: bool
) -> Report:
    from edgeopt.measure.latency import measure_latency

    report, old = bundle.report, bundle.report.shipped
    version = str(told["version"])
    what = f"{told['module']} {version}"
    message = f"Built on {where.name} by {what} in {told.get('seconds', '?')} s; outputs compared there."
    changes: dict[str, Any] = {
        "status": "not_measured",
        "reason": "built on the device, and not measured",
        "runtime_version": version,
        "next_command": None,
        "events": (*old.events, Event(kind="note", stage="build", message=message)),
    }
    if measure:
        recipe = load_recipe(bundle.directory / RECIPE)
        reference = read_reference(bundle.directory)
        if reference is None:
            raise BundleError("The bundle holds no reference inputs to run on.", got=bundle.directory)
        batch = bundle.manifest.engine.batch or recipe.export.batch
        config = recipe.measure
        figures = measure_latency(
            where, {old.id: bundle.engine}, sample=reference[0], config=config, batch=batch, progress=progress
        )[old.id]
        names = {m.name for m in figures.measurements}
        kept = tuple(m for m in old.measurements if m.name not in names)
        changes |= {
            "status": "failed" if figures.failed else "measured",
            "reason": figures.failed,
            "measurements": (*kept, *told_of_resuming(where, figures.measurements)),
            "latency_ms": tuple(float(x) for x in np.ravel(figures.blocks_ms)),
        }
    shipped = old.model_copy(update=changes)
    verdict = judge(shipped, load_recipe(bundle.directory / RECIPE).limits)
    measured = "and measured there" if shipped.status == "measured" else "and not measured"
    return report.model_copy(
        update={
            "candidates": tuple(shipped if c.id == old.id else c for c in report.candidates),
            "verdict": verdict,
            "headline": (
                f"{shipped.id} was built on {where.name} by {what}, {measured}; the other candidates were not.",
                f"{verdict.status}: {verdict.summary}",
            ),
            "target": report.target.model_copy(update={"measured_here": True, "reason": reason}),
            "device": where.info(),
        }
    )
