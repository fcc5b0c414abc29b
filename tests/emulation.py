"""Emulated CPUs for tests: the set-up is made once per session, or found where the user has one."""

from __future__ import annotations

import shutil

import pytest

from edgeopt.core.errors import DeviceError
from edgeopt.devices.qemu import setup
from edgeopt.devices.qemu.device import qemu_version

__all__ = ["demand_emulation"]


def demand_emulation(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> None:
    """Make emulation of aarch64 usable for this session, or skip with the reason.

    A finished set-up below EDGEOPT_DATA_DIR (or in the user's data folder) is used as it is.
    """
    for program in ("qemu-aarch64", "qemu-x86_64"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: apt-get install qemu-user")
    qemu_version.cache_clear()
    try:
        if setup.up_to_date("aarch64") is None:
            patch.setenv("EDGEOPT_DATA_DIR", str(tmp_path_factory.mktemp("emulation")))
            setup.setup("aarch64")
    except DeviceError as error:
        pytest.skip(f"emulation of aarch64 cannot be set up here: {error}")
