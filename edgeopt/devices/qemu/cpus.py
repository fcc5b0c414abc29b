"""The CPUs that QEMU's user mode can stand in for, by the names that users give them."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.core.errors import DeviceError, nearest_first

__all__ = ["CPUS", "EmulatedCpu", "find_cpu"]

_ARMV8 = ("fp", "asimd", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
_ARMV8_2 = (*_ARMV8, "atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp")
_ARM_ALL = (*_ARMV8_2, "jscvt", "fcma", "sve", "sve2", "svei8mm", "svebf16", "i8mm", "bf16")
_HWCAP = "experiment: AT_HWCAP and AT_HWCAP2 of a process under qemu-aarch64 7.2"
_TABLE = "QEMU documentation, A-profile CPU architecture support and Arm virtual boards"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCpu:
    """One CPU.

    Attributes:
        name: As in ``qemu:NAME``.
        title: What it is, in words.
        arch: ``aarch64`` or ``x86_64``.
        qemu: The value of QEMU's ``-cpu``.
        least_qemu: The first version of QEMU that emulates what is listed here.
        features: What selects kernels, as Linux and archspec spell it.
        implementer: ``CPU implementer`` of ``/proc/cpuinfo``; Arm's own. Arm only, like ``part``.
        part: ``CPU part`` there: runtimes look cores up by it.
        notes: What a user of it must know.
        source: Where all this is from.
    """

    name: str
    title: str
    arch: str
    qemu: str
    least_qemu: tuple[int, int]
    features: tuple[str, ...]
    implementer: str = ""
    part: str = ""
    notes: str = ""
    source: str

    @property
    def program(self) -> str:
        """QEMU's program for the architecture."""
        return f"qemu-{self.arch}"

    def cpuinfo(self, cores: int) -> str:
        """``/proc/cpuinfo`` as an Arm kernel writes it (Linux, arch/arm64/kernel/cpuinfo.c); empty for x86."""
        if not self.part:
            return ""
        lines = (
            "processor\t: {}",
            f"Features\t: {' '.join(self.features)}",
            f"CPU implementer\t: {self.implementer}",
            "CPU architecture: 8",
            "CPU variant\t: 0x1",
            f"CPU part\t: {self.part}",
            "CPU revision\t: 0",
        )
        return "".join("\n".join(lines).format(core) + "\n\n" for core in range(cores))


CPUS: dict[str, EmulatedCpu] = {
    cpu.name: cpu
    for cpu in (
        EmulatedCpu(
            name="cortex-a53",
            title="Arm Cortex-A53 (Armv8.0-A, no int8 dot product)",
            arch="aarch64",
            qemu="cortex-a53",
            least_qemu=(5, 0),
            features=_ARMV8,
            implementer="0x41",
            part="0xd03",
            source=f"{_TABLE}; {_HWCAP}; Arm Cortex-A53 Technical Reference Manual, MIDR_EL1 (part 0xD03)",
        ),
        EmulatedCpu(
            name="cortex-a72",
            title="Arm Cortex-A72 (Armv8.0-A, no int8 dot product), as in a Raspberry Pi 4",
            arch="aarch64",
            qemu="cortex-a72",
            least_qemu=(5, 0),
            features=_ARMV8,
            implementer="0x41",
            part="0xd08",
            source=f"{_TABLE}; {_HWCAP}; Arm Cortex-A72 Technical Reference Manual, MIDR_EL1 (part 0xD08)",
        ),
        EmulatedCpu(
            name="cortex-a76",
            title="Arm Cortex-A76 (Armv8.2-A, int8 dot product), as in a Raspberry Pi 5",
            arch="aarch64",
            qemu="cortex-a76",
            least_qemu=(7, 1),
            features=_ARMV8_2,
            implementer="0x41",
            part="0xd0b",
            source=f"{_TABLE}; {_HWCAP}; Arm Cortex-A76 Technical Reference Manual, MIDR_EL1 (part 0xD0B)",
        ),
        EmulatedCpu(
            name="max",
            title="All of Arm that QEMU emulates, but SME (int8 matrix product, bfloat16, SVE2 of 128 bits)",
            arch="aarch64",
            # SME is off: with it OpenVINO 2026.4 is wrong under QEMU 7.2, in float too, and right without; whose fault
            # that is was not found out. 128 bits is what the cores of phones and servers have.
            qemu="max,sme=off,sve-max-vq=1",
            least_qemu=(7, 1),
            features=_ARM_ALL,
            implementer="0x41",
            part="0xd40",
            notes="No CPU on sale is this one: it shows the kernels for i8mm, and their like.",
            source=f"{_TABLE}; {_HWCAP}; Arm Neoverse V1 Technical Reference Manual, MIDR_EL1 (part 0xD40, its nearest)",
        ),
        EmulatedCpu(
            name="haswell",
            title="Intel Haswell (AVX2, no VNNI: int8 pair sums saturate)",
            arch="x86_64",
            qemu="Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid",  # what user mode lacks, and warns of
            least_qemu=(7, 2),
            features=("sse4_1", "sse4_2", "avx", "f16c", "fma", "bmi1", "bmi2", "movbe", "avx2"),
            notes="Stands for x86-64 from Haswell to Skylake and AMD Zen 1 to 3.",
            source="QEMU documentation, QEMU / KVM CPU model configuration; QEMU 7.2 change log (AVX2 in TCG)",
        ),
    )
}
"""By name."""


def find_cpu(name: str) -> EmulatedCpu:
    """The CPU of that name.

    Raises:
        DeviceError: There is none; all are listed, nearest first.
    """
    if name.lower() not in CPUS:
        known = ", ".join(f"qemu:{near}" for near in nearest_first(name, CPUS))
        raise DeviceError("No CPU of that name is emulated.", got=f"'qemu:{name}'", fix=f"Known: {known}.")
    return CPUS[name.lower()]
