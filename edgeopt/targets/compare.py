"""What differs between two targets, field by field, and what each takes its own word from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeopt.targets.schema import Source, Target

__all__ = ["FieldDifference", "TargetDifferences", "compare_targets"]

_BY_NAME = {"runtimes": "name"}  # lists whose members are one thing under a name, whatever their order
_LEFT_OUT = {"schema_version", "sources"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """One field that is not equal.

    Attributes:
        field: Its key, dotted: ``runtimes.tensorrt.versions``.
        a: As JSON has it; None where the first target has no such field.
        b: Likewise, of the second.
    """

    field: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDifferences:
    """Of two targets.

    Attributes:
        fields: In the schema's order; none where they describe the same device.
        only_a: Facts with their sources that the second file does not state in these words.
        only_b: Likewise.
    """

    a: str
    b: str
    fields: tuple[FieldDifference, ...]
    only_a: tuple[Source, ...]
    only_b: tuple[Source, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``edgeopt targets diff --json`` prints it."""
        return {
            "a": self.a,
            "b": self.b,
            "fields": [{"field": one.field, "a": one.a, "b": one.b} for one in self.fields],
            "sources": {
                self.a: [source.model_dump() for source in self.only_a],
                self.b: [source.model_dump() for source in self.only_b],
            },
        }


def compare_targets(a: Target, b: Target) -> TargetDifferences:
    """Compare all fields but the sources, which are listed beside."""
    left, right = dict(_flat(a.model_dump(mode="json"))), dict(_flat(b.model_dump(mode="json")))
    names = list(dict.fromkeys([*left, *right]))
    return TargetDifferences(
        a=a.name,
        b=b.name,
        fields=tuple(
            FieldDifference(field=name, a=left.get(name), b=right.get(name))
            for name in names
            if left.get(name) != right.get(name)
        ),
        only_a=tuple(source for source in a.sources if source not in b.sources),
        only_b=tuple(source for source in b.sources if source not in a.sources),
    )


def _flat(document: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = f"{above}{key}"
        if not above and key in _LEFT_OUT:
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        elif key in _BY_NAME and not above:
            for member in value:
                inner = {part: one for part, one in member.items() if part != _BY_NAME[key]}
                yield from _flat(inner, f"{name}.{member[_BY_NAME[key]]}.")
        elif value not in ({}, [], None, ""):
            yield name, value
