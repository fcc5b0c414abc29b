"""From what an agent says of its machine to what a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeopt.bundle.document import DeviceInfo

__all__ = ["device_info"]

# The features that decide which kernels a runtime picks, as Linux spells them. Kernels list a hundred others.
_RELEVANT = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


def device_info(machine: Mapping[str, Any]) -> DeviceInfo:
    """Build the report's section from ``machine`` of the reply to ``hello``."""
    cores = int(machine["cores"])
    plural = "core" if cores == 1 else "cores"
    flags = set(machine["flags"])
    return DeviceInfo(
        name=f"{machine['cpu']}, {cores} {plural} ({machine['arch']})",
        cpu=machine["cpu"],
        arch=machine["arch"],
        isa=tuple(feature for feature in _RELEVANT if feature in flags),
        cores=cores,
        memory_mib=int(machine["memory_mib"]),
        system=machine["system"],
        conditions=dict(machine["conditions"]),
    )
