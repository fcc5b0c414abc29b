"""NNCF: ``nncf.quantize`` on the ONNX model, and on the OpenVINO model."""

from __future__ import annotations

# ruff: noqa: E402 (its telemetry must be away before it is imported)
import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # NNCF then uses its own silent stub

import nncf
import onnx
import openvino as ov
from exchange import Job, serve
from nncf.parameters import ModelType

_MIXED = {"preset": nncf.QuantizationPreset.MIXED}  # asymmetric activations: NNCF's advice for other than ReLU
_ACCURATE = {**_MIXED, "fast_bias_correction": False}  # NNCF's advice where the fast correction loses too much


def on_onnx(job: Job, **settings: object) -> None:
    model = onnx.load(job.model)
    with job.timing():
        quantized = nncf.quantize(model, nncf.Dataset(list(job.feeds())), subset_size=len(job), **settings)
    onnx.save(quantized, job.out)


def on_openvino(job: Job, **settings: object) -> None:
    model = ov.Core().read_model(job.model)
    model.reshape({name: [1, *array.shape[1:]] for name, array in job.samples.items()})
    with job.timing():
        quantized = nncf.quantize(model, nncf.Dataset(list(job.feeds())), subset_size=len(job), **settings)
    ov.save_model(quantized, job.out, compress_to_fp16=False)


def _for(job: Job, settings: dict[str, object]) -> dict[str, object]:
    """NNCF must be told of a transformer; a hint that its documentation asks for wherever there is attention."""
    kinds = {node.op_type for node in onnx.load(job.model, load_external_data=False).graph.node}
    is_transformer = "Softmax" in kinds and "LayerNormalization" in kinds
    return {**settings, **({"model_type": ModelType.TRANSFORMER} if is_transformer else {})}


serve(
    {
        "onnx-default": on_onnx,
        "onnx-mixed": lambda job: on_onnx(job, **_for(job, _MIXED)),
        "onnx-accurate": lambda job: on_onnx(job, **_for(job, _ACCURATE)),
        "openvino-default": on_openvino,
        "openvino-mixed": lambda job: on_openvino(job, **_for(job, _MIXED)),
        "openvino-accurate": lambda job: on_openvino(job, **_for(job, _ACCURATE)),
    },
    ["nncf", "openvino", "onnx", "onnxruntime"],
)
