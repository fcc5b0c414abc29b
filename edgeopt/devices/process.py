"""One agent as a child process: requests down its stdin, replies up its stdout, an end in every case."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Self

from edgeopt.core.errors import DeviceError

__all__ = ["AgentProcess"]

_TAIL_LINES = 12
_PATIENCE_S = 5.0  # how long an agent may take to release its engine before it is killed


class AgentProcess:
    """A session (``devices/base.py``) whose agent is a child process of this one.

    The process has a session of its own, so Ctrl-C reaches only the host, which ends it; it ends by itself when its
    standard input does, so a host that is killed leaves no orphan.

    Args:
        command: The agent's command line.
        environment: Its whole environment.
        directory: Its working directory, removed at the end.
        entry: What ``load`` is told to open.
        timeout_s: The longest wait for one reply.
        title: What it runs, for error messages.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: TemporaryDirectory[str],
        entry: str,
        timeout_s: float,
        title: str,
    ) -> None:
        self._entry, self._timeout_s, self._title = entry, timeout_s, title
        self.directory = Path(directory.name)
        self._stderr = self.directory / "stderr.txt"
        try:
            with self._stderr.open("wb") as stderr:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=self.directory,
                    env=dict(environment),
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
        except OSError as error:
            directory.cleanup()
            raise DeviceError("The agent cannot be started.", got=error) from error
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Also runs at the interpreter's exit, for a session that nobody closed.
        self._finalizer = weakref.finalize(self, _end, self._process, directory, 0.0)
        self._directory = directory
        threading.Thread(target=_pump, args=(self._process.stdout, self._replies), daemon=True).start()

    @property
    def pid(self) -> int:
        """The agent's process id."""
        return self._process.pid

    @property
    def entry(self) -> str:
        """The engine's entry file, by the name that it has for the agent."""
        return self._entry

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Raises:
            DeviceError: The agent answered with an error, died (its stderr's tail is in the message), or timed out.
        """
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            raise DeviceError(f"The session with the {self._title} is closed.", got=f"the request {do!r}")
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._died(do) from None
        try:
            line = self._replies.get(timeout=self._timeout_s)
        except queue.Empty:
            self._kill()
            raise DeviceError(
                f"The agent with the {self._title} did not answer {do!r} within {self._timeout_s:g} s; it was ended.",
                fix="Give it longer, or measure fewer samples.",
            ) from None
        if line is None:
            raise self._died(do)
        return self._checked(do, line)

    def put(self, file: Path) -> str:
        """The agent reads this machine's files: nothing is copied."""
        return str(file.absolute())

    def get(self, name: str, file: Path) -> None:
        """Copy a file that the agent wrote."""
        shutil.copyfile(self.directory / name, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error (Ctrl-C among them) nobody waits for a long inference to end.
        self._finalizer.detach()
        _end(self._process, self._directory, _PATIENCE_S if kind is None else 0.0)

    def _checked(self, do: str, line: str) -> dict[str, Any]:
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise DeviceError(
                f"The agent with the {self._title} answered {do!r} with something else than the protocol's JSON.",
                got=repr(line[:200]),
            )
        if "error" in reply:
            what = f"The {self._title} failed at {do!r}: {reply['error']}"
            raise DeviceError(what, kind=str(reply.get("kind", "")))
        return reply

    def _died(self, do: str) -> DeviceError:
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.returncode
        return DeviceError(
            f"The agent with the {self._title} died at {do!r}: {_cause(code)}.",
            fix=f"The end of its messages:\n{self._tail()}",
        )

    def _kill(self) -> None:
        _kill_group(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)

    def _tail(self) -> str:
        try:
            lines = self._stderr.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:]) or "  (none)"


def _pump(stdout: IO[str] | None, replies: queue.SimpleQueue[str | None]) -> None:
    """Read replies as they come; None marks the end of the process."""
    if stdout is not None:
        with contextlib.suppress(ValueError, OSError):  # closed under our hands at the end of the session
            for line in stdout:
                replies.put(line)
    replies.put(None)


def _end(process: subprocess.Popen[str], directory: TemporaryDirectory[str], patience_s: float) -> None:
    """Ask the process to end by closing its input; kill it and its children where it does not."""
    try:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if patience_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    finally:
        _kill_group(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
        directory.cleanup()


def _kill_group(process: subprocess.Popen[str]) -> None:
    if process.returncode is not None:
        return  # reaped: its id may be another's by now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _cause(code: int | None) -> str:
    if code is None:
        return "it did not end when it was killed"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}" + (
                " (a crash in native code)" if -code in _CRASHES else ""
            )
    return f"exit code {code}"


_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE} | {
    getattr(signal, name) for name in ("SIGBUS",) if hasattr(signal, name)
}
