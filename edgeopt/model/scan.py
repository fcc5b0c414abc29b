"""Find everything in a `torch.export` archive that would execute code, before torch sees the archive.

`torch.export.load` (2.13) and the first `.module()` run what an archive says in more ways than four. Refused here:

1. a pickle among the sample inputs (torch falls back to an unrestricted unpickler),
2. a weight or constant stored as a pickle (``use_pickle``), or the whole state dict as one (archives of torch 2.8),
3. opaque objects in ``data/constants``, and TorchBind objects, which their own code rebuilds,
4. symbolic sizes (``expr_str``): evaluated by SymPy, which is `eval`,
5. shape guards (``guards_code``): pasted into a function and run by `exec`,
6. AOTInductor libraries (``data/aotinductor``): native code, loaded as soon as they are there,
7. tree specs that import a module of their choice (default factories, enums).

The tests show plain torch running 1 to 5. Two more are refused though torch's verifier and syntax errors stop the
simple attempts today: a node whose target is any other attribute below ``torch`` (``torch.os.mkdir``), and names that
FX would write into the Python source it executes.

The scan alone would leave a gap: two zip readers can see two archives in one file. So `repack` writes a new archive
from what was scanned (without sample inputs, guards and whatever else is not needed), and only that is loaded.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.model.archive import Archive, open_archive
from edgeopt.model.pickles import is_plain, torch_save_globals
from edgeopt.model.program_json import program_complaints, sanitized_program

__all__ = ["scan_archive", "scanned_copy"]

MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_PICKLES = ("data/weights/model.pt", "data/constants/model.pt")
_SAMPLES = "data/sample_inputs/model.pt"
_KEPT = ("archive_format", "archive_version", ".data/version", "version", "byteorder")
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_SHOWN = 5

_FIX = (
    "Nothing was loaded. If you made this file yourself, or trust who did, pass --trust-model (trust=True in Python); "
    "else ask for a state dict, or for an archive saved by plain torch.export.save."
)

Complaint = tuple[str, str]


def scan_archive(path: Path) -> None:
    """Read every part of a `.pt2` archive that torch would act upon, and refuse what could execute code.

    Raises:
        UnsafeModelError: Something in it would; the message names each member and why.
        ModelError: It is damaged, or holds no model.
    """
    with open_archive(path) as archive:
        _scan(archive)


def scanned_copy(path: Path) -> io.BytesIO:
    """Scan the archive, and give a copy that holds the scanned members only.

    Devices are set to the CPU in the copy; sample inputs and guards are left out.

    Raises:
        UnsafeModelError, ModelError: As `scan_archive`.
    """
    with open_archive(path) as archive:
        program, payloads = _scan(archive)
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
            for name in (*_KEPT, *_PICKLES):
                if name in archive.members:
                    out.writestr(f"model/{name}", archive.read(name))
            for name, config in payloads.items():
                out.writestr(f"model/{name}", json.dumps(config))
                folder = name.rpartition("/")[0]
                for member in sorted({entry["path_name"] for entry in config["config"].values()}):
                    out.writestr(f"model/{folder}/{member}", archive.read(f"{folder}/{member}"))
            out.writestr(f"model/{_SAMPLES}", b"")
            out.writestr(f"model/{MODEL}", json.dumps(program))
        copy.seek(0)
        return copy


def _scan(archive: Archive) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    if MODEL not in archive.members:
        models = [n for n in archive.members if n.startswith("models/")]
        raise ModelError(
            "The archive holds no program named 'model'.",
            got=", ".join(models) or "no program at all",
            fix="Save it with torch.export.save(torch.export.export(model, inputs), 'model.pt2').",
        )
    complaints = _member_complaints(archive)
    program = _json(archive, MODEL)
    payloads = {name: _json(archive, name) for name in (_WEIGHTS, _CONSTANTS) if name in archive.members}
    try:
        complaints += [(MODEL, why) for why in program_complaints(program)]
        for name, config in payloads.items():
            complaints += _payload_complaints(archive, name, config)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"The archive's description of the program is malformed ({type(error).__name__}: {error}).",
            got=str(archive.path),
            fix="Save it again with torch.export.save.",
        ) from error
    if complaints:
        raise _refusal(archive.path, complaints)
    return sanitized_program(program), {name: _on_cpu(config) for name, config in payloads.items()}


def _member_complaints(archive: Archive) -> list[Complaint]:
    complaints: list[Complaint] = []
    for name in archive.members:
        file = name.rpartition("/")[2]
        if name.startswith("data/aotinductor/") or file.endswith((".so", ".dll", ".dylib", ".pyd")):
            complaints.append((name, "native code, which torch would load"))
        elif file.startswith("opaque_obj_"):
            complaints.append((name, "an opaque object, which torch would unpickle"))
        elif file.startswith("custom_obj_"):
            complaints.append((name, "a TorchBind object, whose own code would rebuild it"))
        elif name in _PICKLES or name.startswith("data/sample_inputs/"):
            complaints += [(name, why) for why in _pickle_complaints(archive, name)]
    return complaints


def _pickle_complaints(archive: Archive, name: str) -> list[str]:
    content = archive.read(name)
    if not content:
        return []
    try:
        names = torch_save_globals(content)
    except ValueError as error:
        return [f"not what torch.save writes for tensors ({error}), and torch would unpickle it"]
    if is_plain(names):
        return []
    return ["a pickle that would import " + ", ".join(sorted(n for n in names if not is_plain([n])))]


def _payload_complaints(archive: Archive, name: str, config: dict[str, Any]) -> list[Complaint]:
    complaints: list[Complaint] = []
    folder = name.rpartition("/")[0]
    for key, entry in config["config"].items():
        file = str(entry["path_name"])
        if entry.get("use_pickle"):
            complaints.append((f"{folder}/{file}", f"{key!r} is stored as a pickle (use_pickle)"))
        elif not _PAYLOAD.fullmatch(file):
            complaints.append((name, f"{key!r} is stored in {file!r}, which is no plain tensor"))
        elif f"{folder}/{file}" not in archive.members:
            raise ModelError(f"The archive lacks the values of {key!r}.", got=f"{archive.path}, member {folder}/{file}")
        else:
            sizes = [int(size["as_int"]) for size in entry["tensor_meta"]["sizes"]]
            # torch allocates an empty record's tensor from its described size: a few bytes could ask for terabytes.
            if not archive.members[f"{folder}/{file}"].file_size and 0 not in sizes:
                raise ModelError(f"The archive's {key!r} of shape {sizes} holds no values.", got=str(archive.path))
    return complaints


def _json(archive: Archive, name: str) -> dict[str, Any]:
    try:
        value = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The archive's member {name!r} is not JSON: {error}.", got=str(archive.path)) from error
    if not isinstance(value, dict):
        raise ModelError(f"The archive's member {name!r} is not a JSON object.", got=str(archive.path))
    return value


def _on_cpu(config: dict[str, Any]) -> dict[str, Any]:
    for entry in config["config"].values():
        if entry.get("tensor_meta"):
            entry["tensor_meta"]["device"] = {"type": "cpu", "index": None}
    return config


def _refusal(path: Path, complaints: list[Complaint]) -> UnsafeModelError:
    shown = "; ".join(f"{member}: {why}" for member, why in complaints[:_SHOWN])
    more = f"; and {len(complaints) - _SHOWN} more" if len(complaints) > _SHOWN else ""
    return UnsafeModelError(f"Loading {path.name} could execute code that it carries: {shown}{more}.", fix=_FIX)
