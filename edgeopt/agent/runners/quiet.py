"""Keep what a runtime says of itself from the user: lines on stderr, warnings, a root logger that it sets up.

Standard library only, Python 3.8: these files travel to devices.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Callable

__all__ = ["quietly"]


@contextlib.contextmanager
def quietly() -> Iterator[Callable[[], str]]:
    """Put stderr (the process's too, which native code writes to) and Python's stdout aside.

    Yields:
        A function that gives what was written to stderr so far: there native code says why something failed.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    python = io.StringIO()  # bindings may send what native code says to Python's own streams
    with tempfile.TemporaryFile() as said, warnings.catch_warnings(), contextlib.redirect_stdout(python):
        warnings.simplefilter("ignore")
        shown = sys.stderr
        if shown is not None:
            shown.flush()
        sys.stderr = python
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)

        def words() -> str:
            said.seek(0)
            return said.read().decode(errors="replace") + python.getvalue()

        try:
            yield words
        finally:
            sys.stderr = shown
            os.dup2(kept, 2)
            os.close(kept)
            root.handlers[:] = handlers
            root.setLevel(level)
