"""Where things are in a bundle, and how the small ones are written and read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from edgeopt.bundle.document import SCHEMA_VERSION, Report
from edgeopt.core.engine import Arrays
from edgeopt.core.errors import BundleError, EdgeOptError

__all__ = [
    "CALIBRATION",
    "ENGINE",
    "MANIFEST",
    "MAX_REFERENCE_SAMPLES",
    "MODEL",
    "RECIPE",
    "REFERENCE_INPUTS",
    "REFERENCE_OUTPUTS",
    "REPORT_HTML",
    "REPORT_JSON",
    "REPORT_MARKDOWN",
    "TARGET",
    "first_problem",
    "read_json",
    "read_reference",
    "read_report",
    "refuse_newer",
    "report_json",
    "write_json",
    "write_reference",
    "write_yaml",
]

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
TARGET = "target.yaml"
MODEL = "model.onnx"
ENGINE = "engine"
CALIBRATION = "calibration.json"
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
REPORT_HTML = "report.html"
REFERENCE_INPUTS = "reference_inputs.npz"
REFERENCE_OUTPUTS = "reference_outputs.npz"
MAX_REFERENCE_SAMPLES = 16


def report_json(report: Report) -> str:
    """The document as JSON text: what ``report.json`` holds and ``--json`` prints.

    Raises:
        BundleError: A figure is NaN or infinite, which JSON cannot say and a report must not.
    """
    return _to_json(report.model_dump(mode="json"), "The report")


def read_report(path: Path) -> Report:
    """Read ``report.json``.

    Raises:
        BundleError: The file is missing, is no report, or was made by a newer edgeopt.
    """
    document = read_json(path, "report")
    refuse_newer(document, SCHEMA_VERSION, path)
    try:
        return Report.model_validate(document)
    except (ValidationError, EdgeOptError) as error:
        raise BundleError("The report is malformed.", got=f"{path}: {first_problem(error)}", fix=_REMAKE) from error


def write_reference(directory: Path, inputs: Arrays, outputs: Arrays) -> None:
    """Write the samples that ``edgeopt verify`` re-runs: at most 16, the same number in each array.

    Args:
        directory: The bundle being filled.
        inputs: By the model's input names, [N, …], real samples.
        outputs: By output name, [N, …]: what the shipped engine gave for them on the machine that compiled it; where
            the engine is not built, what ``model.onnx`` gave.

    Raises:
        BundleError: More than 16 samples, or arrays of different length.
    """
    lengths = {len(array) for array in (*inputs.values(), *outputs.values())}
    if len(lengths) != 1 or not 1 <= max(lengths) <= MAX_REFERENCE_SAMPLES:
        raise BundleError(
            f"Reference arrays hold between 1 and {MAX_REFERENCE_SAMPLES} samples, all the same number.",
            got=f"lengths {sorted(lengths)}",
        )
    for name, arrays in ((REFERENCE_INPUTS, inputs), (REFERENCE_OUTPUTS, outputs)):
        _write_npz(directory / name, arrays)


def read_reference(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """The reference inputs and outputs, or None where the bundle has none.

    Raises:
        BundleError: A file is there but cannot be read.
    """
    if not (directory / REFERENCE_INPUTS).is_file() or not (directory / REFERENCE_OUTPUTS).is_file():
        return None
    return _read_npz(directory / REFERENCE_INPUTS), _read_npz(directory / REFERENCE_OUTPUTS)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, or a pydantic model, readable and in a stable form.

    Raises:
        BundleError: It holds NaN or an infinity.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    path.write_text(_to_json(plain, path.name), encoding="utf-8")


def write_yaml(path: Path, value: Mapping[str, Any] | BaseModel) -> None:
    """Write a resolved recipe or target: keys in their own order, nothing left out."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)
    path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; ``what`` names it in errors."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"The bundle has no {what}.", got=path, fix=_REMAKE) from error
    except OSError as error:
        raise BundleError(f"The {what} cannot be read.", got=f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"The {what} is truncated or not JSON.", got=f"{path}: {error}", fix=_REMAKE) from error
    if not isinstance(value, dict):
        raise BundleError(f"The {what} is not a JSON object.", got=path, fix=_REMAKE)
    return value


def refuse_newer(document: Mapping[str, Any], known: int, path: Path) -> None:
    """Stop at a document of a schema version that this edgeopt does not know."""
    version = document.get("schema_version")
    if isinstance(version, int) and version > known:
        raise BundleError(
            f"The bundle was made by a newer edgeopt: {path.name} has schema version {version}, "
            f"and this edgeopt reads up to {known}.",
            got=f"edgeopt {document.get('edgeopt_version', 'of unknown version')}",
            fix="Upgrade with `pip install --upgrade edgeopt`.",
        )


def first_problem(error: Exception) -> str:
    """The first thing wrong with a document, in one line: where, and what."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}"
    return str(error)


_REMAKE = "Compile the model again with `edgeopt compile`."
# Fixed, so that equal arrays make equal files.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def _to_json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise BundleError(
            f"{what} holds a figure that is NaN or infinite.",
            got=", ".join(_not_finite(value)) or str(error),
            fix="A figure that was not measured is None, with its reason.",
        ) from error


def _not_finite(value: Any, where: str = "") -> list[str]:
    """The places of NaN and infinities in a JSON value."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in _not_finite(item, f"{where}.{key}".lstrip("."))]
    if isinstance(value, (list, tuple)):
        return [place for index, item in enumerate(value) for place in _not_finite(item, f"{where}[{index}]")]
    return [f"{where} = {value}"] if isinstance(value, float) and not np.isfinite(value) else []


def _write_npz(path: Path, arrays: Arrays) -> None:
    """``numpy.savez_compressed`` with a fixed date in each member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(arrays[name]), allow_pickle=False)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, AttributeError) as error:
        raise BundleError("The reference samples cannot be read.", got=f"{path}: {error}", fix=_REMAKE) from error
