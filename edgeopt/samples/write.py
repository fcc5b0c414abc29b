"""Write a sample application for a phone around a bundle."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.bundle.layout import ENGINE, MANIFEST, TARGET
from edgeopt.bundle.load import Bundle, load_bundle, verify_files
from edgeopt.bundle.tolerance import TOLERANCES
from edgeopt.core.documents import parse_yaml, read_text
from edgeopt.core.errors import BundleError, EdgeOptError, nearest_first
from edgeopt.samples.reference import DTYPES, write_self_test

__all__ = ["PLATFORMS", "Sample", "write_sample"]

PLATFORMS: Mapping[str, str] = {"android": "app/src/main/assets/bundle", "ios": "bundle"}
"""Platform → where its application keeps the bundle."""
_RUNTIMES = ("ort-mobile", "onnxruntime")
_ABIS = {"aarch64": "arm64-v8a", "x86_64": "x86_64"}
_TEMPLATES = Path(__file__).parent / "templates"
_NOT_ON_IOS = ("float64", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was written.

    Attributes:
        files: Relative to ``directory``, sorted.
        samples: How many reference samples the application re-runs.
    """

    directory: Path
    platform: str
    files: tuple[str, ...]
    samples: int


def write_sample(bundle: Path | str, platform: str, destination: Path) -> Sample:
    """Write the application's sources, the engine and the reference samples, whole or not at all.

    Args:
        bundle: A bundle whose engine ONNX Runtime opens.
        platform: ``android`` or ``ios``.
        destination: A new or an empty folder.

    Raises:
        BundleError: The bundle was changed, its engine is not one for ONNX Runtime or of types that the sources do not
            handle, or the destination holds something.
    """
    if platform not in PLATFORMS:
        known = ", ".join(nearest_first(platform, PLATFORMS))
        raise EdgeOptError("There is no sample for that platform.", got=repr(platform), fix=f"Known: {known}.")
    loaded = load_bundle(bundle)
    values = _values(loaded, platform)
    destination = _free(Path(destination))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".edgeopt-", dir=destination.parent) as scratch:
        folder = Path(scratch) / "sample"
        _render(_TEMPLATES / platform, folder, values)
        samples = _copy_bundle(loaded, folder / PLATFORMS[platform])
        if destination.is_dir():
            destination.rmdir()
        folder.rename(destination)
    files = sorted(path.relative_to(destination).as_posix() for path in destination.rglob("*") if path.is_file())
    return Sample(directory=destination, platform=platform, files=tuple(files), samples=samples)


def _values(bundle: Bundle, platform: str) -> dict[str, Any]:
    """What the templates are filled with; names of outside are cut down to what every file format takes.

    Raises:
        BundleError: The sources could not run this bundle.
    """
    manifest = bundle.manifest
    if manifest.runtime not in _RUNTIMES:
        raise BundleError(
            "The samples open engines of ONNX Runtime.",
            got=f"an engine for {manifest.runtime}",
            fix="Compile the model for one of them, e.g. --target android.",
        )
    if bundle.engine.status != "built":
        raise BundleError("The bundle's engine is not built yet.", got=bundle.directory)
    if changed := verify_files(bundle):
        raise BundleError("The bundle is not as it was written.", got=changed[0], fix="Copy it again, whole.")
    lacking = _NOT_ON_IOS if platform == "ios" else ()
    for spec in (*bundle.engine.inputs, *bundle.engine.outputs):
        if spec.dtype not in DTYPES or spec.dtype in lacking:
            known = ", ".join(dtype for dtype in DTYPES if dtype not in lacking)
            raise BundleError(f"The {platform} sample does not handle this type.", got=spec, fix=f"It has {known}.")
        if any(isinstance(dim, str) for dim in spec.shape[1:]) and spec in bundle.engine.inputs:
            raise BundleError("The samples feed fixed sizes, and an input varies beyond its batch.", got=spec)
    if manifest.precision not in TOLERANCES:
        raise BundleError("The bundle states a precision that edgeopt does not know.", got=repr(manifest.precision))
    first = manifest.contract.inputs[0]
    if first.scale is None and "multiply by" in (first.preprocessing or ""):
        raise BundleError(
            "The bundle does not state the scale of its input, and its preprocessing has one.",
            got=first.preprocessing,
            fix="An older edgeopt made it: compile the model again.",
        )
    name = re.sub(r"[^A-Za-z0-9]+", "-", manifest.model.name).strip("-")[:40] or "model"
    target = parse_yaml(read_text(bundle.directory / TARGET, error=BundleError), where=TARGET, error=BundleError)
    isa = target.get("isa") if isinstance(target, dict) else None
    return {
        "project": name,
        "title": name,
        "precision": manifest.precision,
        "target": _one_line(manifest.target),
        "runtime_version": _plain_version(manifest.runtime_version),
        "abi": _ABIS.get(isa.get("arch", "") if isinstance(isa, dict) else "", _ABIS["aarch64"]),
        "tolerance": TOLERANCES[manifest.precision][1],
        "preprocessing": _one_line(first.preprocessing),
        "session_config": [(_one_line(k), _one_line(str(v))) for k, v in sorted(_config(manifest.engine.options))],
    }


def _config(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    config = options.get("config")
    return list(config.items()) if isinstance(config, dict) else []


def _plain_version(version: str) -> str:
    found = re.match(r"\d+\.\d+\.\d+", version)
    if found is None:
        raise BundleError("The bundle's runtime version cannot be read.", got=repr(version))
    return found[0]


def _one_line(text: str | None) -> str:
    """For README.md: no line breaks and no code marks of its own."""
    return re.sub(r"[\s`]+", " ", text or "").strip()


def _free(destination: Path) -> Path:
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise BundleError(
            "The sample's folder is there and not empty; nothing is overwritten.",
            got=destination,
            fix="Give a new folder with -o.",
        )
    return destination.absolute()


def _render(templates: Path, folder: Path, values: Mapping[str, Any]) -> None:
    """Copy the sources as they are; fill in what ends in ``.j2``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # noqa: PLC0415 (an error needs none of it)

    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(enabled_extensions=("xml.j2",), default=False),
    )
    for path in sorted(p for p in templates.rglob("*") if p.is_file()):
        relative = path.relative_to(templates)
        made = folder / relative
        made.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".j2":
            made.with_suffix("").write_text(environment.get_template(relative.as_posix()).render(values), "utf-8")
        else:
            shutil.copyfile(path, made)


def _copy_bundle(bundle: Bundle, folder: Path) -> int:
    """The engine's file, the manifest that says how to feed it, and the samples."""
    share, tolerance = TOLERANCES[bundle.manifest.precision]
    folder.mkdir(parents=True)
    shutil.copyfile(bundle.directory / MANIFEST, folder / MANIFEST)
    samples = write_self_test(bundle, folder, share, tolerance)
    engine = bundle.directory / ENGINE
    for path in sorted(p for p in engine.rglob("*") if p.is_file() and p.suffix in (".ort", ".onnx", ".data")):
        made = folder / path.relative_to(engine)
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, made)
    return samples
