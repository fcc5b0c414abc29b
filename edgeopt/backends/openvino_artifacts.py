"""What an OpenVINO engine holds beside its IR: the compiled model, or what compiles it on the device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners.openvino import compile_properties
from edgeopt.backends.openvino_options import CompileOptions
from edgeopt.core.events import Event

__all__ = ["BLOB", "BUILD_COMMAND", "artifact_events", "export_blob", "write_builder"]

BLOB = "model.blob"
BUILD_COMMAND = "python3 build_blob.py"
_SCRIPT = Path(__file__).parent / "on_device" / "build_blob.py"


def export_blob(compiled: Any, directory: Path) -> None:
    """Write the compiled model, so that the device opens it without compiling.

    OpenVINO writes its version and the instruction set into it and refuses it elsewhere; the runner then compiles the
    IR beside it.
    """
    made = compiled.export_model()  # a stream in newer versions, bytes in older ones
    (directory / BLOB).write_bytes(made if isinstance(made, bytes) else made.getvalue())


def write_builder(directory: Path, options: Mapping[str, Any]) -> None:
    """Write what compiles the IR on a device that is not here."""
    shutil.copyfile(_SCRIPT, directory / _SCRIPT.name)
    settings = {"device": options["device"], "properties": compile_properties(options, None)}
    (directory / "build.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def artifact_events(options: CompileOptions, *, here: bool) -> tuple[Event, ...]:
    """What a reader of the report must know of these files."""
    return tuple(Event(kind="note", stage="compile", message=text) for text in _sentences(options, here=here))


def _sentences(options: CompileOptions, *, here: bool) -> Iterator[str]:
    if options.compress:
        yield "Float weights are stored in float16 (compress_to_fp16): each was rounded once, to 11 bits."
    if options.blob:
        yield (
            "model.blob holds the model as compiled here; OpenVINO takes it with the same version and instruction set, "
            "and elsewhere model.xml is compiled instead."
        )
    if options.streams > 1:
        yield f"{options.streams} streams: a batch beyond the compiled one runs in pieces side by side."
    if options.device == "NPU":
        yield "An NPU computes float layers in float16, also those of a float32 graph."
    if not here:
        yield (
            f"OpenVINO sees no {options.device} on this machine: the IR was written and read back, not compiled for it and "
            "not run."
        )
