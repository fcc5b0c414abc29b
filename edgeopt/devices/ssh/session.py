"""One agent on a device: requests over a channel; after a lost line a new agent takes up where the old one was."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeopt.core.errors import DeviceError
from edgeopt.core.fingerprint import hash_file
from edgeopt.devices.ssh.depot import Depot
from edgeopt.devices.ssh.failures import LineLost
from edgeopt.devices.ssh.link import Channel

__all__ = ["SshSession"]

_PATIENCE_S = 5.0
_TAIL_LINES = 12
# ``$1``: the session's directory. The process that is written down becomes the agent. The device's own user packages
# stay reachable, though HOME is the session's: a warm cache of an earlier run must not be.
_START = """
cd "$1" || exit 1
echo $$ > pid
shift
exec env -i PATH="$PATH" LANG="${LANG:-C.UTF-8}" ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH="$LD_LIBRARY_PATH"} \
${CUDA_VISIBLE_DEVICES:+CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"} \
PYTHONUSERBASE="${PYTHONUSERBASE:-$HOME/.local}" "$@" 2>> stderr.txt
"""
_KILL = 'kill -9 "-$(cat "$1/pid")" 2>/dev/null || kill -9 "$(cat "$1/pid")" 2>/dev/null; rm -f "$1/pid"'


class SshSession:
    """A session (``devices/base.py``) on another machine.

    A request is repeated where the line was lost in the middle of it: a new agent process loads the engine again,
    gets the inputs that were chosen last, is warmed up as the old one was, and answers. Replies that had come before
    stay as they were, so a measurement that goes on is told of by ``Depot.resumed``.

    Args:
        depot: Where the agent and the engine lie already.
        number: Of this session, unique in the run.
        entry: What ``load`` is told to open.
        arguments: The agent's command line.
        environment: What its environment has beside what it keeps of the device's.
        timeout_s: The longest wait for one reply.
        title: What it runs, for error messages.
    """

    def __init__(
        self,
        *,
        depot: Depot,
        number: int,
        entry: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        timeout_s: float,
        title: str,
    ) -> None:
        self._depot, self._entry, self._title, self._timeout_s = depot, entry, title, timeout_s
        self.directory = f"{depot.directory()}/session-{number}"
        variables = {**environment, "HOME": self.directory, "TMPDIR": self.directory}
        words = [*(f"{name}={value}" for name, value in variables.items()), *arguments]
        self._command = f"/bin/sh -c {' '.join(map(shlex.quote, [_START, 'agent', self.directory, *words]))}"
        self._channel: Channel | None = None
        self._state: dict[str, dict[str, Any]] = {}
        self._chosen = ""
        self._put: dict[str, str] = {}
        self._closed = False
        depot.lasting(lambda: self._sh(f'mkdir -p "$1" && {_KILL}'))

    @property
    def entry(self) -> str:
        """The engine's entry file, as the device names it."""
        return self._entry

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its reply; after a lost line, again.

        Raises:
            DeviceError: The agent answered with an error, died, or timed out, or the line is lost for good.
        """
        if self._closed:
            raise DeviceError(f"The session with the {self._title} is closed.", got=f"the request {do!r}")

        def work() -> dict[str, Any]:
            try:
                if self._channel is None:
                    self._channel = self._restarted()
                return self._exchange(self._channel, do, arguments)
            except LineLost:
                self._channel = None
                raise

        reply = self._depot.lasting(work)
        self._remember(do, arguments)
        return reply

    def put(self, file: Path) -> str:
        """Send a file; one that is there already with this content is not sent again."""
        content = hash_file(file)
        if self._put.get(file.name) != content:
            self._depot.send({file.name: file}, self.directory, "send inputs")
            self._put[file.name] = content
        return f"{self.directory}/{file.name}"

    def get(self, name: str, file: Path) -> None:
        """Bring a file that the agent wrote here."""
        self._depot.fetch(f"{self.directory}/{name}", file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        channel, self._channel = self._channel, None
        # Whatever cannot be tidied up now goes with the run's directory.
        with contextlib.suppress(DeviceError, LineLost, TimeoutError):
            if channel is not None:
                channel.end(_PATIENCE_S if kind is None else 0.0)
            self._sh(f'{_KILL}; rm -rf "$1"')

    def _restarted(self) -> Channel:
        """A fresh agent, in the state that the last one was in."""
        self._sh(_KILL)
        channel = self._depot.link.start(self._command)
        for do in ("load", self._chosen, "warm"):
            if do in self._state:
                self._exchange(channel, do, self._state[do])
        return channel

    def _remember(self, do: str, arguments: dict[str, Any]) -> None:
        if do in {"first", "inputs"}:
            self._chosen = do
        if do == "warm" and arguments.get("n", 0) < self._state.get("warm", {}).get("n", 0):
            return
        if do in {"load", "first", "inputs", "warm"}:
            self._state[do] = arguments

    def _exchange(self, channel: Channel, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
        line: str | None = json.dumps({"do": do, **arguments})
        for _ in range(100):  # a login script may print before the agent does
            try:
                answer = channel.exchange(line, self._timeout_s)
            except TimeoutError:
                self._sh(_KILL)
                raise DeviceError(
                    f"The agent with the {self._title} did not answer {do!r} within {self._timeout_s:g} s; it was ended.",
                    fix="Give it longer, or measure fewer samples.",
                ) from None
            if not answer:
                raise self._died(channel, do)
            line = None
            if answer.startswith("{"):
                break
        try:
            reply = json.loads(answer)
        except ValueError:
            raise DeviceError(
                f"The agent with the {self._title} answered {do!r} with something else than the protocol's JSON.",
                got=repr(answer[:200]),
            ) from None
        if "error" in reply:
            what = f"The {self._title} failed at {do!r}: {reply['error']}"
            raise DeviceError(what, kind=str(reply.get("kind", "")))
        return dict(reply)

    def _died(self, channel: Channel, do: str) -> DeviceError:
        tail = self._sh(f'tail -n {_TAIL_LINES} "$1/stderr.txt"')
        lines = "\n".join(f"  {line}" for line in tail.splitlines()) or "  (none)"
        return DeviceError(
            f"The agent with the {self._title} died at {do!r}: {channel.cause}.",
            fix=f"The end of its messages:\n{lines}",
        )

    def _sh(self, script: str) -> str:
        """Run a little script; ``$1`` is the session's directory."""
        words = " ".join(map(shlex.quote, [script, "session", self.directory]))
        return self._depot.link.run(f"/bin/sh -c {words}")[1].decode(errors="replace")
