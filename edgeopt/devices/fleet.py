"""``devices.toml``: devices by name, and fleets of them.

::

    [device.nano1]
    url = "ssh://dev@10.0.0.7"
    python = "/usr/bin/python3"
    affinity = [0, 1]

    [fleet.lab]
    devices = ["nano1"]
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Self

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeopt.core.documents import validate
from edgeopt.core.errors import DeviceError, nearest_first
from edgeopt.devices.ssh.address import Address, parse_address

__all__ = ["DeviceEntry", "Devices", "FleetEntry", "find_address", "members", "read_devices"]

_FILE = "devices.toml"
_TAKEN = ("local", "browser")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceEntry(_Frozen):
    """One device: its address, and what the address's own options would say."""

    url: str
    python: str | None = None
    tmpdir: str | None = None
    affinity: tuple[int, ...] | None = None
    description: str = ""


class FleetEntry(_Frozen):
    """Devices that are measured together."""

    devices: tuple[str, ...] = Field(min_length=1)


class Devices(_Frozen):
    """The whole file."""

    device: dict[str, DeviceEntry] = Field(default_factory=dict)
    fleet: dict[str, FleetEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        import re  # noqa: PLC0415

        for name in (*self.device, *self.fleet):
            if not re.match(_NAME, name) or name in _TAKEN:
                raise ValueError(
                    f"the name {name!r} cannot be used: letters, digits, '.', '_', '-', and not {' or '.join(_TAKEN)}"
                )
        for fleet, entry in self.fleet.items():
            for name in entry.devices:
                if name not in self.device and name not in _TAKEN:
                    near = ", ".join(nearest_first(name, self.device)) or "none"
                    raise ValueError(
                        f"fleet {fleet!r} names {name!r}, which is no device; known, nearest first: {near}"
                    )
        return self


def read_devices(file: Path | None = None) -> Devices:
    """The devices of ``file``; None: of ``devices.toml`` here, or of the one in the user's config folder.

    Raises:
        DeviceError: The file cannot be read or is malformed; the key and the nearest valid one are named.
    """
    usual = [Path(_FILE), Path(platformdirs.user_config_dir("edgeopt", appauthor=False)) / _FILE]
    file = file or next((path for path in usual if path.is_file()), None)
    if file is None:
        return Devices()
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeviceError("The list of devices cannot be read.", got=f"{file}: {error}") from error
    devices = validate(Devices, document, where=f"The list of devices {file}", error=DeviceError)
    for name, entry in devices.device.items():
        _address(name, entry)
    return devices


def find_address(spec: str, file: Path | None = None) -> Address:
    """The address that a URL or a name of ``devices.toml`` stands for.

    Raises:
        DeviceError: There is no such device (all are listed, nearest first), or its address is malformed.
    """
    if spec.startswith("ssh://"):
        return parse_address(spec)
    if "://" in spec:
        raise DeviceError("There is no device of that kind.", got=repr(spec), fix="Known: local, browser, ssh://…")
    devices = read_devices(file)
    if spec.startswith("fleet:"):
        raise DeviceError(
            "A fleet is several devices, and this is done on one.", got=repr(spec), fix="Name one device."
        )
    if spec not in devices.device:
        near = ", ".join(nearest_first(spec, {*_TAKEN, *devices.device}))
        raise DeviceError(
            "There is no device of that name.",
            got=repr(spec),
            fix=f"Known: {near}; or give ssh://user@host. Names are kept in {_FILE} (edgeopt devices lists them).",
        )
    return _address(spec, devices.device[spec])


def members(spec: str, file: Path | None = None) -> tuple[str, ...]:
    """The devices that ``spec`` means: those of a fleet, else itself.

    Raises:
        DeviceError: There is no such fleet.
    """
    if not spec.startswith("fleet:"):
        return (spec,)
    name, fleets = spec.partition(":")[2], read_devices(file).fleet
    if name not in fleets:
        near = ", ".join(nearest_first(name, fleets)) or "none"
        raise DeviceError("There is no fleet of that name.", got=repr(name), fix=f"Known: {near}.")
    return tuple(dict.fromkeys(fleets[name].devices))


def _address(name: str, entry: DeviceEntry) -> Address:
    address = parse_address(entry.url)
    return replace(
        address,
        label=name,
        python=address.python if entry.python is None else entry.python,
        tmpdir=address.tmpdir if entry.tmpdir is None else entry.tmpdir,
        affinity=address.affinity if entry.affinity is None else entry.affinity,
    )
