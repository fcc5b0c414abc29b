"""The set-up of emulation: what it refuses, and that nothing half done is ever taken for done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeopt.core.errors import DeviceError
from edgeopt.devices.qemu import debian, setup
from edgeopt.devices.qemu.cpus import CPUS
from edgeopt.devices.qemu.debian import Distribution, download, find_distribution, glibc_of, run, unpack
from edgeopt.devices.qemu.store import RECORD, host_versions, read_record, store_folder

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian GNU/Linux 12"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(setup, "qemu_version", lambda program: ("7.2", (7, 2)))
    return store_folder("aarch64")


@pytest.fixture
def stages(monkeypatch):
    """Every stage that would fetch something, noted; ``fail`` names the one that fails."""

    class Stages:
        fail, done = "", []

        def of(self, name, result=None):
            def stage(*arguments, **options):
                if self.fail == name:
                    raise DeviceError(f"{name} failed.")
                self.done.append(name)
                return result

            return stage

    stages = Stages()
    stages.done = []
    where = Distribution(name="debian", codename="bookworm", mirror="http://mirror/debian")
    monkeypatch.setattr(setup, "find_distribution", lambda arch: where)
    monkeypatch.setattr(setup, "download", stages.of("download", [Path("libc6_2.36-9_arm64.deb")]))
    monkeypatch.setattr(setup, "unpack", stages.of("unpack", "3.11"))
    monkeypatch.setattr(setup, "_wheels", stages.of("wheels", {"openvino": "no wheel"}))
    monkeypatch.setattr(setup, "_try_it", stages.of("try"))
    return stages


def test_a_set_up_is_complete_or_not_there(store, stages):
    for stages.fail in ("download", "unpack", "wheels", "try"):
        with pytest.raises(DeviceError, match=f"{stages.fail} failed"):
            setup.setup("aarch64")
        assert not store.exists()
    stages.fail = ""
    told = []
    record = setup.setup("aarch64", told.append)
    assert read_record(store) == record
    assert "openvino" not in record.versions
    assert record.left_out == {"openvino": "no wheel"}
    assert [one.part for one in told] == ["fetch packages", "unpack them", "fetch wheels", "run a runtime", ""]
    assert not store.with_name(".aarch64.partial").exists()
    assert "0xd03" in (store / "cpus" / "cortex-a53" / "proc" / "cpuinfo").read_text()


def test_a_finished_set_up_is_made_again_only_for_other_versions(store, stages, monkeypatch):
    setup.setup("aarch64")
    stages.done.clear()
    setup.setup("aarch64")
    assert stages.done == []
    monkeypatch.setattr(setup, "host_versions", lambda: {**host_versions(), "onnxruntime": "9.9"})
    assert setup.up_to_date("aarch64") is None
    assert setup.setup("aarch64").versions["onnxruntime"] == "9.9"
    assert stages.done == ["download", "unpack", "wheels", "try"]
    shutil.rmtree(store / "cpus" / "max")  # a CPU that an older edgeopt did not know
    assert setup.up_to_date("aarch64") is None


def test_what_was_set_up_can_be_removed(store, stages):
    assert setup.remove("aarch64") == 0
    setup.setup("aarch64")
    partial = store.with_name(".aarch64.partial")
    partial.mkdir()
    (partial / "leftover").write_bytes(b"x" * 1000)
    assert setup.remove("aarch64") > 1000
    assert list(store.parent.iterdir()) == []


def test_without_a_runtime_here_there_is_nothing_to_compare_with(store, monkeypatch):
    monkeypatch.setattr(setup, "host_versions", lambda: {"numpy": "2.4.6"})
    with pytest.raises(DeviceError, match=r"no runtime here.*neither onnxruntime nor openvino"):
        setup.setup("aarch64")


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path, monkeypatch, stages):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(setup, "qemu_version", lambda program: ("7.2", (7, 2)))
    with pytest.raises(DeviceError, match=r"folder for emulation cannot be written.*EDGEOPT_DATA_DIR"):
        setup.setup("aarch64")


@pytest.mark.parametrize(
    ("facts", "tools", "match"),
    [
        ({"ID": "fedora", "PRETTY_NAME": "Fedora 42"}, True, r"Debian's or Ubuntu's.*Fedora 42.*container"),
        (DEBIAN, False, "without apt-get, dpkg-deb"),
        ({}, True, "in a container of one"),
    ],
)
def test_a_machine_of_another_kind_is_refused(monkeypatch, facts, tools, match):
    monkeypatch.setattr(debian, "_os_release", lambda: facts)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}" if tools else None)
    with pytest.raises(DeviceError, match=match):
        find_distribution("aarch64")


def test_the_mirror_in_use_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(debian, "_os_release", lambda: DEBIAN)
    single, folder = tmp_path / "sources.list", tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "a.list").write_text(
        "# deb http://commented/debian x main\ndeb [arch=amd64] https://other/tool stable main\n"
    )
    (folder / "b.sources").write_text("Types: deb\nURIs: https://near/debian\nSuites: bookworm\n")
    monkeypatch.setattr(debian, "_SOURCES", (single, folder))
    assert find_distribution("aarch64").mirror == "https://near/debian"
    single.write_text("deb [signed-by=/k.gpg] http://first/debian/ bookworm main\n")
    assert find_distribution("aarch64").mirror == "http://first/debian/"
    monkeypatch.setattr(debian, "_SOURCES", (tmp_path / "nothing",))
    assert find_distribution("aarch64").mirror == "http://deb.debian.org/debian"
    monkeypatch.setattr(debian, "_os_release", lambda: {**DEBIAN, "ID": "ubuntu", "VERSION_CODENAME": "noble"})
    assert find_distribution("aarch64").mirror == "http://ports.ubuntu.com/ubuntu-ports"
    assert "noble main universe" in find_distribution("x86_64").source


def test_a_failed_program_speaks_its_own_last_words():
    with pytest.raises(DeviceError, match=r"It broke\..*E: no such package"):
        run(["sh", "-c", "echo a; echo W: noise >&2; echo 'E: no such package' >&2; exit 1"], "It broke.")
    with pytest.raises(DeviceError, match="exit code 4"):
        run(["sh", "-c", "exit 4"], "It broke.")
    with pytest.raises(DeviceError, match="It is not there"):
        run(["/nowhere/at/all"], "It is not there.")


def test_packages_without_python_or_a_c_library_are_refused(tmp_path):
    with pytest.raises(DeviceError, match="hold no Python"):
        unpack([], tmp_path / "root")
    with pytest.raises(DeviceError, match="hold no C library"):
        glibc_of([Path("libgomp1_12.2.0-14_arm64.deb")])
    assert glibc_of([Path("gcc-12-base_12.deb"), Path("libc6_2.36-9+deb12u14_arm64.deb")]) == 36
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here")
    broken = tmp_path / "broken.deb"
    broken.write_text("no package")
    with pytest.raises(DeviceError, match=r"broken\.deb cannot be unpacked"):
        unpack([broken], tmp_path / "root")


def test_an_unreachable_mirror_is_told_of(tmp_path):
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not here")
    nowhere = Distribution(name="debian", codename="bookworm", mirror=f"file://{tmp_path}/nothing")
    with pytest.raises(DeviceError, match="packages cannot be fetched"):
        download(tmp_path / "apt", "aarch64", nowhere)


def test_an_emulated_runtime_that_dies_keeps_the_set_up_from_its_name(store, stages, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(store.parents[1]))
    record = setup.Record(arch="aarch64", python="3.11", distribution="d", versions={"numpy": "1"}, left_out={})
    dead = subprocess.CompletedProcess([], -11, "", "qemu: uncaught target signal 11")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: dead)
    with pytest.raises(DeviceError, match=r"emulated runtime does not run.*exit code -11.*signal 11"):
        setup._try_it(store, record)
    assert not (store / RECORD).exists()
    assert next(iter(CPUS.values())).arch == "aarch64"
