"""The YAML that edgeopt reads and writes: YAML 1.2's core schema without tags, anchors and repeated keys.

PyYAML follows YAML 1.1, where ``no`` is false, ``1:30`` is 90, ``010`` is 8 and ``1e-3`` is a string.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["StrictDumper", "StrictLoader"]

_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", list("-+.0123456789")),
)


class StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses what a hand-written document has no need of."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute, filled below)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse anchors and aliases: a few lines of them grow to gigabytes."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = f"anchors and aliases are not read (quote text that starts with * or &): {event.anchor!r}"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is no string or comes twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} comes twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class StrictDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else: other tools read it too."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        """Write a value that comes twice twice."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent lists below their key, as the shipped files do."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks of Unicode as they are, and reads them back as spaces; in "" they are escaped.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


StrictDumper.add_representer(str, _text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    value = float(loader.construct_scalar(node))
    if value in {float("inf"), float("-inf")}:
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is too large", node.start_mark)
    return value


for _name, _pattern, _first in _RESOLVERS:
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})\\Z"), _first)

_SAFE: dict[Any, Any] = dict(yaml.SafeLoader.yaml_constructors)
# Only what the resolvers above can give; the entry None refuses every other tag.
_KINDS: tuple[str | None, ...] = (
    *(f"tag:yaml.org,2002:{k}" for k in ("null", "bool", "int", "str", "seq", "map")),
    None,
)
StrictLoader.yaml_constructors = {kind: _SAFE[kind] for kind in _KINDS} | {"tag:yaml.org,2002:float": _float}
