"""Ctrl-C and SIGTERM, remembered: code of other people's may swallow or rename the exception that they raise."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["check", "was_asked", "watched"]

_asked = [False]


@contextmanager
def watched() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt, so that children and temporary folders go as the stack unwinds."""
    _asked[0] = False
    before = {}

    def stop(*_: object) -> None:
        _asked[0] = True
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs ask for that
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def was_asked() -> bool:
    """Whether the user asked to stop since ``watched`` began."""
    return _asked[0]


def check() -> None:
    """Stop now, if the user asked to and something swallowed it.

    Raises:
        KeyboardInterrupt: The user asked to stop.
    """
    if _asked[0]:
        raise KeyboardInterrupt
