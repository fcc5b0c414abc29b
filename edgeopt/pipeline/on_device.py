"""A device beside this machine: whether it can run what is to be run, and whether it may stand for the target."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgeopt.bundle.layout import TARGET
from edgeopt.bundle.load import Bundle
from edgeopt.core.engine import Arrays, Engine
from edgeopt.core.errors import TargetError
from edgeopt.core.measurement import Measurement
from edgeopt.devices.base import Device
from edgeopt.targets.host import Host, detect_host, stands_for
from edgeopt.targets.load import read_target
from edgeopt.targets.schema import Target

__all__ = ["demand_runtime", "demand_runtimes", "host_of", "is_remote", "judged_for", "run_there", "told_of_resuming"]


def is_remote(device: Device) -> bool:
    """Whether engines run on another machine than this one."""
    return hasattr(device, "demand")


def demand_runtime(device: Device, bundle: Bundle) -> None:
    """Whether the device has the bundle's runtime in a version that its target asks for; this machine is not asked.

    Raises:
        DeviceError: It has not; what to install is in the message.
    """
    demand = getattr(device, "demand", None)
    if demand is None:
        return
    target = read_target(bundle.directory / TARGET)
    versions = next((rules.versions for rules in target.runtimes if rules.name == bundle.manifest.runtime), "")
    module = str(bundle.engine.options.get("module", ""))
    if module == "tensorrt_rtx":
        versions = ""  # it counts its versions on its own, and the engine's passport names the one that it is tied to
    demand(bundle.manifest.runtime, versions, module)


def host_of(device: Device) -> Host:
    """What the machine that ``device`` runs engines on can do."""
    ask = getattr(device, "host", None)
    host: Host = detect_host() if ask is None else ask()
    return host


def judged_for(target: Target, device: Device) -> tuple[bool, str]:
    """``stands_for``, for the machine that ``device`` runs engines on; False for one that gives numerics only.

    Raises:
        TargetError: The user named another machine to measure on, and it is not what the target describes.
    """
    numerics_only = getattr(device, "numerics_only", "")
    fits, reason = stands_for(target, host_of(device), numerics=bool(numerics_only))
    if not is_remote(device):
        return fits, reason
    reason = reason.replace("This machine", device.name).replace("this machine", "the device")
    reason = reason.replace("this CPU", "its CPU").replace("found here", "found there")
    if not fits:
        raise TargetError(
            "The device cannot stand for the target.",
            got=f"{device.name}: {reason}",
            fix="Compile for a target that the device fits (--target local describes it), or leave --device out.",
        )
    if numerics_only:
        return False, f"numerics only: {numerics_only}"
    return True, reason


def demand_runtimes(device: Device, target: Target) -> None:
    """``demand_runtime``, for all that a target compares.

    Raises:
        DeviceError: One is not there, or in another version.
    """
    demand = getattr(device, "demand", None)
    if demand is not None:
        for rules in target.runtimes:
            demand(rules.name, rules.versions)


def run_there(device: Device, engine: Engine, arrays: Arrays, threads: int | None) -> dict[str, np.ndarray]:
    """Run samples, one array [N, …] per input, through an engine on a device; one array [N, …] per output.

    Raises:
        DeviceError: The engine cannot be run there.
    """
    batch = engine.inputs[0].batch
    with (
        tempfile.TemporaryDirectory(prefix="edgeopt-there-") as scratch,
        device.open(engine, threads=threads) as session,
    ):
        given, taken = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        with given.open("wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # its stub takes the names for options
        session.request(
            "load", runtime=engine.runtime, entry=session.entry, options=dict(engine.options), threads=threads
        )
        size = batch if isinstance(batch, int) else 1  # every profile of a dynamic engine takes one
        session.request("infer", inputs=session.put(given), outputs=taken.name, batch=size)
        session.get(taken.name, taken)
        with np.load(taken, allow_pickle=False) as outputs:
            return {name: outputs[name] for name in outputs.files}


def told_of_resuming(device: Device, measurements: Iterable[Measurement]) -> list[Measurement]:
    """Say in the conditions of what was measured that the line was lost, and how often."""
    times = int(getattr(device, "resumed", 0))
    if not times:
        return list(measurements)
    return [
        dataclasses.replace(row, conditions={**row.conditions, "line_lost_and_resumed": times}) for row in measurements
    ]
