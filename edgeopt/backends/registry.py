"""Every backend, by name."""

from __future__ import annotations

from edgeopt.backends.base import Backend
from edgeopt.core.registry import Registry

__all__ = ["BACKENDS", "BackendRegistry"]


class BackendRegistry(Registry[Backend]):
    """The registry, giving a backend ready to use: a class that it imports is called without arguments."""

    def __getitem__(self, name: str) -> Backend:
        loaded = super().__getitem__(name)
        return loaded() if isinstance(loaded, type) else loaded


BACKENDS: Registry[Backend] = BackendRegistry(
    "backend",
    {
        "coreml": "edgeopt.backends.coreml:CoreMlBackend",
        "executorch": "edgeopt.backends.executorch:ExecuTorchBackend",
        "litert": "edgeopt.backends.litert:LiteRtBackend",
        "onnxruntime": "edgeopt.backends.onnxruntime:OnnxRuntimeBackend",
        "openvino": "edgeopt.backends.openvino:OpenVinoBackend",
        "ort-mobile": "edgeopt.backends.ort_mobile:OrtMobileBackend",
        "qnn": "edgeopt.backends.qnn:QnnBackend",
        "tensorrt": "edgeopt.backends.tensorrt:TensorRTBackend",
    },
    "edgeopt.backends",
)
