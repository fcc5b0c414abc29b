"""``ssh://user@host:port?python=/usr/bin/python3``, read."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from edgeopt.core.errors import DeviceError, nearest_first

__all__ = ["Address", "parse_address"]

_OPTIONS = ("python", "tmpdir", "affinity")
_FORM = "Write ssh://[user@]host[:port][?python=/path/to/python3&tmpdir=/path&affinity=0,1]."


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a device is, and how it is used.

    Attributes:
        host: A name (also an alias of ``~/.ssh/config``) or an address.
        user: None: what ``~/.ssh/config`` says, else this user's name.
        port: None: likewise, else 22.
        python: The interpreter that runs the agent.
        tmpdir: Where the run's directory is made; empty: the device's ``$TMPDIR``, else ``/tmp``.
        affinity: Logical CPUs that agents stay on; empty: all.
        label: What figures call the device.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    tmpdir: str = ""
    affinity: tuple[int, ...] = ()
    label: str = ""

    @property
    def text(self) -> str:
        """The address without its options, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


def parse_address(url: str) -> Address:
    """Read a device's URL.

    Raises:
        DeviceError: It is malformed, holds a password or a path, or an option is unknown.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise DeviceError("The device's address is malformed.", got=f"{url!r} ({error})", fix=_FORM) from error
    if parts.scheme != "ssh" or not host or host.startswith("-"):
        raise DeviceError("The device's address is malformed.", got=repr(url), fix=_FORM)
    if parts.password is not None:
        raise DeviceError(
            "A device's address holds no password: it would be seen by others and end in reports.",
            got=f"a password for {host}",
            fix="Use a key: ssh-keygen and ssh-copy-id make and install one.",
        )
    if parts.path not in ("", "/") or parts.fragment:
        raise DeviceError("A device's address has no path.", got=repr(url), fix=_FORM)
    options = dict(pairs)
    for name in options:
        if name not in _OPTIONS:
            near = ", ".join(nearest_first(name, _OPTIONS))
            raise DeviceError("A device's address has no such option.", got=repr(name), fix=f"Known: {near}.")
    # ``hostname`` is in lower case; aliases of ~/.ssh/config may not be.
    netloc = parts.netloc.rpartition("@")[2]
    start = netloc.lower().find(host.lower())
    named = netloc[start : start + len(host)]
    return Address(
        host=named,
        user=parts.username or None,
        port=port,
        python=options.get("python") or "python3",
        tmpdir=options.get("tmpdir", ""),
        affinity=_cpus(options.get("affinity", "")),
        label=named,
    )


def _cpus(text: str) -> tuple[int, ...]:
    cpus = text.split(",") if text else []
    if not all(cpu.strip().isdigit() for cpu in cpus):
        raise DeviceError("The option affinity lists CPUs.", got=repr(text), fix="Write affinity=0,1.")
    return tuple(int(cpu) for cpu in cpus)
