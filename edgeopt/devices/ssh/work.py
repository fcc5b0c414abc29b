"""A folder on a device in which a program of the host's choice runs to its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgeopt.devices.ssh.depot import Depot

__all__ = ["Work"]

_RUN = """
cd "$1" || exit 1
[ -f pid ] && { kill -9 "-$(cat pid)" || kill -9 "$(cat pid)"; } 2>/dev/null
echo $$ > pid
shift
exec "$@" 2>&1
"""


class Work:
    """One folder below the run's directory; it goes with it, and so does what still runs in it.

    Args:
        name: Of the folder; unique in the run.
    """

    def __init__(self, depot: Depot, name: str) -> None:
        self._depot = depot
        self.directory = f"{depot.directory()}/session-{name}"

    def send(self, files: dict[str, Path], stage: str) -> None:
        """Send files, by their names below the folder."""
        self._depot.send(files, self.directory, stage)

    def run(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a Python script of the folder; where the line is lost in between, it is ended and run again.

        Returns:
            The exit code, and everything that it said.
        """
        command = ["timeout", str(int(timeout_s)), self._depot.link.address.python, *arguments]
        words = " ".join(map(shlex.quote, [_RUN, "work", self.directory, *command]))
        code, out, said = self._depot.lasting(lambda: self._depot.link.run(f"/bin/sh -c {words}"))
        return code, out.decode(errors="replace") + said

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        path = shlex.quote(f"{self.directory}/{name}")
        return self._depot.lasting(lambda: self._depot.link.run(f"test -f {path}"))[0] == 0

    def get(self, name: str, file: Path) -> None:
        """Bring a file here."""
        self._depot.fetch(f"{self.directory}/{name}", file)
