"""Write a bundle: beside its destination, hashed, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from edgeopt.bundle.layout import MANIFEST, write_json
from edgeopt.bundle.manifest import FileRecord, Manifest
from edgeopt.bundle.replace import clean_leftovers, new_sibling, replace_folder
from edgeopt.core.errors import BundleError
from edgeopt.core.fingerprint import hash_bytes, hash_file

__all__ = ["check_destination", "write_bundle"]

_LOCK_TIMEOUT_S = 60.0


def write_bundle(destination: Path, fill: Callable[[Path], None], manifest: Callable[[Path], Manifest]) -> Path:
    """Write a bundle, whole or not at all; a bundle that is there is replaced.

    Args:
        destination: The folder to make. Missing parents are made too.
        fill: Writes everything but the manifest into the empty folder it is given.
        manifest: Says what was written, once ``fill`` is done; its ``files`` are filled in here.

    Returns:
        The destination, resolved: a symbolic link to a bundle stays, what it points to is replaced.

    Raises:
        BundleError: The destination holds something that edgeopt did not write, cannot be written, or the disk is
            full. Nothing is left behind and nothing is lost, then or when interrupted.
    """
    destination = check_destination(destination)
    with _explained(destination), _parents_of(destination):
        with _lock(destination):
            clean_leftovers(destination)
        partial = new_sibling(destination, "partial")
        try:
            # Not mkdtemp: its folders are private, and a bundle is to be shipped.
            partial.mkdir()
            fill(partial)
            draft = manifest(partial)
            sealed = Manifest.model_validate(draft.model_dump() | {"files": _records(partial)})
            write_json(partial / MANIFEST, sealed)
            _flush(partial)
            with _lock(destination):
                check_destination(destination)
                replace_folder(partial, destination)
            _flush_folder(destination.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return destination


def check_destination(destination: Path) -> Path:
    """Whether a bundle may be written here; cheap, so that it can be asked before the work starts.

    Returns:
        The destination, resolved.

    Raises:
        BundleError: A file is there, or a folder that is neither empty nor an edgeopt bundle, or a bundle to which
            someone added files of their own, or nothing can be made in the nearest existing parent.
    """
    destination = Path(destination)
    try:
        destination = destination.resolve()
        if destination.is_dir():
            _refuse_foreign(destination)
        elif destination.exists():
            raise BundleError("The bundle's destination is a file.", got=destination, fix="Give a folder with -o.")
        parent = next(p for p in destination.parents if p.exists())
    except (OSError, RuntimeError) as error:
        raise BundleError("The bundle's destination cannot be looked at.", got=f"{destination}: {error}") from error
    if not parent.is_dir():
        raise BundleError("The bundle's destination lies below a file.", got=parent, fix="Give another folder with -o.")
    with _explained(destination):
        _probe(parent, destination.name)
    return destination


def _probe(parent: Path, name: str) -> None:
    """Write a little and take it away again: what permissions allow can still fail (/proc, read-only, a full disk)."""
    probe = new_sibling(parent / name, "probe")
    try:
        probe.mkdir()
        (probe / "page").write_bytes(bytes(4096))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent)) from error  # nobody knows the probe's name
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _refuse_foreign(directory: Path) -> None:
    """Stop unless the folder is empty, or a bundle in which every file is edgeopt's."""
    present = _files(directory)
    if not present and not any(directory.iterdir()):
        return
    known = _known_files(directory)
    if known is None:
        raise BundleError(
            "The destination exists and is not an edgeopt bundle.",
            got=directory,
            fix="Give a new folder with -o, or empty this one.",
        )
    foreign = sorted(set(present) - known - {MANIFEST})
    if foreign:
        raise BundleError(
            "The bundle at the destination holds files that edgeopt did not write, and replacing it would lose them.",
            got=", ".join(foreign[:5]) + (", …" if len(foreign) > 5 else ""),
            fix=f"Move them out of {directory}, or give another folder with -o.",
        )


def _known_files(directory: Path) -> set[str] | None:
    """What the manifest there lists, whatever its version; None where the folder is no bundle."""
    try:
        document = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("kind") != "edgeopt-bundle":
        return None
    files = document.get("files")
    return set(files) if isinstance(files, dict) else set()


def _files(directory: Path) -> list[str]:
    """Everything below ``directory`` that is no folder, relative, in POSIX form."""
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _records(directory: Path) -> dict[str, FileRecord]:
    records = {}
    for name in _files(directory):
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise BundleError("A bundle holds plain files only.", got=name, fix="Copy the file instead of linking it.")
        if name == MANIFEST:
            raise BundleError("The manifest is written last, by edgeopt itself.", got=name)
        records[name] = FileRecord(sha256=hash_file(path), bytes=path.stat().st_size)
    return records


def _flush(directory: Path) -> None:
    """Wait until every file and folder below ``directory`` is on the disk."""
    for root, _, names in os.walk(directory):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def _flush_folder(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (network, FUSE) flush files but not folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _lock(destination: Path) -> Iterator[None]:
    """One writer at a time swaps folders. The lock file lies with the temporary files, not beside the bundle."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"edgeopt-locks-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = filelock.FileLock(folder / f"{hash_bytes(os.fsencode(destination))[:32]}.lock", timeout=_LOCK_TIMEOUT_S)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise BundleError(
            f"Another edgeopt has been writing this bundle for {_LOCK_TIMEOUT_S:.0f} s.",
            got=destination,
            fix="Wait for it, end it, or give another folder with -o.",
        ) from error


@contextmanager
def _parents_of(destination: Path) -> Iterator[None]:
    """Make the missing parents, and take those made away again on failure."""
    missing = [parent for parent in destination.parents if not parent.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            try:
                parent.rmdir()
            except OSError:
                break
        raise


@contextmanager
def _explained(destination: Path) -> Iterator[None]:
    """Turn what the operating system says into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                "The disk is full, and the bundle was not written.",
                got=destination.parent,
                fix="Free some space, or give a folder on another disk with -o.",
            ) from error
        mounted = error.errno in (errno.EBUSY, errno.EXDEV)
        raise BundleError(
            "The bundle cannot be written.",
            got=f"{error.filename or destination}: {error.strerror or error}",
            fix=f"A mounted folder cannot be replaced: give a new one below it, e.g. -o {destination / 'bundle'}."
            if mounted
            else "Give another folder with -o.",
        ) from error
