"""From what goes wrong with a connection to one clear error each."""

from __future__ import annotations

import errno
import socket
from typing import Any

from edgeopt.core.errors import DeviceError

__all__ = ["LineLost", "answer_failure", "connect_failure"]


class LineLost(Exception):  # noqa: N818 - an event that is answered by connecting again, not an error yet
    """The connection ended under our hands."""


def connect_failure(error: Exception, where: str) -> DeviceError:  # noqa: PLR0911 - one return per cause
    """Why there is no connection, and what to do."""
    import asyncssh  # noqa: PLC0415 - an extra, imported on use

    if isinstance(error, DeviceError):
        return error
    if isinstance(error, socket.gaierror):
        return DeviceError(
            "The device's name cannot be resolved.",
            got=f"{where} ({error.strerror})",
            fix="Check the spelling and the DNS, or give its address; aliases belong in ~/.ssh/config.",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return DeviceError(
            "The device does not let this user in.",
            got=f"{where}: {error.reason}",
            fix="Install a key there (ssh-copy-id), add it to the SSH agent (ssh-add), or name it in ~/.ssh/config "
            "(IdentityFile). No password is asked for.",
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return DeviceError(
            "The host key cannot be verified.",
            got=f"{where}: {error.reason}",
            fix="Connect once with ssh, also to each jump host, and check the key.",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return DeviceError(
            "The device and this machine agree on no keys: its host key may have changed to another kind.",
            got=f"{where}: {error.reason}",
            fix="Compare the device's host keys with those in known_hosts.",
        )
    if isinstance(error, ConnectionRefusedError):
        return DeviceError(
            "The device refuses the connection.",
            got=where,
            fix="Is its SSH server running (systemctl status ssh), and on this port?",
        )
    if isinstance(error, TimeoutError):
        return DeviceError("The device does not answer.", got=where, fix="Is it on, and on this network?")
    if isinstance(error, (ValueError, asyncssh.KeyImportError, asyncssh.ConfigParseError)):
        return DeviceError(
            "The SSH settings for this device cannot be used.", got=f"{where}: {error}", fix="See ~/.ssh/config."
        )
    return DeviceError("The device cannot be reached.", got=f"{where}: {error or type(error).__name__}")


def answer_failure(answer: dict[str, Any], what: str, where: str) -> DeviceError:
    """What the porter could not do on the device."""
    number, message = answer.get("errno"), answer.get("error")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DeviceError(
            f"The disk of {where} is full: {what}.",
            got=message,
            fix="Free some space there, or name a directory on another disk: ?tmpdir=/path.",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DeviceError(
            f"{where} does not permit it: {what}.",
            got=message,
            fix="Name a directory that this user may write to: ?tmpdir=/path.",
        )
    return DeviceError(f"{where} failed: {what}.", got=message)
