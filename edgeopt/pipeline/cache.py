"""Stage results on disk, addressed by the content of everything that went into them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from edgeopt.core.errors import EdgeOptError
from edgeopt.core.fingerprint import hash_file, hash_json

__all__ = ["CUT_SHORT", "CacheEntry", "Outcome", "StageCache", "default_cache_root", "source_hash"]

CUT_SHORT = "cut-short"  # a stage that leaves a file of this name is good for this run only: the next makes it anew
_RECORD = "stage.json"
_WORKSPACES = "unfinished"  # what killed runs left to go on from
_LITTLE = 16 * 1024  # bytes; a disk with less is full
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A stage's result.

    Attributes:
        directory: The folder that the stage filled; treat it as read-only.
        cached: Whether it was found rather than made.
        wall_s: How long this run spent on it, seconds.
    """

    directory: Path
    cached: bool
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """An entry as ``edgeopt cache`` lists it. ``bytes``: on disk; ``used``: seconds since the epoch."""

    stage: str
    key: str
    bytes: int
    used: float


class StageCache:
    """Folders named by the hash of a stage's inputs.

    An entry is written beside its final name and renamed, under a lock per key: a killed run leaves no half entry,
    and two runs that need the same stage do the work once.

    Args:
        root: The cache's folder, created on first use.
        enabled: False: every stage is made anew, in a folder that ends with ``close``.
    """

    def __init__(self, root: Path | None = None, *, enabled: bool = True) -> None:
        self._scratch = None if enabled else tempfile.TemporaryDirectory(prefix="edgeopt-")
        self.root = Path(self._scratch.name) if self._scratch else (root or default_cache_root())

    def stage(self, name: str, inputs: dict[str, Any], build: Callable[[Path], None]) -> Outcome:
        """Find the result of stage ``name`` on ``inputs``, or make it.

        Args:
            name: The stage's name; stages of different names never share an entry.
            inputs: JSON values that determine the result completely: hashes, options, versions.
            build: Fills the empty folder it is given. If it raises, nothing is kept.

        Raises:
            EdgeOptError: The cache's folder cannot be written.
        """
        start = time.perf_counter()
        final = self.root / name / self._key(name, inputs)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(final.with_suffix(".lock"))
        except OSError as error:
            raise EdgeOptError(
                "The cache folder cannot be written.",
                got=f"{self.root}: {error}",
                fix="Set EDGEOPT_CACHE_DIR to a folder you own, or pass --no-cache.",
            ) from error
        with lock:
            cached = (final / _RECORD).is_file() and not (final / CUT_SHORT).exists()
            if not cached:
                self._make(final, inputs, build)
            os.utime(final)
        return Outcome(directory=final, cached=cached, wall_s=time.perf_counter() - start)

    def workspace(self, name: str, inputs: dict[str, Any]) -> Path:
        """Where the stage of that name and inputs keeps what lets a killed run go on; made and deleted by its user."""
        return self.root / _WORKSPACES / f"{name}-{self._key(name, inputs)}"

    def entries(self) -> Iterator[CacheEntry]:
        """All complete entries, stage by stage."""
        for record in sorted(self.root.glob(f"*/*/{_RECORD}")):
            folder = record.parent
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            yield CacheEntry(stage=folder.parent.name, key=folder.name, bytes=size, used=folder.stat().st_mtime)

    def clear(self, *, older_than_s: float = 0.0) -> int:
        """Delete entries not used for ``older_than_s`` seconds (all, by default); returns the bytes freed."""
        freed, now = 0, time.time()
        for entry in list(self.entries()):
            if now - entry.used >= older_than_s:
                folder = self.root / entry.stage / entry.key
                with filelock.FileLock(folder.with_suffix(".lock")):
                    shutil.rmtree(folder, ignore_errors=True)
                folder.with_suffix(".lock").unlink(missing_ok=True)
                freed += entry.bytes
        for partial in (*self.root.glob("*/.partial-*"), *self.root.glob(f"{_WORKSPACES}/*")):
            if now - partial.stat().st_mtime >= max(older_than_s, 3600.0):
                shutil.rmtree(partial, ignore_errors=True)
        return freed

    def close(self) -> None:
        """Delete what a disabled cache made."""
        if self._scratch:
            self._scratch.cleanup()

    @staticmethod
    def _key(name: str, inputs: dict[str, Any]) -> str:
        return hash_json({"stage": name, "source": source_hash(), "inputs": inputs})

    @staticmethod
    def _make(final: Path, inputs: dict[str, Any], build: Callable[[Path], None]) -> None:
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=final.parent))
        try:
            build(partial)
            (partial / _RECORD).write_text(json.dumps(inputs, sort_keys=True, indent=1))
            shutil.rmtree(final, ignore_errors=True)  # an entry without its record is not one
            partial.rename(final)
        except Exception as error:
            # Native code says "iostream error" for a full disk, and a runtime would be blamed for it.
            full = shutil.disk_usage(partial).free < _LITTLE
            if not full and not (isinstance(error, OSError) and error.errno in _DISK):
                raise
            raise EdgeOptError(
                "A stage's files cannot be written" + (": the disk is full." if full else "."),
                got=f"{error} (cache: {final.parent}; temporary files: {tempfile.gettempdir()})",
                fix="Free some space (edgeopt cache clear), set EDGEOPT_CACHE_DIR or TMPDIR, or pass --no-cache.",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)


def default_cache_root() -> Path:
    """``$EDGEOPT_CACHE_DIR``, or the platform's cache folder for edgeopt."""
    chosen = os.environ.get("EDGEOPT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("edgeopt", appauthor=False)) / "stages"


@remember
def source_hash() -> str:
    """Sha256 of edgeopt's own sources: a changed program never finds what another version made."""
    package = Path(__file__).parents[1]
    quiet = {"cli", "report", "gate"}  # what they do changes no stage's result
    sources = (p for p in sorted(package.rglob("*.py")) if p.relative_to(package).parts[0] not in quiet)
    return hash_json({str(p.relative_to(package)): hash_file(p) for p in sources})
