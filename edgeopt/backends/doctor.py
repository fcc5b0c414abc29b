"""What ``edgeopt doctor`` says about runtimes."""

from __future__ import annotations

from edgeopt.backends.base import Availability
from edgeopt.backends.registry import BACKENDS

__all__ = ["survey"]


def survey() -> list[tuple[str, Availability]]:
    """Every registered backend and whether its runtime is here, in the registry's order. Imports no runtime."""
    return [(name, BACKENDS[name].available()) for name in BACKENDS]
