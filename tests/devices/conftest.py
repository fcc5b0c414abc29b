from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.core.engine import Engine
from edgeopt.devices.local import LocalDevice

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import odd_runners  # noqa: E402
from second_host import SecondHost  # noqa: E402

ODD = {name: f"odd_runners:{name}" for name, _ in inspect.getmembers(odd_runners, inspect.isfunction)}


@pytest.fixture
def device():
    return LocalDevice(runners=ODD, search_path=[HERE], timeout_s=60)


@pytest.fixture
def make_engine(tmp_path):
    def make(runtime, **changes):
        directory = tmp_path / "engine"
        directory.mkdir(exist_ok=True)
        (directory / "entry").write_text("{}")
        fields = {
            "runtime": runtime,
            "runtime_version": "0",
            "directory": directory,
            "entry": "entry",
            "status": "built",
            "inputs": (),
            "outputs": (),
        }
        return Engine(**{**fields, **changes})

    return make


@pytest.fixture
def five(tmp_path):
    """Five samples in a file, as an agent reads them."""
    file = tmp_path / "five.npz"
    np.savez(file, x=np.arange(10, dtype=np.float32).reshape(5, 2))
    return file


@pytest.fixture
def load():
    def load(session, runtime, **arguments):
        return session.request("load", runtime=runtime, entry=session.entry, **arguments)

    return load


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    host = SecondHost(tmp_path_factory.mktemp("second-host"))
    try:
        yield host.start()
    finally:
        host.stop()


@pytest.fixture
def host(second, monkeypatch):
    monkeypatch.setenv("HOME", str(second.client_home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    second.know()
    return second
