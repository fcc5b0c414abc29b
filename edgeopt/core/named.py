"""What the user names as ``package.module:callable``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from edgeopt.core.errors import EdgeOptError, RecipeError

__all__ = ["imported"]


def imported(place: str, *, what: str = "The loss", error: type[EdgeOptError] = RecipeError) -> Any:
    """The callable ``package.module:callable``; the current folder can be imported from.

    Args:
        what: What it is to the user, to begin an error with.
        error: What is raised.

    Raises:
        EdgeOptError: It is not there, or cannot be called.
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
    except Exception as problem:  # importing runs the user's code
        raise error(
            f"{what} cannot be imported.",
            got=f"{place} ({type(problem).__name__}: {problem})",
            fix="Write package.module:callable, importable from the current folder or installed.",
        ) from problem
    finally:
        if added:
            sys.path.remove(here)
    if not callable(found):
        raise error(f"{what} cannot be called.", got=f"{place}, a {type(found).__name__}")
    return found
