"""Who the device is: its host key against known_hosts. Unknown is refused unless asked for; changed is refused always."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.core.errors import DeviceError

if TYPE_CHECKING:
    import asyncssh

__all__ = ["HostKeys", "default_files"]

_GLOBAL = Path("/etc/ssh/ssh_known_hosts")


class HostKeys:
    """The known keys of one connection, and what is to be said where the device shows another.

    Args:
        files: Where keys are known; the first is the user's own, to which ``accept_new`` adds.
        accept_new: Whether a key of a device that has none yet is taken and written down.
    """

    def __init__(self, files: Sequence[Path], *, accept_new: bool) -> None:
        self._files, self._accept_new = tuple(files) or default_files(), accept_new
        self.refusal: DeviceError | None = None

    def known(self) -> asyncssh.SSHKnownHosts:
        """All keys of all files.

        Raises:
            DeviceError: A file is malformed.
        """
        import asyncssh  # noqa: PLC0415 - an extra, imported on use

        readable = [file for file in self._files if file.is_file() and os.access(file, os.R_OK)]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in readable]
        try:
            return asyncssh.import_known_hosts("\n".join(texts))
        except ValueError as error:
            raise DeviceError(
                "The list of known host keys is malformed.",
                got=f"{', '.join(map(str, self._files))}: {error}",
                fix="Repair or remove that line.",
            ) from error

    def client(self) -> type[asyncssh.SSHClient]:
        """What asyncssh asks about a key that is not among ``known``."""
        import asyncssh  # noqa: PLC0415

        keys = self

        class Client(asyncssh.SSHClient):
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                return keys.judge(host, addr, port, key)

        return Client

    def judge(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether to go on with a key that no file lists for this host."""
        name = host if port == 22 else f"[{host}]:{port}"
        others = self.known().match(host, addr, None if port == 22 else port)
        fingerprint = key.get_fingerprint()
        user_file = self._files[0]
        if others[0]:
            self.refusal = DeviceError(
                f"The host key of {name} has CHANGED: this may be another machine, or one in between.",
                got=f"{key.get_algorithm()} {fingerprint}, and known is {others[0][0].get_fingerprint()}",
                fix="If the device was set up anew, check its key on the device itself (ssh-keygen -lf "
                f"/etc/ssh/ssh_host_ed25519_key.pub), then remove the old one: ssh-keygen -R '{name}' -f {user_file}.",
            )
            return False
        if not self._accept_new:
            self.refusal = DeviceError(
                f"The host key of {name} is not known.",
                got=f"{key.get_algorithm()} {fingerprint}",
                fix="Compare it with the device's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then connect "
                f"once with --accept-new-host-key, which adds it to {user_file}, or with ssh.",
            )
            return False
        self._add(user_file, name, key)
        return True

    @staticmethod
    def _add(file: Path, name: str, key: asyncssh.SSHKey) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        line = f"{name} {key.export_public_key().decode().strip()}\n"
        with file.open("a", encoding="utf-8") as added:
            added.write(line if not text or text.endswith("\n") else "\n" + line)


def default_files() -> tuple[Path, ...]:
    """``~/.ssh/known_hosts``, then ``/etc/ssh/ssh_known_hosts``."""
    return Path("~/.ssh/known_hosts").expanduser(), _GLOBAL
