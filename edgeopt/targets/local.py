"""Targets that describe the machine at hand: what depends on its CPU is filled in."""

from __future__ import annotations

from edgeopt.core.errors import TargetError
from edgeopt.targets.host import Host
from edgeopt.targets.schema import Isa, Precision, QuantizationRules, RuntimeRules, Target

__all__ = ["VNNI", "fill_in"]

VNNI = ("avx512_vnni", "avx_vnni")
"""Either one adds products of u8 and s8 in 32 bits; without, pairs are added in 16 bits, which saturate."""

_BFLOAT16 = "avx512_bf16"
"""CPUs with AMX have it too. Where AVX-512 has it not, OpenVINO emulates bfloat16, at 3 to 19 times float32's time."""

_SHOWN_ON_X86: frozenset[Precision] = frozenset({"w4a8", "w8", "w4"})
"""Whose experiments ran on x86-64 alone; nothing is claimed of kernels for packed weights elsewhere."""

_NOTABLE = (
    *("avx2", "avx512f", *VNNI, _BFLOAT16, "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "sve"),
)


def fill_in(target: Target, host: Host) -> Target:
    """The target with the ISA, cores, memory, dialects and weight bits of ``host``.

    Raises:
        TargetError: The host's architecture is neither x86-64 nor AArch64.
    """
    if host.arch == "x86_64":
        saturates = not host.features.intersection(VNNI)
        isa = Isa(arch="x86_64", requires=_notable(host), excludes=VNNI if saturates else ())
    elif host.arch == "aarch64":
        saturates = False
        isa = Isa(arch="aarch64", requires=_notable(host))
    else:
        raise TargetError(
            f"The target {target.name!r} cannot describe this machine.",
            got=f"a CPU of architecture {host.arch}",
            fix="edgeopt compiles for x86_64 and aarch64; name the target that you compile for.",
        )
    changes = {
        "isa": isa,
        "cores": host.cores,
        "channel_multiple": _channel_multiple(host) or target.channel_multiple,
        "memory_mib": host.memory_mib,
        "runtimes": tuple(_runtime(rules, host, saturates=saturates) for rules in target.runtimes),
        "quantization": _quantization(target.quantization, host, saturates=saturates),
        "description": f"{target.description} Here: {host.cpu}, {host.arch}, {', '.join(isa.requires) or 'baseline'}.",
    }
    # Through the validators, which model_copy would pass by.
    return Target.model_validate(target.model_dump() | changes)


def _channel_multiple(host: Host) -> int | None:
    """The channels of one vector register: x86 kernels work in blocks of so many."""
    if host.arch != "x86_64":
        return None
    return 16 if "avx512f" in host.features else 8


def _notable(host: Host) -> tuple[str, ...]:
    return tuple(feature for feature in _NOTABLE if feature in host.features)


def _runtime(rules: RuntimeRules, host: Host, *, saturates: bool) -> RuntimeRules:
    if rules.name == "onnxruntime":
        x86 = "ort-x86-novnni" if saturates else "ort-x86"
        plain = host.arch != "aarch64" and not saturates  # the faster forms are written for that dialect's kernels
        rules = rules.model_copy(
            update={
                "dialect": "ort-arm" if host.arch == "aarch64" else x86,
                "faster_forms": rules.faster_forms if plain else (),
            }
        )
    if rules.name == "openvino" and rules.dialect == "openvino":
        here = "openvino-novnni" if saturates else "openvino-amx" if "amx_int8" in host.features else "openvino"
        faster = tuple(form.replace("openvino", here, 1) for form in rules.faster_forms)
        rules = rules.model_copy(
            update={"dialect": here, "faster_forms": faster if _BFLOAT16 in host.features and not saturates else ()}
        )
    return rules.model_copy(update={"precisions": tuple(p for p in rules.precisions if _offered(p, rules.name, host))})


def _offered(precision: Precision, runtime: str, host: Host) -> bool:
    """Whether what the catalog says of a CPU with everything holds on this one."""
    if precision == "bf16":
        return _BFLOAT16 in host.features
    if precision in _SHOWN_ON_X86:
        return host.arch == "x86_64"
    # OpenVINO's int8 raises on Armv8.0 (Cortex-A53, A72).
    raises = runtime == "openvino" and host.arch == "aarch64" and "asimddp" not in host.features
    return not (raises and precision == "int8")


def _quantization(rules: QuantizationRules | None, host: Host, *, saturates: bool) -> QuantizationRules | None:
    if rules is None or not saturates:
        return rules
    # How OpenVINO's kernels pair weights was seen with AVX2; with AVX-512 and no VNNI it was not: 7 bits suit any kernel.
    is_known = "avx512f" not in host.features
    return rules.model_copy(update={"saturation": "repair"} if is_known else {"weight_bits": 7})
