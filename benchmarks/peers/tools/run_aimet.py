"""AIMET (aimet-onnx): ``QuantizationSimModel``, exported as Q/DQ."""

from __future__ import annotations

import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.cross_layer_equalization import equalize_model
from exchange import Job, serve


def default(job: Job) -> None:
    model = onnx.load(job.model)
    with job.timing():
        simulation = QuantizationSimModel(model)
        simulation.compute_encodings(job.feeds())
        quantized = simulation.to_onnx_qdq()
    onnx.save(quantized, job.out)


def equalized(job: Job) -> None:
    """Per-channel weights (its newest phone's configuration), its finer observer, cross-layer equalization."""
    model = onnx.load(job.model)
    with job.timing():
        equalize_model(model)
        simulation = QuantizationSimModel(model, quant_scheme="tf_enhanced", config_file="htp_v81")
        simulation.compute_encodings(job.feeds())
        quantized = simulation.to_onnx_qdq(prequantize_constants=True, export_int32_bias=True)
    onnx.save(quantized, job.out)


serve({"default": default, "per-channel-equalized": equalized}, ["aimet-onnx", "onnx", "onnxruntime", "torch"])
