"""A run's directory on a device: made at the first use, filled once with agent and engines, removed at the end.

A watchman (a shell that waits on the connection) holds a lease in the directory. When the host says that it is done,
the watchman removes everything. When its line ends without a word, it waits whether a new connection takes the lease
over, and removes everything if none does. What survives even that (a device switched off) is swept away by the next
run that comes a day later.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import edgeopt.agent
from edgeopt.agent import porter
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.core.fingerprint import hash_bytes, hash_file
from edgeopt.devices.ssh.failures import LineLost, answer_failure
from edgeopt.devices.ssh.link import Channel, Link

__all__ = ["Depot"]

T = TypeVar("T")

_PREFIX = "edgeopt-"
_BLOCK = 1 << 18
_TRIES = 5
_ANSWER_S = 60.0
_SHOWN_BYTES = 1 << 20  # smaller transfers are over before a bar could be seen
_WATCH = """
trap '' HUP PIPE
echo "$2" > "$1/lease" || exit 1
echo ready
read word
if [ "$word" != done ]; then
  sleep "$3"
  [ "$(cat "$1/lease" 2>/dev/null)" = "$2" ] || exit 0
fi
for file in "$1"/session-*/pid; do
  [ -f "$file" ] || continue
  kill -9 "-$(cat "$file")" 2>/dev/null || kill -9 "$(cat "$file")" 2>/dev/null
done
rm -rf "$1"
echo gone
"""


class Depot:
    """What a device holds for this run.

    Attributes:
        link: The connection.
        resumed: How often a lost line was taken up again.
    """

    def __init__(self, link: Link, *, progress: ProgressListener = ignore_progress) -> None:
        self.link, self.progress, self.resumed = link, progress, 0
        self._lock = threading.RLock()
        self._facts: dict[str, Any] | None = None
        self._directory = ""
        self._watch: Channel | None = None
        self._sent: set[str] = set()
        link.on_connect.append(self._take_lease)

    @property
    def where(self) -> str:
        """The device, for messages."""
        return self.link.address.text

    @property
    def python(self) -> str:
        """The interpreter, quoted for the device's shell."""
        return shlex.quote(self.link.address.python)

    def lasting(self, work: Callable[[], T]) -> T:
        """Do something that may be done again, and do it again where the line is lost in between.

        Raises:
            DeviceError: The line was lost for good, or again and again.
        """
        for _ in range(_TRIES):
            self.link.connect()
            generation = self.link.generation
            try:
                return work()
            except LineLost:
                self.link.again(generation)
                self.resumed += 1
        raise DeviceError(f"The line to {self.where} was lost {_TRIES} times in one step.", fix="Look at the network.")

    def facts(self) -> dict[str, Any]:
        """What the device says of itself (``agent/porter.py``), asked once.

        Raises:
            DeviceError: There is no Python, one that is too old, or no NumPy.
        """
        with self._lock:
            if self._facts is None:
                self._facts = self.lasting(self._probe)
            return self._facts

    def directory(self) -> str:
        """This run's directory, absolute, made at the first call."""
        with self._lock:
            if not self._directory:
                self.facts()
                self._directory = self.lasting(self._make)
                self._take_lease()
            return self._directory

    def agent(self) -> str:
        """The directory that holds the agent's package, sent at the first call."""
        with self._lock:
            root = Path(edgeopt.agent.__file__).parent
            files = {f"agent/{path.relative_to(root).as_posix()}": path for path in sorted(root.rglob("*.py"))}
            return self._once("code", files, "send the agent")

    def engine(self, engine: Engine) -> str:
        """The directory that holds an engine's files, sent once per content."""
        with self._lock:
            files = {
                path.relative_to(engine.directory).as_posix(): path
                for path in sorted(engine.directory.rglob("*"))
                if path.is_file()
            }
            content = json.dumps({name: hash_file(path) for name, path in files.items()})
            return self._once(f"engine-{hash_bytes(content.encode())[:16]}", files, f"send {engine.entry}")

    def send(self, files: dict[str, Path], directory: str, stage: str) -> None:
        """Send files, by their names below ``directory``, and have their sha256 compared there.

        Raises:
            DeviceError: The disk is full, permission is denied, or the line is lost for good.
        """
        listed = [
            {"name": name, "bytes": path.stat().st_size, "sha256": hash_file(path)} for name, path in files.items()
        ]
        total = sum(path.stat().st_size for path in files.values())
        header = json.dumps(listed).encode() + b"\n"

        def feed() -> Iterator[bytes]:
            yield header
            done = 0
            for path in files.values():
                with path.open("rb") as file:
                    while block := file.read(_BLOCK):
                        yield block
                        done += len(block)
                        self._tell(stage, done, total)

        self.lasting(lambda: self.ask(["receive", directory], stage, feed()))

    def fetch(self, name: str, file: Path) -> None:
        """Bring a file of the device here; written beside its place, then renamed."""
        part = file.with_name(file.name + ".part")

        def work() -> None:
            with part.open("wb") as sink:
                code, _, said = self.link.run(f"cat -- {shlex.quote(name)}", sink=sink)
            if code:
                raise DeviceError(f"A file of {self.where} cannot be fetched.", got=said.strip() or name)

        try:
            self.lasting(work)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def ask(self, arguments: Sequence[str], what: str, feed: Iterator[bytes] | tuple[()] = ()) -> dict[str, Any]:
        """Run the porter.

        Raises:
            DeviceError: It failed; ``what`` is what it was to do.
            LineLost: The connection ended.
        """
        command = " ".join([self.python, "-c", shlex.quote(_porter()), *map(shlex.quote, arguments)])
        code, out, said = self.link.run(command, feed)
        lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
        try:
            answer = json.loads(lines[-1])
        except (IndexError, ValueError):
            last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
            raise DeviceError(f"{self.where} failed: {what}.", got=last) from None
        if "error" in answer:
            raise answer_failure(answer, what, self.where)
        return dict(answer)

    def close(self) -> None:
        """Remove everything from the device; a line that is down is tried once more, and else left to the watchman."""
        with self._lock:
            directory, self._directory = self._directory, ""
            self._sent.clear()
            if directory:
                with contextlib.suppress(DeviceError, LineLost, TimeoutError):
                    self._remove(directory)
            self._watch = None
            self.link.end()

    def _remove(self, directory: str) -> None:
        with contextlib.suppress(LineLost, TimeoutError):
            if self._watch is not None and self._watch.exchange("done", _ANSWER_S):
                return
        self.link.close()
        self.link.connect()
        self._new_watch(directory).exchange("done", _ANSWER_S)

    def _take_lease(self) -> None:
        if self._directory:
            self._watch = self._new_watch(self._directory)

    def _new_watch(self, directory: str) -> Channel:
        grace = str(int(self.link.patience_s) + 60)
        words = " ".join(map(shlex.quote, [_WATCH, "watch", directory, secrets.token_hex(8), grace]))
        watch = self.link.start(f"/bin/sh -c {words}")
        for _ in range(100):  # a login script may print before
            line = watch.exchange(None, _ANSWER_S)
            if line.strip() == "ready":
                return watch
            if not line:
                break
        raise DeviceError(
            f"{self.where} does not hold this run's directory any more.", got=directory, fix="Was it restarted?"
        )

    def _once(self, name: str, files: dict[str, Path], stage: str) -> str:
        directory = f"{self.directory()}/{name}"
        if name not in self._sent:
            self.send(files, directory, stage)
            self._sent.add(name)
        return directory

    def _probe(self) -> dict[str, Any]:
        named = self.link.address.python
        code, out, _ = self.link.run(
            f'{self.python} -c "import sys; print(sys.version_info[0] * 100 + sys.version_info[1])"'
        )
        words = out.decode(errors="replace").split()
        if code or not words or not words[-1].isdigit():
            raise DeviceError(
                f"{self.where} has no Python to run the agent with.",
                got=f"{named} (exit code {code})",
                fix="Install one (sudo apt-get install python3 python3-numpy), or name it: ?python=/path/to/python3.",
            )
        if int(words[-1]) < 308:
            raise DeviceError(
                f"The Python of {self.where} is too old: the agent needs 3.8 or newer.",
                got=f"{named}, {int(words[-1]) // 100}.{int(words[-1]) % 100}",
                fix="Install a newer one there and name it: ?python=/path/to/python3.",
            )
        facts = self.ask(["probe"], "say what it is")
        if not facts.get("numpy"):
            raise DeviceError(
                f"The Python of {self.where} has no NumPy, which the agent needs.",
                got=f"{named}, {facts.get('python')}",
                fix=f"Install it there: {named} -m pip install numpy (or sudo apt-get install python3-numpy).",
            )
        return facts

    def _make(self) -> str:
        wanted = self.link.address.tmpdir
        parent = shlex.quote(wanted) if wanted else '"${TMPDIR:-/tmp}"'
        script = f"umask 077; cd {parent} && pwd && mktemp -d {_PREFIX}XXXXXXXX"
        code, out, said = self.link.run(f"/bin/sh -c {shlex.quote(script)}")
        lines = out.decode(errors="replace").split("\n")[:-1]
        if code or len(lines) < 2:
            raise DeviceError(
                f"No directory can be made on {self.where}.",
                got=(said.strip().splitlines() or [wanted])[-1],
                fix="Free some space, or name a directory that this user may write to: ?tmpdir=/path.",
            )
        with contextlib.suppress(DeviceError):  # tidying up after others is no reason to fail
            self.ask(["sweep", lines[-2], _PREFIX], "remove what dead runs left")
        return f"{lines[-2].rstrip('/')}/{lines[-1]}"

    def _tell(self, stage: str, done: int, total: int) -> None:
        """Called in the connection's thread: a listener that stops the run (Ctrl-C) must not stop that thread."""
        if total >= _SHOWN_BYTES:
            with contextlib.suppress(KeyboardInterrupt):
                self.progress(Progress(stage=f"{stage} to {self.link.address.label}", done=done, total=total))


@cache
def _porter() -> str:
    """The porter as text, with as little as has to travel in a command line."""
    return Path(porter.__file__).read_text(encoding="utf-8")
