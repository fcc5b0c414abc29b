"""Ctrl-C and SIGTERM, remembered: code of other people's may swallow or rename the exception that they raise."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["check", "was_asked", "watched"]

_asked = [False]
_SOON_S = 0.02


@contextmanager
def watched() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt, so that children and temporary folders go as the stack unwinds.

    Python drops what is raised in a finalizer or in a weak reference's callback (there is one at every import), with a
    traceback on stderr: a signal that lands there is raised again a moment later instead.
    """
    _asked[0] = False
    before = {}
    timers: list[threading.Timer] = []

    def stop(number: int, *_: object) -> None:
        _asked[0] = True
        raise _Stopped(number)

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, _Stopped):
            timer = threading.Timer(_SOON_S, _signal_main, (dropped.exc_value.number,))
            timer.daemon = True
            timers.append(timer)
            timer.start()
        else:
            hook(dropped)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs ask for that
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


class _Stopped(KeyboardInterrupt):
    """That signal asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _signal_main(number: int) -> None:
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, number)  # a real signal: it also ends a wait in the kernel
    else:
        _thread.interrupt_main(signal.Signals(number))


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
