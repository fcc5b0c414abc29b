"""Put a finished folder under its final name so that no one ever sees half of it, whatever is killed when."""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

import psutil

from edgeopt.core.fingerprint import hash_bytes

__all__ = ["clean_leftovers", "new_sibling", "replace_folder"]

_log = logging.getLogger(__name__)

# A folder of another machine (a shared disk) cannot be asked for its process: it is stale when left alone this long.
_STALE_S = 24 * 3600
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def new_sibling(destination: Path, purpose: str) -> Path:
    """A name beside ``destination`` that tells who made it: ``.NAME.PURPOSE-host-pid-random``."""
    return destination.with_name(f"{_prefix(destination, purpose)}{_host()}-{os.getpid()}-{secrets.token_hex(4)}")


def replace_folder(new: Path, destination: Path) -> None:
    """Rename ``new`` to ``destination``; a folder that is there is replaced and then deleted.

    On Linux both names are exchanged in one step. Elsewhere the old folder is set aside first, and put back if the
    second rename fails; a run killed between the two is repaired by the next ``clean_leftovers``.
    """
    if not destination.exists() or not any(destination.iterdir()):
        # An empty folder is not renamed over everywhere; there is nothing in it to lose.
        if destination.exists():
            destination.rmdir()
        new.rename(destination)
        return
    if _exchange(new, destination):
        _delete(new)
        return
    aside = new_sibling(destination, "old")
    destination.rename(aside)
    try:
        new.rename(destination)
    except BaseException:
        aside.rename(destination)
        raise
    _delete(aside)


def clean_leftovers(destination: Path) -> None:
    """Delete what killed runs left beside ``destination``, and put back an old bundle that one had set aside."""
    for aside in _stale_siblings(destination, "old"):
        if destination.exists():
            _delete(aside)
        else:
            aside.rename(destination)
    for purpose in ("partial", "probe"):
        for stale in _stale_siblings(destination, purpose):
            _delete(stale)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically (``renameat2``); False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _delete(folder: Path) -> None:
    """Delete a folder that is no longer needed; failing to is no reason to fail the run."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _log.warning("%s is no longer needed but could not be deleted: %s", folder, error)


def _stale_siblings(destination: Path, purpose: str) -> list[Path]:
    prefix = _prefix(destination, purpose)
    try:
        siblings = sorted(path for path in destination.parent.iterdir() if path.name.startswith(prefix))
    except OSError:
        return []
    return [path for path in siblings if _is_stale(path, path.name.removeprefix(prefix))]


def _is_stale(path: Path, owner: str) -> bool:
    """Whether whoever made ``path`` (``host-pid-random``) is gone."""
    host, _, pid = owner.rpartition("-")[0].rpartition("-")
    try:
        age_s = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if age_s > _STALE_S:
        return True
    return host == _host() and pid.isdigit() and not psutil.pid_exists(int(pid))


def _prefix(destination: Path, purpose: str) -> str:
    return f".{destination.name}.{purpose}-"


def _host() -> str:
    return hash_bytes(socket.gethostname().encode())[:8]
