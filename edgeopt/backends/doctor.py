"""What ``edgeopt doctor`` says about runtimes."""

from __future__ import annotations

from edgeopt.backends.base import Availability
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import EdgeOptError

__all__ = ["survey"]


def survey() -> list[tuple[str, Availability]]:
    """Every registered backend and whether its runtime is here, in the registry's order. Imports no runtime."""
    return [(name, _asked(name)) for name in BACKENDS]


def _asked(name: str) -> Availability:
    try:
        return BACKENDS[name].available()
    except EdgeOptError as problem:  # another package's: it must not hide the others
        return Availability(
            version=None,
            brings="another package's backend, which cannot be loaded",
            how_to_get=str(problem),
            needed=True,
        )
