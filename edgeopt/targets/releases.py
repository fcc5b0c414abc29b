"""Which release of a device's system brings which runtime: ``jetson-orin-nano@jetpack-6.2``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict, Field

from edgeopt.core.documents import parse_yaml, read_text, validate
from edgeopt.core.errors import TargetError, nearest_first
from edgeopt.targets.schema import Release, RuntimeRules, Source, Target

__all__ = ["names_by_l4t", "pinned", "releases_of"]

_FOLDER = Path(__file__).parent / "systems"
_RUNTIME = "tensorrt"


class _Known(BaseModel):
    """One release as its file has it.

    Attributes:
        l4t: The numbers that ``/etc/nv_tegra_release`` may give, as beginnings; empty where they are not known.
        targets: The boards that it runs on.
        dla: Those of them whose DLA its TensorRT can build for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    l4t: tuple[str, ...]
    tensorrt: str
    cuda: str
    opset_max: int
    targets: tuple[str, ...] = Field(min_length=1)
    dla: tuple[str, ...]
    note: str = ""
    sources: tuple[Source, ...] = Field(min_length=1)


class _System(BaseModel):
    """A file of ``systems/``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    system: str
    releases: tuple[_Known, ...]


def releases_of(target: Target) -> tuple[str, ...]:
    """The releases that ``target`` can be pinned to, oldest first; none where its file names no such system."""
    return tuple(known.name for known in _known() if target.name in known.targets and _serves(known, target))


def names_by_l4t(target: Target) -> dict[str, str]:
    """Number of Jetson Linux → release, of those that ``target`` runs on: a device is asked for the number."""
    board = target.name.partition("@")[0]
    return {number: known.name for known in _known() if board in known.targets for number in known.l4t}


def pinned(target: Target, release: str) -> Target:
    """``target`` on one release: one TensorRT, the opset that its parser reads, and whether its DLA can be used.

    Raises:
        TargetError: There is no such release, it does not run on this target, or its TensorRT is too old for edgeopt;
            those that would do are listed.
    """
    there = releases_of(target)
    named = f"{target.name}@{release}"
    if not there:
        raise TargetError(
            f"The target {target.name!r} comes in no releases.", got=repr(named), fix=f"Name it alone: {target.name}."
        )
    would_do = f"Known for {target.name}, nearest first: {', '.join(nearest_first(release, there))}."
    known = next((one for one in _known() if one.name == release), None)
    if known is None:
        raise TargetError("There is no release of that name.", got=repr(named), fix=would_do)
    if target.name not in known.targets:
        raise TargetError(
            f"{release} does not run on {target.name}: it is for {', '.join(known.targets)}.",
            got=repr(named),
            fix=would_do,
        )
    if not _serves(known, target):
        raise TargetError(
            f"{release} brings TensorRT {known.tensorrt}; edgeopt writes for {_rules(target).versions}.",
            got=repr(named),
            fix=would_do,
        )
    rules = _rules(target)
    exact = rules.model_copy(
        update={
            "versions": f"=={'.'.join(known.tensorrt.split('.')[:2])}.*",
            "opset_max": known.opset_max,
        }
    )
    changes = {
        "name": named,
        "title": f"{target.title}, {release}",
        "aliases": (),
        "release": Release(
            name=known.name, l4t=known.l4t, tensorrt=known.tensorrt, cuda=known.cuda, opset_max=known.opset_max
        ),
        "runtimes": tuple(exact if one.name == _RUNTIME else one for one in target.runtimes),
        "opset": min(target.opset, known.opset_max),
        "dla_cores": target.dla_cores if target.name in known.dla else 0,
        "notes": (*target.notes, *((known.note,) if known.note else ())),
        "sources": (*target.sources, *known.sources),
    }
    # Through the validators, which model_copy would pass by.
    whole = {name: getattr(target, name) for name in Target.model_fields} | changes
    return Target.model_validate(whole)


def _rules(target: Target) -> RuntimeRules:
    return next(rules for rules in target.runtimes if rules.name == _RUNTIME)


def _serves(known: _Known, target: Target) -> bool:
    return any(
        rules.name == _RUNTIME and SpecifierSet(rules.versions).contains(known.tensorrt) for rules in target.runtimes
    )


@functools.cache
def _known() -> tuple[_Known, ...]:
    found: list[_Known] = []
    for path in sorted(_FOLDER.glob("*.yaml")):
        where = f"The file of releases {path}"
        document = parse_yaml(read_text(path, error=TargetError), where=where, error=TargetError)
        found += validate(_System, document, where=where, error=TargetError).releases
    return tuple(found)
