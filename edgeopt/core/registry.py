"""Names that stand for classes elsewhere, imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from edgeopt.core.errors import EdgeOptError, nearest_first

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A literal dict of name → ``module:attribute``, plus an entry-point group for plug-ins.

    Args:
        kind: What the names stand for, as an error says it: ``backend``.
        builtin: The names that ship with edgeopt.
        group: The entry-point group that outside packages register in.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], group: str) -> None:
        self._kind, self._builtin, self._group = kind, dict(builtin), group

    def __getitem__(self, name: str) -> T:
        """Import what ``name`` stands for.

        Raises:
            EdgeOptError: The name is unknown; the message lists the known ones, nearest first.
        """
        where = self._where().get(name)
        if where is None:
            known = ", ".join(nearest_first(name, self._where()))
            raise EdgeOptError(f"There is no {self._kind} of that name.", got=repr(name), fix=f"Known: {known}.")
        module, _, attribute = where.partition(":")
        loaded: Any = getattr(importlib.import_module(module), attribute)
        return loaded  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return name in self._where()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where())

    def __len__(self) -> int:
        return len(self._where())

    def _where(self) -> dict[str, str]:
        where = dict(self._builtin)
        for point in entry_points(group=self._group):
            if where.setdefault(point.name, point.value) != point.value:
                raise EdgeOptError(
                    f"Two {self._kind}s have one name.",
                    got=f"{point.name!r} from {point.value} and from {where[point.name]}",
                    fix="Uninstall or rename the outside one.",
                )
        return where
