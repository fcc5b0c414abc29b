"""Find targets: the shipped catalog, catalogs of other packages, a file of one's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from edgeopt.core.documents import parse_yaml, read_text, validate, write_yaml
from edgeopt.core.errors import TargetError, nearest_first
from edgeopt.targets.host import Host, detect_host
from edgeopt.targets.local import fill_in
from edgeopt.targets.releases import pinned
from edgeopt.targets.schema import Target

__all__ = ["broken_catalogs", "dump_target", "find_target", "list_targets", "read_target"]

_GROUP = "edgeopt.targets"
_CATALOG = Path(__file__).parent / "catalog"


def list_targets() -> tuple[Target, ...]:
    """Every target of the catalogs, by name; ``local`` is filled in from this machine.

    A catalog of another package that cannot be read is left out; ``broken_catalogs`` says why.

    Raises:
        TargetError: A file of edgeopt's own is malformed, or two targets share a name or an alias.
    """
    return tuple(_complete(target) for _, target in sorted(_catalog().items()))


def broken_catalogs() -> tuple[TargetError, ...]:
    """What is wrong with catalogs of other packages; the rest is there without them."""
    return tuple(_catalogs()[1])


def find_target(name: str | Path, host: Host | None = None) -> Target:
    """The target of that name or alias, or the one that a ``.yaml`` file of the user's own describes.

    ``NAME@RELEASE`` is the target on one release of its system: ``jetson@jetpack-6.2``.

    A file is taken as it stands: the resolved ``target.yaml`` of a bundle made for ``local`` elsewhere keeps
    describing the machine that it was made for.

    Args:
        host: The machine that ``local`` describes; None: this one.

    Raises:
        TargetError: No target has that name (all are listed, nearest first), the file is malformed, or the release is
            none that the target can be on.
    """
    if isinstance(name, Path) or name.endswith((".yaml", ".yml")):
        return read_target(Path(name))
    catalog = _catalog()
    by_name = catalog | {alias: target for target in catalog.values() for alias in target.aliases}
    alone, at, release = name.partition("@")
    if alone not in by_name:
        known = ", ".join(nearest_first(alone, by_name))
        broken = "".join(f" Not read: {problem}" for problem in broken_catalogs())
        raise TargetError(
            "There is no target of that name.", got=repr(name), fix=f"Known, nearest first: {known}.{broken}"
        )
    target = _complete(by_name[alone], host)
    return pinned(target, release) if at else target


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
    catalogs, _ = _catalogs()
    for path, target in catalogs:
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


def _catalogs() -> tuple[list[tuple[Path, Target]], list[TargetError]]:
    """Every target with its file, and what is wrong with catalogs of other packages: these do not stop the rest.

    Raises:
        TargetError: A file of edgeopt's own catalog is malformed.
    """
    found = [(path, _of_a_catalog(path)) for path in sorted(_CATALOG.glob("*.yaml"))]
    problems = []
    for point in sorted(entry_points(group=_GROUP), key=lambda p: p.name):
        try:
            found += [(path, _of_a_catalog(path)) for path in _files_of(point)]
        except TargetError as problem:
            problems.append(problem)
    return found, problems


def _of_a_catalog(path: Path) -> Target:
    target = read_target(path)
    if target.release is not None:
        raise TargetError("A catalog's target names no release; a user adds one.", got=f"{target.name} in {path}")
    return target


def _files_of(point: EntryPoint) -> list[Path]:
    """An entry point names a package; each ``*.yaml`` directly in it is a target."""
    owner = f"{point.name!r} of {point.dist.name if point.dist else 'another package'}"
    try:
        folder = Path(str(files(point.value)))
    except Exception as reason:  # its package runs code of its own
        raise TargetError(
            f"The target catalog {owner} cannot be opened.",
            got=f"{point.value} ({type(reason).__name__}: {reason})",
            fix="Its entry point must name a package that holds YAML files; repair or uninstall it.",
        ) from reason
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise TargetError(
            f"The target catalog {owner} holds no YAML file.", got=folder, fix="Repair or uninstall that package."
        )
    return found
