"""Keep torch's own remarks away from the user, who gets an event or an error instead."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]

_LOUD = (
    "torch._export.serde.serialize",
    "torch._subclasses.fake_tensor",
    "torch.export",
    "torch.export.pt2_archive._package",
    "torch.fx.experimental.symbolic_shapes",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch logs, warns and prints while it loads or exports. Exceptions pass."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        # torch prints the graph that it got to on stderr, whatever the log level.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True):
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
