"""The runtimes that the lint's corpus is put to, each on a target of the catalog; or on one made up, where none fits."""

from __future__ import annotations

from backend_nets import make_rules, make_target

from edgeopt.targets.load import find_target


def _of(target, runtime):
    found = find_target(target)
    return next(rules for rules in found.runtimes if rules.name == runtime), found


_ARMV8 = make_target("armv8", isa={"arch": "aarch64"})
_DLA = find_target("jetson-orin-nx").model_copy(update={"dla_cores": 2})

RUNTIMES = {
    "onnxruntime": _of("x86-vnni", "onnxruntime"),
    "openvino": _of("openvino-cpu", "openvino"),
    "tensorrt": _of("jetson-orin-nano", "tensorrt"),
    "onnxruntime avx2": _of("x86-avx2", "onnxruntime"),
    "onnxruntime armv8.0": _of("raspberry-pi-4", "onnxruntime"),
    "ort-mobile": _of("android-arm64", "ort-mobile"),
    "openvino armv8.0": (make_rules("openvino", opset_max=25), _ARMV8),
    "tensorrt dla": (_DLA.runtimes[0], _DLA),
    "coreml": _of("iphone-coreml", "coreml"),
    "coreml ios16": (make_rules("coreml", options={"minimum_deployment_target": "iOS16"}), _ARMV8),
    "litert": (make_rules("litert", opset_max=99), _ARMV8),
    "executorch": _of("android-xnnpack", "executorch"),
    "executorch vulkan": _of("android-vulkan", "executorch"),
}
