"""Zip files as torch writes them: listed and checked, before anything is read into memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeopt.core.errors import ModelError, UnsafeModelError

__all__ = ["Archive", "open_archive"]

_END_SIZE = 22  # of a zip's last record, which torch writes without a comment
# torch stores its members uncompressed, so an archive expands to about its own size. Someone may have zipped it
# again; twenty times the file plus a little is far above what weights compress to, and far below a bomb.
_MAX_EXPANSION = 20
_EXPANSION_SLACK = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The members of one torch zip, by their names below its root folder."""

    path: Path
    members: Mapping[str, zipfile.ZipInfo]
    file: zipfile.ZipFile

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            ModelError: It is absent, encrypted or damaged (its checksum does not fit).
        """
        info = self.members.get(name)
        if info is None:
            raise ModelError(f"The archive lacks its member {name!r}.", got=str(self.path), fix="Save the model again.")
        try:
            return self.file.read(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
            raise ModelError(
                f"The archive's member {name!r} cannot be read: {error}.",
                got=str(self.path),
                fix="The file is damaged: copy or save it again.",
            ) from error

    def copy(self) -> io.BytesIO:
        """An archive of the same members, written anew, in memory.

        Raises:
            ModelError: A member is damaged.
        """
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
            for name in self.members:
                out.writestr(f"model/{name}", self.read(name))
        copy.seek(0)
        return copy


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip written by torch and check its directory.

    Raises:
        ModelError: It is not a zip, or it has no member in a root folder.
        UnsafeModelError: A member's name leaves the archive or occurs twice (two readers could then see two
            different files), or the archive expands to far more than its own size.
    """
    try:
        file = zipfile.ZipFile(path)
        _refuse_rest(path, file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(
            f"The file begins like a zip archive but cannot be read as one: {error}.",
            got=str(path),
            fix="It is probably cut short: compare its size with the original and copy or save it again.",
        ) from error
    with file:
        yield Archive(path=path, members=_checked(path, file), file=file)


def _refuse_rest(path: Path, file: zipfile.ZipFile) -> None:
    """Refuse a zip inside something else: cut short, an archive's end looks like one of the files that it holds.

    Raises:
        zipfile.BadZipFile: Bytes lie before the first member or behind the directory.
    """
    with path.open("rb") as raw:
        raw.seek(-min(_END_SIZE, path.stat().st_size), io.SEEK_END)
        at_end = raw.read().startswith(b"PK\x05\x06")
    if not at_end or min((info.header_offset for info in file.infolist()), default=0) != 0:
        file.close()
        raise zipfile.BadZipFile("its directory is not at its end")


def _checked(path: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = [info for info in file.infolist() if not info.is_dir()]
    seen: set[str] = set()
    for info in infos:
        _refuse_bad_name(path, info.filename)
        # torch's own reader may look a name up regardless of case.
        if info.filename.casefold() in seen:
            raise UnsafeModelError(
                f"The archive holds {info.filename!r} twice, so what is checked need not be what is loaded.",
                got=str(path),
                fix="Ask whoever made it for a file saved by torch itself.",
            )
        seen.add(info.filename.casefold())
    total, size = sum(info.file_size for info in infos), path.stat().st_size
    if total > _MAX_EXPANSION * size + _EXPANSION_SLACK:
        raise UnsafeModelError(f"The archive of {size} bytes would expand to {total}: it is a zip bomb.", got=str(path))
    root = infos[0].filename.split("/")[0] if infos else ""
    return {info.filename[len(root) + 1 :]: info for info in infos if info.filename.startswith(f"{root}/")}


def _refuse_bad_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        raise UnsafeModelError(
            f"The archive's member {name!r} points outside the archive.",
            got=str(path),
            fix="Ask whoever made it for a file saved by torch itself.",
        )
