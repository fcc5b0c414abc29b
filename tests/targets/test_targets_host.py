"""The machine at hand, and which targets it may stand for."""

import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt.core.errors import TargetError
from edgeopt.targets import host as host_module
from edgeopt.targets.host import Host, detect_host, stands_for
from edgeopt.targets.load import _CATALOG as CATALOG
from edgeopt.targets.load import find_target, read_target
from edgeopt.targets.local import fill_in

GIB = 1024
SERVER = Host(
    cpu="Xeon", arch="x86_64", features=frozenset({"avx2", "avx512f", "avx512_vnni"}), cores=8, memory_mib=64 * GIB
)
LAPTOP = replace(SERVER, cpu="Core Ultra", features=frozenset({"avx2", "avx_vnni"}))
HASWELL = replace(SERVER, cpu="Core i5", features=frozenset({"avx2"}))
RTX = replace(SERVER, compute_capabilities=(89,))
GRAVITON = Host(
    cpu="Neoverse-N1", arch="aarch64", features=frozenset({"asimd", "asimddp"}), cores=4, memory_mib=8 * GIB
)
PI5 = replace(GRAVITON, cpu="Cortex-A76", model="Raspberry Pi 5 Model B Rev 1.0")
PI4 = replace(GRAVITON, cpu="Cortex-A72", features=frozenset({"asimd"}), model="Raspberry Pi 4 Model B Rev 1.4")
ORIN = replace(GRAVITON, model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super")
PHONE = replace(GRAVITON, system="android")
ARC = replace(SERVER, accelerators=frozenset({"intel-gpu"}))
ULTRA = replace(LAPTOP, accelerators=frozenset({"intel-gpu", "intel-npu"}))
RISCV = replace(GRAVITON, arch="riscv64")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("x86-vnni", SERVER),
        ("x86-vnni", LAPTOP),
        ("openvino-cpu", LAPTOP),
        ("x86-avx2", HASWELL),
        ("rtx-ada", RTX),
        ("raspberry-pi-5", PI5),
        ("raspberry-pi-4", PI4),
        ("jetson", ORIN),
        ("android-arm64", PHONE),
        ("openvino-gpu", ARC),
        ("openvino-npu", ULTRA),
    ],
)
def test_a_machine_stands_for_what_it_is(target, host):
    answer, reason = stands_for(find_target(target), host)
    assert answer, reason
    assert reason.endswith(f"is what {find_target(target).name} describes.")


@pytest.mark.parametrize(
    ("target", "host", "reason"),
    [
        ("x86-avx2", SERVER, "x86-avx2 stands for CPUs without avx512_vnni, which this CPU (Xeon) has."),
        ("x86-vnni", HASWELL, "x86-vnni has avx512_vnni or avx_vnni; this CPU (Core i5) has neither."),
        (
            "openvino-npu",
            ARC,
            "openvino-npu is an Intel NPU; this machine has none that its kernel has a driver for.",
        ),
        ("iphone", PHONE, "iphone runs ios; this machine runs android."),
        (
            "x86-vnni",
            replace(SERVER, features=frozenset({"avx512_vnni"})),
            "x86-vnni has avx2; this CPU (Xeon) has not.",
        ),
        ("x86-vnni", PI5, "x86-vnni is x86_64; this machine is aarch64."),
        ("jetson", SERVER, "jetson-orin-nano is aarch64; this machine is x86_64."),
        ("jetson", GRAVITON, "jetson-orin-nano is one particular device; this machine does not say that it is one."),
        (
            "jetson-agx-orin",
            ORIN,
            f"jetson-agx-orin is one particular device; this machine says that it is {ORIN.model!r}.",
        ),
        (
            "raspberry-pi-5",
            GRAVITON,
            "raspberry-pi-5 is one particular device; this machine does not say that it is one.",
        ),
        (
            "raspberry-pi-4",
            PI5,
            "raspberry-pi-4 is one particular device; this machine says that it is 'Raspberry Pi 5 Model B Rev 1.0'.",
        ),
        ("rtx-ampere", RTX, "rtx-ampere needs an NVIDIA GPU of compute capability 86; found here: 89."),
        ("rtx-ada", SERVER, "rtx-ada needs an NVIDIA GPU of compute capability 89; found here: none."),
        ("android-arm64", PI5, "android-arm64 runs android; this machine runs linux."),
    ],
)
def test_a_machine_that_is_something_else_says_why(target, host, reason):
    assert stands_for(find_target(target), host) == (False, reason)


class TestLocal:
    template = read_target(CATALOG / "local.yaml")

    def test_it_is_this_machine(self):
        here = detect_host()
        target = find_target("local")
        assert stands_for(target, here)[0]
        assert (target.isa.arch, target.cores, target.memory_mib) == (here.arch, here.cores, here.memory_mib)

    def test_without_vnni_and_with_avx512_weights_have_seven_bits(self):
        skylake = replace(HASWELL, features=HASWELL.features | {"avx512f"})
        target = fill_in(self.template, skylake)
        assert (target.quantization.weight_bits, target.quantization.saturation) == (7, "none")

    def test_with_vnni_it_keeps_eight_bits(self):
        target = fill_in(self.template, SERVER)
        assert target.quantization.weight_bits == 8
        assert target.runtimes[0].dialect == "ort-x86"
        assert target.runtimes[0].faster_forms == ("ort-x86-float-stem", "ort-x86-products", "ort-x86-one-scale")
        assert target.isa.requires == ("avx2", "avx512f", "avx512_vnni")

    def test_with_tiles_openvino_has_a_form_of_its_own(self):
        target = fill_in(self.template, replace(SERVER, features=SERVER.features | {"amx_int8"}))
        assert [r.dialect for r in target.runtimes] == ["ort-x86", "openvino-amx"]
        assert target.runtimes[1].faster_forms == ()
        brain = fill_in(self.template, replace(SERVER, features=SERVER.features | {"amx_int8", "avx512_bf16"}))
        assert brain.runtimes[1].faster_forms == ("openvino-amx-bf16-products",)

    def test_bfloat16_is_for_cpus_with_its_instructions(self):
        """Where AVX-512 is without, OpenVINO emulates them: a transformer took 19 times float32's time."""
        without = fill_in(self.template, SERVER).runtimes[1]
        assert ("bf16" in without.precisions, without.faster_forms) == (False, ())
        there = fill_in(self.template, replace(SERVER, features=SERVER.features | {"avx512_bf16"})).runtimes[1]
        assert ("bf16" in there.precisions, there.faster_forms) == (True, ("openvino-bf16-products",))

    def test_without_vnni_channels_are_repaired_and_no_vnni_machine_stands_for_it(self):
        target = fill_in(self.template, HASWELL)
        assert (target.quantization.weight_bits, target.quantization.saturation) == (8, "repair")
        assert [r.dialect for r in target.runtimes] == ["ort-x86-novnni", "openvino-novnni"]
        assert not any(r.faster_forms for r in target.runtimes)  # they are not proven to hold 16 bits
        assert stands_for(target, HASWELL)[0]
        assert not stands_for(target, LAPTOP)[0]

    def test_on_arm_the_dialect_is_arms(self):
        target = fill_in(self.template, PI5)
        assert [(r.name, r.dialect) for r in target.runtimes] == [("onnxruntime", "ort-arm"), ("openvino", "openvino")]
        assert target.isa.arch == "aarch64"
        assert "int8" in target.runtimes[1].precisions

    def test_openvino_offers_no_int8_on_armv8_0(self):
        target = fill_in(self.template, PI4)
        assert target.runtimes[1].precisions == ("fp32", "fp16")
        assert "int8" in target.precisions

    def test_it_exists_on_x86_and_arm_only(self):
        with pytest.raises(
            TargetError, match=r"'local' cannot describe this machine\. Received: a CPU of architecture riscv64"
        ):
            fill_in(self.template, RISCV)


class TestDetection:
    def test_it_agrees_with_the_operating_system(self):
        here = detect_host()
        assert here.cores == len(os.sched_getaffinity(0))
        assert here.system == "linux"
        assert here.cpu
        total_kib = int(Path("/proc/meminfo").read_text().split()[1])
        assert here.memory_mib == total_kib // 1024

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine: /proc/cpuinfo has its flags")
    def test_it_sees_the_flags_that_int8_kernels_ask_for(self):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith("flags")).split()
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"):
            assert (flag in detect_host().features) == (flag in flags)

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine: CPUID is asked")
    def test_what_cpuid_denies_is_not_there_even_if_the_kernel_lists_it(self, monkeypatch):
        class Emulated:
            features = frozenset({"avx2"})

        monkeypatch.setattr(host_module, "CpuidInfoCollector", Emulated)
        features = host_module._features("x86_64")
        assert "avx512_vnni" not in features
        assert "avx_vnni" not in features

    def test_where_cpuid_cannot_be_asked_the_kernels_list_counts(self, monkeypatch):
        def refuse():
            raise OSError("no executable memory")

        monkeypatch.setattr(host_module, "CpuidInfoCollector", refuse)
        assert host_module._features("x86_64") == frozenset(host_module.detected_info().features)

    def test_gpus_are_those_that_the_driver_names(self, tmp_path, monkeypatch):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\necho 8.9\necho 8.6\necho 8.9\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert host_module._gpus() == (86, 89)

    def test_a_driver_that_fails_means_no_gpu(self, tmp_path, monkeypatch):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\nexit 9\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert host_module._gpus() == ()

    def test_the_board_is_what_the_firmware_says(self, tmp_path, monkeypatch):
        model = tmp_path / "model"
        model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
        monkeypatch.setattr(host_module, "_MODEL", model)
        assert host_module._board() == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_host_is_json():
    host = detect_host()
    document = json.loads(json.dumps(host.as_json()))
    assert document["features"] == sorted(host.features)
    assert document["accelerators"] == sorted(host.accelerators)
    assert document["cpu"] == host.cpu
