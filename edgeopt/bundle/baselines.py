"""Baselines in a folder that is kept under version control: ``NAME/baseline.json``, ``NAME/outcomes.npz``, ``current``."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from edgeopt.bundle.baseline import BASELINE, Recorded, read_baseline, read_recorded
from edgeopt.bundle.layout import MANIFEST, write_json
from edgeopt.bundle.outcomes import OUTCOMES
from edgeopt.bundle.replace import clean_leftovers, new_sibling, replace_folder
from edgeopt.core.errors import BundleError, nearest_first

__all__ = ["CURRENT", "current_name", "find_baseline", "list_baselines", "promote_baseline", "save_baseline"]

CURRENT = "current"
"""The file that names the baseline in force; as a name it stands for that baseline."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def save_baseline(bundle: Path, folder: Path, name: str | None = None, *, force: bool = False) -> Path:
    """Keep what was recorded of a bundle, whole or not at all.

    Args:
        bundle: Its folder; every file is checked against its hash first.
        folder: Of the baselines; made where missing.
        name: None: the bundle's folder name.
        force: Replace a baseline of that name.

    Returns:
        The baseline's folder.

    Raises:
        BundleError: The bundle was changed, the name is no plain one, is taken, or the folder cannot be written.
    """
    recorded = read_recorded(bundle)
    name = _checked(name or recorded.document.name)
    destination = folder / name
    if destination.exists() and not (destination / BASELINE).is_file():
        raise BundleError("There is something else of that name.", got=destination, fix="Give another --name.")
    if destination.exists() and not force:
        raise BundleError(
            "There is a baseline of that name already.",
            got=destination,
            fix="Give another --name, or replace it with --force.",
        )
    partial = new_sibling(destination, "partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_leftovers(destination)
        partial.mkdir()
        if recorded.outcomes is not None:
            shutil.copyfile(recorded.directory / OUTCOMES, partial / OUTCOMES)
        write_json(partial / BASELINE, recorded.document.model_copy(update={"name": name}))
        replace_folder(partial, destination)
    except OSError as error:
        raise BundleError(
            "The baseline cannot be written.", got=f"{destination}: {error.strerror}", fix="Give another --folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return destination


def promote_baseline(folder: Path, name: str) -> str | None:
    """Make a baseline the current one.

    Returns:
        The name that was current before, or None.

    Raises:
        BundleError: There is no such baseline, or it is damaged.
    """
    read_baseline(_existing(folder, name))
    before = current_name(folder)
    handle, draft = tempfile.mkstemp(dir=folder, prefix=".current-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{name}\n")
        Path(draft).chmod(0o644)
        Path(draft).replace(folder / CURRENT)
    finally:
        Path(draft).unlink(missing_ok=True)
    return before


def current_name(folder: Path) -> str | None:
    """The current baseline's name, or None where none was promoted.

    Raises:
        BundleError: The pointer holds no plain name.
    """
    path = folder / CURRENT
    if not path.is_file():
        return None
    text = path.read_bytes()[:200].decode("utf-8", "replace").strip()
    if not _NAME.fullmatch(text) or text == CURRENT:
        fix = "Write it with `edgeopt baseline promote NAME`."
        raise BundleError("The pointer to the current baseline holds no name.", got=f"{text!r} in {path}", fix=fix)
    return text


def list_baselines(folder: Path) -> tuple[str, ...]:
    """The names of the baselines in a folder, sorted."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.parent.name for path in folder.glob(f"*/{BASELINE}") if _NAME.fullmatch(path.parent.name)))


def find_baseline(text: str, folder: Path) -> Recorded:
    """What ``--baseline`` names: a bundle's folder, a baseline's folder or file, or a name in ``folder``.

    Raises:
        BundleError: There is no such thing, or it is damaged.
    """
    path = Path(text)
    if path.name == BASELINE and path.is_file():
        return read_baseline(path.parent)
    if (path / BASELINE).is_file():
        return read_baseline(path)
    if (path / MANIFEST).is_file():
        return read_recorded(path)
    if text == CURRENT:
        name = current_name(folder)
        if name is None:
            raise BundleError(
                "No baseline is the current one.",
                got=folder / CURRENT,
                fix="Choose one with `edgeopt baseline promote NAME`.",
            )
        return read_baseline(_existing(folder, name))
    if not _NAME.fullmatch(text) or path.exists():
        fix = f"Give a bundle's folder, a {BASELINE}, or the name of a baseline in {folder}."
        raise BundleError("This is neither a bundle nor a baseline.", got=text, fix=fix)
    return read_baseline(_existing(folder, text))


def _existing(folder: Path, name: str) -> Path:
    names = list_baselines(folder)
    if name not in names:
        there = f"Nearest first: {', '.join(nearest_first(name, names)[:5])}." if names else "It holds none."
        fix = (
            f"{there} Save one with `edgeopt baseline save BUNDLE --name {name if _NAME.fullmatch(name) else 'NAME'}`."
        )
        raise BundleError(f"There is no baseline of that name in {folder}.", got=repr(name), fix=fix)
    return folder / name


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name == CURRENT:
        raise BundleError(
            "This is no name for a baseline.",
            got=repr(name),
            fix=f"Use letters, digits, dots, dashes and underscores, with --name; {CURRENT!r} is the pointer's.",
        )
    return name
