"""A target file for the machine at hand, from what was measured on it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgeopt.core.errors import TargetError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.devices.local import LocalDevice
from edgeopt.pipeline.host_peaks import measure_host
from edgeopt.targets.host import detect_host
from edgeopt.targets.load import dump_target, find_target, read_target
from edgeopt.targets.schema import Source, Target

__all__ = ["new_target"]


def new_target(
    name: str, *, source: str, path: Path, seed: int = 0, progress: ProgressListener = ignore_progress
) -> Target:
    """Measure this machine and write a target file that describes it.

    The file comes into being whole, at the end, and never in the place of another.

    Args:
        source: ``local``: the machine at hand. No other can be measured this way yet.
        path: Where to write; nothing may be there.

    Raises:
        TargetError: The name is taken or none, ``source`` is not ``local``, the file exists, or cannot be written.
        BackendError: ONNX Runtime is not installed.
    """
    if source != "local":
        raise TargetError(
            "A target file can be made of this machine only.",
            got=repr(source),
            fix="Write --from local, on the device.",
        )
    _demand_free(path)
    host = detect_host()
    found = find_target("local")
    named = _named(found, name)
    measured = measure_host(found, LocalDevice(), seed=seed, progress=progress)
    isa = ", ".join(found.isa.requires) or "baseline"
    facts = (
        Source(
            fact=f"isa, cores, memory_mib: {host.arch}, {isa}; {host.cores} cores, {host.memory_mib} MiB.",
            source="experiment: archspec, CPUID and the operating system, on the machine itself",
        ),
        *measured.sources,
    )
    changes = {
        "title": host.model or host.cpu,
        "description": f"Made of the machine at hand: {host.cpu}.",
        "identify": (host.model,) if host.model else (),
        "peaks": measured.peaks,
        "channel_multiple": measured.channel_multiple or named.channel_multiple,
        "sources": (*facts, *named.sources),
    }
    whole = {key: getattr(named, key) for key in Target.model_fields} | changes
    target = Target.model_validate(whole)
    _write_new(path, dump_target(target))
    return read_target(path)


def _named(found: Target, name: str) -> Target:
    """``local`` under its new name, checked before anything is measured."""
    from pydantic import ValidationError

    whole = {key: getattr(found, key) for key in Target.model_fields}
    try:
        named = Target.model_validate(whole | {"name": name, "aliases": (), "detected": False})
    except ValidationError as reason:
        raise TargetError(
            "The name cannot be a target's.", got=repr(name), fix="Use small letters, digits, dots and hyphens."
        ) from reason
    try:
        there = find_target(name)
    except TargetError:
        return named
    raise TargetError("There is a target of that name.", got=f"{name!r}: {there.title}", fix="Choose another name.")


def _demand_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise TargetError("The file exists, and is not written over.", got=path, fix="Give another with -o FILE.")
    if not path.parent.is_dir():
        raise TargetError(
            "There is no such folder.", got=path.parent, fix="Make it, or give another file with -o FILE."
        )


def _write_new(path: Path, text: str) -> None:
    """Write beside, then link: whole or not at all, and never over what came in the meantime."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)  # noqa: PTH101 (a temporary file is its maker's alone)
            os.link(file.name, path)
    except FileExistsError:
        _demand_free(path)
    except OSError as reason:
        raise TargetError("The target file cannot be written.", got=f"{path} ({reason.strerror})") from reason
