"""A loss by its name. Needs no torch, so that a name that leads nowhere is found before any work."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from edgeopt.core.errors import RecipeError

__all__ = ["imported"]


def imported(place: str) -> Any:
    """The callable ``package.module:callable``; the current folder can be imported from.

    Raises:
        RecipeError: It is not there, or cannot be called.
    """
    module, _, attribute = place.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's code
        raise RecipeError(
            "The loss cannot be imported.",
            got=f"{place} ({type(error).__name__}: {error})",
            fix="Write package.module:callable, importable from the current folder or installed.",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(found):
        raise RecipeError("The loss cannot be called.", got=f"{place}, a {type(found).__name__}")
    return found
