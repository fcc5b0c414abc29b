"""Errors a user can act on: what failed, what was received, what to do."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BackendError",
    "BundleError",
    "DataError",
    "DeviceError",
    "EdgeOptError",
    "GraphError",
    "ModelError",
    "RecipeError",
    "TargetError",
    "UnsafeModelError",
    "nearest_first",
]


class EdgeOptError(Exception):
    """Root of every error that edgeopt raises on purpose.

    Args:
        what: One sentence, ending in a full stop, that says what failed.
        got: The value received, shown with ``str``.
        fix: What the user can do; valid choices are listed here.
    """

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, fix: str | None = None) -> None:
        self.what, self.got, self.fix = what, got, fix
        parts = [what]
        if got is not None:
            parts.append(f"Received: {got}.")
        if fix:
            parts.append(fix)
        super().__init__(" ".join(parts))


class ModelError(EdgeOptError):
    """The model file cannot be read, exported or used as asked."""


class UnsafeModelError(ModelError):
    """Loading the file would execute code that it carries."""


class DataError(EdgeOptError):
    """The data does not fit the model, the task or its own manifest."""


class RecipeError(EdgeOptError):
    """The recipe is malformed, or asks for what the target cannot do."""


class TargetError(EdgeOptError):
    """The target is unknown or its description is malformed."""


class GraphError(EdgeOptError):
    """A graph pass, the export or a parity check failed."""


class BackendError(EdgeOptError):
    """A runtime is missing, refused the graph, or failed while running it."""


class DeviceError(EdgeOptError):
    """The device, or the agent on it, did not answer as agreed.

    Args:
        kind: Where the agent lives on and answered with an error: the name of that error's class.
    """

    def __init__(self, what: str, *, got: object = None, fix: str | None = None, kind: str = "") -> None:
        super().__init__(what, got=got, fix=fix)
        self.kind = kind


class BundleError(EdgeOptError):
    """The bundle cannot be written, read or verified."""


def nearest_first(name: str, choices: Iterable[str]) -> list[str]:
    """Sort ``choices`` by their likeness to ``name``, the likeliest first.

    >>> nearest_first("jetsn", ["local", "jetson-thor", "jetson"])[0]
    'jetson'
    """
    from difflib import SequenceMatcher  # noqa: PLC0415 - only errors need it, and --help is to be instant

    def likeness(choice: str) -> float:
        return SequenceMatcher(None, name.lower(), choice.lower()).ratio()

    return sorted(sorted(choices), key=likeness, reverse=True)
