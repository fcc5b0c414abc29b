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
            EdgeOptError: The name is unknown (the message lists the known ones, nearest first), or it is another
                package's and cannot be imported: that package is named, and the others work without it.
        """
        where = self._where().get(name)
        if where is None:
            known = ", ".join(nearest_first(name, self._where()))
            raise EdgeOptError(f"There is no {self._kind} of that name.", got=repr(name), fix=f"Known: {known}.")
        module, _, attribute = where.partition(":")
        try:
            loaded: Any = getattr(importlib.import_module(module), attribute)
        except Exception as reason:  # importing runs that package's code
            if name in self._builtin:
                raise
            raise EdgeOptError(
                f"The {self._kind} {name!r} of {self._owner(name)} cannot be loaded.",
                got=f"{where} ({type(reason).__name__}: {reason})",
                fix="Repair or uninstall that package; the others work without it.",
            ) from reason
        return loaded  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return name in self._where()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where())

    def __len__(self) -> int:
        return len(self._where())

    def _owner(self, name: str) -> str:
        """The distribution that an outside name came with."""
        points = [point for point in entry_points(group=self._group) if point.name == name]
        return next((point.dist.name for point in points if point.dist is not None), "another package")

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
