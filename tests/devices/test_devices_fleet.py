from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.core.errors import DeviceError
from edgeopt.devices import open_device
from edgeopt.devices.fleet import find_address, members, read_devices
from edgeopt.devices.ssh.address import parse_address

FILE = """
[device.nano1]
url = "ssh://dev@10.0.0.7:2200?tmpdir=/data"
python = "/opt/python"
affinity = [0, 1]
[device.pi]
url = "ssh://pi"
[fleet.lab]
devices = ["nano1", "pi", "nano1"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text(FILE)
    return tmp_path / "devices.toml"


def test_a_named_device_has_the_files_options_over_its_urls(here):
    found = find_address("nano1")
    assert (found.label, found.host, found.user, found.port) == ("nano1", "10.0.0.7", "dev", 2200)
    assert (found.python, found.tmpdir, found.affinity) == ("/opt/python", "/data", (0, 1))
    assert found.text == "ssh://dev@10.0.0.7:2200"


def test_a_fleet_is_its_devices_once_each(here):
    assert members("fleet:lab") == ("nano1", "pi")
    assert members("pi") == ("pi",)


def test_the_users_config_folder_is_looked_in_where_there_is_no_file_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert read_devices().device == {}
    (tmp_path / "config" / "edgeopt").mkdir(parents=True)
    (tmp_path / "config" / "edgeopt" / "devices.toml").write_text(FILE)
    assert set(read_devices().device) == {"nano1", "pi"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[device.a]\nurl = 'ssh://a'\npyton = 'x'", r"unknown key device\.a\.pyton; nearest valid key: python"),
        ("[devices.a]\nurl = 'ssh://a'", "unknown key devices; nearest valid key: device"),
        ("[device.a]\npython = 'x'", r"device\.a\.url"),
        ("[device.a]\nurl = 'ftp://a'", "address is malformed"),
        ("[device.a]\nurl = 'ssh://a'\naffinity = ['0']", "affinity"),
        ("[device.local]\nurl = 'ssh://a'", "'local' cannot be used"),
        ("[device.a]\nurl='ssh://a'\n[fleet.f]\ndevices=['b']", "fleet 'f' names 'b', which is no device.*: a"),
        ("[fleet.f]\ndevices=[]", "fleet"),
        ("[device", "cannot be read"),
    ],
)
def test_a_malformed_file_is_one_clear_error(here, text, match):
    here.write_text(text)
    with pytest.raises(DeviceError, match=f"(?s){match}"):
        read_devices()


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("nano2", "no device of that name.*Known: nano1"),
        ("serial://x", "no device of that kind"),
        ("fleet:lab", "A fleet is several devices"),
        ("ssh://", "malformed"),
        ("ssh://u:secret@h", "holds no password"),
        ("ssh://h/path", "has no path"),
        ("ssh://h:port", "malformed"),
        ("ssh://h:99999", "malformed"),
        ("ssh://-oProxyCommand=x", "malformed"),
        ("ssh://h?pyton=x", "no such option.*'pyton'.*Known: python"),
        ("ssh://h?python", "malformed"),
        ("ssh://h?affinity=a", "lists CPUs"),
    ],
)
def test_a_bad_name_or_address_is_one_clear_error(here, spec, match):
    with pytest.raises(DeviceError, match=match) as caught:
        open_device(spec)
    assert "secret" not in str(caught.value)


def test_an_unknown_fleet_lists_those_there_are(here):
    with pytest.raises(DeviceError, match=r"no fleet of that name.*'lba'.*Known: lab"):
        members("fleet:lba")


@given(st.text())
def test_no_address_is_anything_but_read_or_refused(text):
    try:
        found = parse_address("ssh://" + text)
    except DeviceError:
        return
    assert found.host
    assert parse_address(found.text).host == found.host


def test_capitals_of_an_alias_stay():
    assert parse_address("ssh://me@MyBoard:22").host == "MyBoard"
    assert parse_address("ssh://[fe80::1]:22").host == "fe80::1"
