"""Emulated CPUs as devices, as far as no emulator is needed to tell."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgeopt.core.device import demand_timing
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.devices.local import LocalDevice
from edgeopt.devices.qemu import device as module
from edgeopt.devices.qemu.cpus import CPUS, find_cpu
from edgeopt.devices.qemu.device import QemuDevice, agent_copy, qemu_version
from edgeopt.devices.qemu.listing import emulated_cpus
from edgeopt.devices.qemu.store import RECORD, Record, host_versions, read_record, store_folder
from edgeopt.devices.registry import SCHEMES, open_device

FOREIGN = "aarch64"  # what the stand-in machine is not


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An x86-64 machine with an empty data folder, whose emulators say that they are QEMU 7.2."""
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(module, "host_arch", lambda: "x86_64")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def emulators(version):
        qemu_version.cache_clear()
        for arch in ("aarch64", "x86_64"):
            program = programs / f"qemu-{arch}"
            program.write_text(f"#!/bin/sh\necho 'qemu-{arch} version {version} (Debian)'\n")
            program.chmod(0o755)

    emulators("7.2.22")
    yield emulators
    qemu_version.cache_clear()


def set_up(versions=None, left_out=None):
    """A finished set-up, by its record; there is nothing in it to run."""
    folder = store_folder(FOREIGN)
    for cpu in CPUS.values():
        if cpu.arch == FOREIGN:
            (folder / "cpus" / cpu.name).mkdir(parents=True, exist_ok=True)
    record = Record(
        arch=FOREIGN,
        python="3.11",
        distribution="debian bookworm",
        versions=host_versions() if versions is None else versions,
        left_out=left_out or {},
    )
    (folder / RECORD).write_text(record.model_dump_json())
    return folder


def test_what_stands_before_the_colon_is_a_kind_of_device():
    assert {"ssh", "qemu"} <= set(SCHEMES)
    with pytest.raises(DeviceError, match=r"no device of that kind.*'qmu:max'.*Known: local, qemu:…, ssh:…"):
        open_device("qmu:max")


@pytest.mark.parametrize("spec", ["qemu:cortex-a35", "qemu:", "qemu", "qemu://cortex-a35"])
def test_an_unknown_cpu_lists_the_known_ones(spec):
    with pytest.raises(DeviceError, match=r"No CPU of that name is emulated.*Known: qemu:.*qemu:haswell"):
        open_device(spec)


def test_the_nearest_cpu_comes_first():
    with pytest.raises(DeviceError, match="Known: qemu:haswell, "):
        find_cpu("haswel")
    assert find_cpu("Cortex-A53").name == "cortex-a53"


def test_an_emulated_cpu_never_looks_like_a_device(machine):
    set_up()
    device = open_device("qemu:cortex-a53")
    assert device.name == "qemu cortex-a53 (emulated on x86_64)"
    assert "emulated" in device.numerics_only
    assert LocalDevice.numerics_only == ""


def test_times_are_refused_there_and_the_reason_is_told(machine):
    set_up()
    with pytest.raises(DeviceError, match=r"not measured on this device.*qemu max .*emulator's.*edgeopt eval"):
        demand_timing(open_device("qemu:max"))
    demand_timing(LocalDevice())


def test_a_missing_emulator_is_told_of_with_its_package(machine, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent / "nowhere"))
    qemu_version.cache_clear()
    with pytest.raises(DeviceError, match=r"not installed.*no qemu-aarch64 on the PATH.*apt-get install qemu-user"):
        open_device("qemu:cortex-a53")


def test_an_emulator_that_is_too_old_for_the_cpu_is_refused(machine):
    machine("6.2.0")
    with pytest.raises(DeviceError, match=r"too old for haswell.*qemu-x86_64 6\.2\.0.*7\.2 or newer"):
        open_device("qemu:haswell")
    machine("nonsense")
    with pytest.raises(DeviceError, match="does not say its version"):
        open_device("qemu:haswell")


def test_an_emulator_that_does_not_run_is_told_of(machine, tmp_path):
    (tmp_path / "bin" / "qemu-x86_64").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(DeviceError, match="QEMU does not run"):
        open_device("qemu:haswell")


def test_another_architecture_must_be_set_up_first(machine):
    with pytest.raises(DeviceError, match=r"aarch64 is not set up.*edgeopt devices setup qemu --arch aarch64"):
        open_device("qemu:cortex-a76")
    folder = set_up()
    (folder / "cpus" / "cortex-a76").rmdir()  # of a version that did not know this CPU yet
    with pytest.raises(DeviceError, match="no finished set-up for cortex-a76"):
        open_device("qemu:cortex-a76")
    (folder / RECORD).write_text("{}")
    assert read_record(folder) is None


def test_this_machines_own_architecture_needs_no_set_up(machine):
    device = QemuDevice(CPUS["haswell"])
    assert device.demand("numpy") == host_versions()["numpy"]


def test_a_runtime_must_be_there_in_this_machines_version(machine):
    set_up({**host_versions(), "onnxruntime": "1.0.0"})
    with pytest.raises(DeviceError, match=r"another onnxruntime than this machine.*1\.0\.0 there.*setup qemu"):
        open_device("qemu:cortex-a53").demand("onnxruntime")
    set_up({"numpy": "1"}, {"onnxruntime": "No matching distribution found"})
    with pytest.raises(DeviceError, match=r"has no onnxruntime.*No matching distribution"):
        open_device("qemu:cortex-a53").demand("ort-mobile")
    with pytest.raises(DeviceError, match=r"has no tensorrt.*Install tensorrt here"):
        open_device("qemu:cortex-a53").demand("tensorrt")
    set_up()
    with pytest.raises(DeviceError, match=r"another version of numpy than the target asks for.*wanted >=99"):
        open_device("qemu:cortex-a53").demand("numpy", ">=99")


def test_an_engine_that_is_not_built_is_not_run(machine, tmp_path):
    engine = Engine(
        runtime="onnxruntime",
        runtime_version="1",
        directory=tmp_path,
        entry="m.onnx",
        status="not_built",
        inputs=(),
        outputs=(),
    )
    with pytest.raises(DeviceError, match="was not built"):
        QemuDevice(CPUS["haswell"]).open(engine)


def test_the_kernels_file_is_an_arm_ones():
    text = CPUS["cortex-a53"].cpuinfo(2)
    assert text.count("CPU part\t: 0xd03") == 2
    assert "processor\t: 1" in text
    assert "asimddp" not in text
    assert "asimddp" in CPUS["cortex-a76"].cpuinfo(1)
    assert CPUS["haswell"].cpuinfo(2) == ""


def test_the_agent_is_copied_once_and_whole(tmp_path):
    first = agent_copy(tmp_path)
    assert (first / "agent" / "__main__.py").is_file()
    assert (first / "agent" / "runners" / "onnxruntime.py").is_file()
    assert agent_copy(tmp_path) == first
    assert [path.name for path in (tmp_path / "agents").iterdir()] == [first.name]


def test_a_set_up_that_cannot_take_the_agent_is_told_of(tmp_path):
    (tmp_path / "agents").write_text("a file where the folder would be")
    with pytest.raises(DeviceError, match="agent cannot be copied"):
        agent_copy(tmp_path)


def test_every_cpu_is_listed_with_what_it_lacks(machine, monkeypatch):
    rows = {row.name: row for row in emulated_cpus()}
    assert set(rows) == {f"qemu:{name}" for name in CPUS}
    assert rows["qemu:haswell"].ready
    assert not rows["qemu:max"].ready
    assert "edgeopt devices setup qemu" in rows["qemu:max"].state
    set_up()
    assert "onnxruntime" in next(row for row in emulated_cpus() if row.name == "qemu:max").state
    monkeypatch.setenv("PATH", "/nowhere")
    qemu_version.cache_clear()
    assert all("apt-get install qemu-user" in row.state for row in emulated_cpus())


@pytest.mark.parametrize("cpu", CPUS.values(), ids=list(CPUS))
def test_every_cpu_says_where_its_facts_are_from(cpu):
    assert cpu.source
    assert cpu.name in CPUS
    assert cpu.arch in ("aarch64", "x86_64")
    assert ("asimd" in cpu.features) == (cpu.arch == "aarch64") == bool(cpu.part)
