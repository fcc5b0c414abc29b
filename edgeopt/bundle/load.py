"""Read a bundle that may have been damaged, or made by someone hostile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from edgeopt.bundle.document import Report
from edgeopt.bundle.layout import ENGINE, MANIFEST, REPORT_JSON, first_problem, read_json, read_report, refuse_newer
from edgeopt.bundle.manifest import MANIFEST_VERSION, Manifest
from edgeopt.core.engine import Engine
from edgeopt.core.errors import BundleError, EdgeOptError
from edgeopt.core.fingerprint import hash_file

__all__ = ["Bundle", "Problem", "load_bundle", "verify_files"]

_BUILT_BESIDE = ("layers.json", "timing.cache")  # what TensorRT leaves beside the plan it builds


@dataclass(frozen=True, kw_only=True)  # no slots: ``report`` is kept after the first read
class Bundle:
    """A bundle on disk."""

    directory: Path
    manifest: Manifest
    engine: Engine

    @cached_property
    def report(self) -> Report:
        """The report, read on first use.

        Raises:
            BundleError: ``report.json`` is missing or malformed.
        """
        return read_report(self.directory / REPORT_JSON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is not as the manifest says. ``path`` is relative to the bundle."""

    path: str
    kind: Literal["changed", "missing", "unexpected"]
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def load_bundle(path: Path | str, *, complete: bool = True) -> Bundle:
    """Read a bundle's manifest and check that every file it lists is there. Contents are not hashed.

    An engine that the manifest has as not built, and that is there, was built by the device: it counts as built.

    Args:
        path: The bundle's folder.
        complete: False lets files be missing, for whoever wants to list what is (``verify_files``).

    Raises:
        BundleError: This is no bundle, its manifest is truncated or made by a newer edgeopt, a file is missing, or a
            path in it leads out of the folder.
    """
    directory = Path(path)
    if not directory.is_dir() or not (directory / MANIFEST).is_file():
        what = "not a folder" if not directory.is_dir() else f"a folder without {MANIFEST}"
        fix = "Give the folder that `edgeopt compile` wrote."
        raise BundleError("This is not an edgeopt bundle.", got=f"{directory} ({what})", fix=fix)
    directory = directory.resolve()
    manifest = _read_manifest(directory / MANIFEST)
    for name in manifest.files:
        _check_place(directory, name)
        if complete and not (directory / name).is_file():
            fix = "Copy the bundle again, whole, or compile the model again."
            raise BundleError("A file of the bundle is missing.", got=f"{name} in {directory}", fix=fix)
    record = manifest.engine
    if record.status == "built" and f"{ENGINE}/{record.entry}" not in manifest.files:
        raise BundleError("The bundle's engine is not among its files.", got=f"{ENGINE}/{record.entry}")
    made_here = record.status == "not_built" and (directory / ENGINE / record.entry).is_file()
    engine = Engine(
        runtime=manifest.runtime,
        runtime_version=manifest.runtime_version,
        directory=directory / ENGINE,
        entry=record.entry,
        status="built" if made_here else record.status,
        inputs=record.inputs,
        outputs=record.outputs,
        options=record.options,
        next_command=record.next_command,
        events=record.events,
    )
    return Bundle(directory=directory, manifest=manifest, engine=engine)


def verify_files(bundle: Bundle) -> list[Problem]:
    """Compare every file with the manifest: changed, missing, or not listed at all. In order of their paths.

    What a device writes when it builds an engine that was shipped unbuilt is expected, and has no hash to compare.
    """
    problems, engine = [], bundle.manifest.engine
    made = {f"{ENGINE}/{name}" for name in (engine.entry, *_BUILT_BESIDE) if engine.status == "not_built"}
    for name, record in bundle.manifest.files.items():
        path = bundle.directory / name
        if not path.is_file():
            problems.append(Problem(path=name, kind="missing", message="the file is missing"))
        elif path.stat().st_size != record.bytes:
            size = path.stat().st_size
            message = f"the file has {size:,} bytes, and had {record.bytes:,} when the bundle was written"
            problems.append(Problem(path=name, kind="changed", message=message))
        elif hash_file(path) != record.sha256:
            problems.append(Problem(path=name, kind="changed", message="the content is not what was written (sha256)"))
    for path in bundle.directory.rglob("*"):
        name = path.relative_to(bundle.directory).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in {*bundle.manifest.files, *made, MANIFEST}:
            problems.append(Problem(path=name, kind="unexpected", message="the manifest does not list this file"))
    return sorted(problems, key=lambda problem: problem.path)


def _read_manifest(path: Path) -> Manifest:
    document = read_json(path, "manifest")
    if document.get("kind") != "edgeopt-bundle":
        raise BundleError("This is not an edgeopt bundle.", got=f"{path} (another kind of manifest)")
    refuse_newer(document, MANIFEST_VERSION, path)
    try:
        return Manifest.model_validate(document)
    except (ValidationError, EdgeOptError) as error:
        fix = "Compile the model again with `edgeopt compile`."
        raise BundleError("The manifest is malformed.", got=f"{path}: {first_problem(error)}", fix=fix) from error


def _check_place(directory: Path, name: str) -> None:
    """Refuse a file that a link takes out of the folder, whether or not there is one."""
    try:
        inside = (directory / name).resolve().is_relative_to(directory)
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        raise BundleError("A file of the bundle is a link that leads out of it.", got=f"{name} in {directory}")
