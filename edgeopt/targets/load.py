"""Find targets: the shipped catalog, catalogs of other packages, a file of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from edgeopt.core.documents import parse_yaml, read_text, validate, write_yaml
from edgeopt.core.errors import TargetError, nearest_first
from edgeopt.targets.host import Host, detect_host
from edgeopt.targets.local import fill_in
from edgeopt.targets.schema import Target

__all__ = ["dump_target", "find_target", "list_targets", "read_target"]

_GROUP = "edgeopt.targets"
_CATALOG = Path(__file__).parent / "catalog"


def list_targets() -> tuple[Target, ...]:
    """Every target of the catalogs, by name; ``local`` is filled in from this machine.

    Raises:
        TargetError: A file is malformed, or two targets share a name or an alias.
    """
    return tuple(_complete(target) for _, target in sorted(_catalog().items()))


def find_target(name: str | Path, host: Host | None = None) -> Target:
    """The target of that name or alias, or the one that a ``.yaml`` file of the user's own describes.

    A file is taken as it stands: the resolved ``target.yaml`` of a bundle made for ``local`` elsewhere keeps
    describing the machine that it was made for.

    Args:
        host: The machine that ``local`` describes; None: this one.

    Raises:
        TargetError: No target has that name (all are listed, nearest first), or the file is malformed.
    """
    if isinstance(name, Path) or name.endswith((".yaml", ".yml")):
        return read_target(Path(name))
    catalog = _catalog()
    by_name = catalog | {alias: target for target in catalog.values() for alias in target.aliases}
    if name not in by_name:
        known = ", ".join(nearest_first(name, by_name))
        raise TargetError("There is no target of that name.", got=repr(name), fix=f"Known, nearest first: {known}.")
    return _complete(by_name[name], host)


def read_target(path: Path) -> Target:
    """Read and check one target file.

    Raises:
        TargetError: It cannot be read or is malformed; file, key and nearest valid key are named.
    """
    where = f"The target file {path}"
    return validate(
        Target,
        parse_yaml(read_text(path, error=TargetError), where=where, error=TargetError),
        where=where,
        error=TargetError,
    )


def dump_target(target: Target) -> str:
    """The target as YAML that ``read_target`` reads back to an equal one."""
    return write_yaml(target.model_dump(mode="json"))


def _complete(target: Target, host: Host | None = None) -> Target:
    return fill_in(target, host or detect_host()) if target.detected else target


def _catalog() -> dict[str, Target]:
    """Name → target as its file has it; all names and aliases are checked to be unique."""
    targets: dict[str, Target] = {}
    owners: dict[str, Path] = {}
    for path in _target_files():
        target = read_target(path)
        for name in (target.name, *target.aliases):
            if name in owners:
                raise TargetError(
                    "Two targets have one name.",
                    got=f"{name!r} in {owners[name]} and in {path}",
                    fix="Rename one, or uninstall the package it came with.",
                )
            owners[name] = path
        targets[target.name] = target
    return targets


def _target_files() -> Iterator[Path]:
    yield from sorted(_CATALOG.glob("*.yaml"))
    for point in sorted(entry_points(group=_GROUP), key=lambda p: p.name):
        yield from _files_of(point)


def _files_of(point: EntryPoint) -> list[Path]:
    """An entry point names a package; each ``*.yaml`` directly in it is a target."""
    try:
        folder = Path(str(files(point.value)))
    except Exception as reason:
        raise TargetError(
            f"The target catalog {point.name!r} of another package cannot be opened.",
            got=f"{point.value} ({reason})",
            fix="Its entry point must name a package that holds YAML files; repair or uninstall it.",
        ) from reason
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise TargetError(
            f"The target catalog {point.name!r} of another package holds no YAML file.",
            got=folder,
            fix="Repair or uninstall that package.",
        )
    return found
