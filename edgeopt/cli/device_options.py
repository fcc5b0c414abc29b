"""``--device`` and what belongs to it, for every command that runs engines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.core.events import ProgressListener

if TYPE_CHECKING:
    from edgeopt.devices.base import Device

__all__ = ["chosen_device", "device_options", "devices_file_option", "new_host_key_option"]

Command = Callable[..., Any]

new_host_key_option = click.option(
    "--accept-new-host-key",
    is_flag=True,
    help="Trust a device that is not in known_hosts yet, and add its key. A changed key is refused all the same.",
)
devices_file_option = click.option(
    "--devices-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Names of devices and fleets.  [default: devices.toml here, then in the user's config folder]",
)


def device_options(
    *, fleets: bool = False, numerics: bool = True, several: bool = False, of_target: bool = False
) -> Callable[[Command], Command]:
    """``--device``, ``--accept-new-host-key`` and ``--devices-file``.

    Args:
        fleets: Whether all devices of a fleet may be named at once.
        numerics: Whether an emulated CPU will do.
        of_target: Whether the target says where, if nothing is named; else it is this machine.
        several: Whether ``--device`` may be repeated; the parameter is then a tuple.
    """
    ways = ["local", "browser", "ssh://[user@]host[:port]", *(["qemu:CPU (numerics only)"] if numerics else [])]
    last = "or a name in devices.toml" + (", or fleet:NAME for all of a fleet at once" if fleets else "")
    usual = "browser for a target that is one, else local" if of_target else "local"

    def decorate(command: Command) -> Command:
        device = click.option(
            "--device",
            metavar="WHERE",
            default=None if of_target else ("local",) if several else "local",
            multiple=several,
            show_default=usual,
            help=f"Where to run: {', '.join(ways)}, {last}." + ("  Repeatable." if several else ""),
        )
        return device(new_host_key_option(devices_file_option(command)))

    return decorate


@contextmanager
def chosen_device(
    name: str, progress: ProgressListener, *, accept_new_host_key: bool, devices_file: Path | None
) -> Iterator["Device"]:
    """The device of that name, open until the end of the block."""
    from edgeopt.devices.registry import opened

    with opened(name, accept_new_host_key=accept_new_host_key, devices_file=devices_file, progress=progress) as device:
        yield device
