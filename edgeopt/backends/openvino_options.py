"""What a target may ask of OpenVINO, and what may not be changed behind the recipe's back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeopt.backends.graphs import Graph
from edgeopt.backends.support import check_options
from edgeopt.core.errors import BackendError
from edgeopt.targets.schema import RuntimeRules

__all__ = ["OPTIONS", "CompileOptions", "read_options"]

OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "device": str,
    "compress_to_fp16": bool,
    "blob": bool,
    "ENABLE_CPU_PINNING": bool,
    "ENABLE_HYPER_THREADING": bool,
    "SCHEDULING_CORE_TYPE": str,
    "MODEL_DISTRIBUTION_POLICY": list,
    "CPU_DENORMALS_OPTIMIZATION": bool,
    "PERFORMANCE_HINT": str,
    "NUM_STREAMS": int,
    "INFERENCE_PRECISION_HINT": str,
}
"""``device``; ``compress_to_fp16``: store float weights in float16; ``blob``: ship the compiled model beside the IR; and
OpenVINO's properties by their own names. Those that would lower the precision are not among them."""
_OURS = ("device", "compress_to_fp16", "blob")
_DEVICES = ("CPU", "GPU", "NPU")
_HINTS = ("LATENCY", "THROUGHPUT")
_MOST_STREAMS = 256
# What each plug-in can compute float layers in. The CPU's other choices would change what the graph says.
_PRECISIONS: Mapping[str, tuple[str, ...]] = {"CPU": ("f32",), "GPU": ("f32", "f16"), "NPU": ("f16",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """The checked options.

    Attributes:
        device: OpenVINO's name: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``.
        properties: For the runner, by OpenVINO's names.
        compress: Float weights are stored in float16.
        blob: The compiled model is shipped beside the IR.
    """

    device: str
    properties: Mapping[str, Any]
    compress: bool
    blob: bool

    @property
    def streams(self) -> int:
        """How many inferences run at once."""
        streams: int = self.properties.get("NUM_STREAMS", 1)
        return streams

    def for_graph(self, graph: Graph) -> dict[str, Any]:
        """The engine's options. Float16 in a graph is float16 on a GPU, unless the target says otherwise."""
        import onnx  # noqa: PLC0415

        properties = dict(self.properties)
        half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in graph.model.graph.initializer)
        if half and self.device.startswith("GPU"):
            properties.setdefault("INFERENCE_PRECISION_HINT", "f16")
        if self.device == "NPU":
            properties["INFERENCE_PRECISION_HINT"] = "f16"
        return {"device": self.device, "properties": dict(sorted(properties.items()))}


def read_options(rules: RuntimeRules) -> CompileOptions:
    """Check the target's options for OpenVINO.

    Raises:
        BackendError: One is unknown, malformed, or would change numerics.
    """
    given = check_options(rules, OPTIONS)
    device = given.get("device", "CPU")
    base = device.partition(".")[0]
    if base not in _DEVICES:
        raise BackendError(
            "edgeopt compiles for one OpenVINO device.", got=repr(device), fix=f"Use one of {', '.join(_DEVICES)}."
        )
    _choose(given, "PERFORMANCE_HINT", _HINTS, "")
    why = "Precision is the recipe's business: leave this option out of the target."
    _choose(given, "INFERENCE_PRECISION_HINT", _PRECISIONS[base], f" on {base}", why)
    streams = given.get("NUM_STREAMS", 1)
    if not 1 <= streams <= _MOST_STREAMS:
        raise BackendError(f"NUM_STREAMS must be between 1 and {_MOST_STREAMS}.", got=streams)
    if given.get("blob") and base != "CPU":
        raise BackendError(
            "The compiled model of a GPU or an NPU is made on the device, with no option.",
            got=f"blob with device {device!r}",
            fix="Leave blob out of the target.",
        )
    return CompileOptions(
        device=device,
        properties={key: value for key, value in sorted(given.items()) if key not in _OURS},
        compress=given.get("compress_to_fp16", False),
        blob=given.get("blob", False),
    )


def _choose(given: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str, fix: str | None = None) -> None:
    if given.get(key, choices[0]) not in choices:
        named = " or ".join(map(repr, choices))
        raise BackendError(
            f"edgeopt compiles OpenVINO engines with {key} = {named}{where}.", got=repr(given[key]), fix=fix
        )
