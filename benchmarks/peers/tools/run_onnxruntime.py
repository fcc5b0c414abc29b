"""ONNX Runtime: ``quantize_static`` as it comes, and as its documentation advises for x86 and for TensorRT."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from exchange import Job, serve
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    """The samples, as quantize_static asks for them."""

    def __init__(self, job: Job) -> None:
        self._feeds = job.feeds()

    def get_next(self) -> dict | None:
        """The next sample; None at the end."""
        return next(self._feeds, None)


def default(job: Job) -> None:
    with job.timing():
        quantize_static(job.model, job.out, Samples(job))


def prepared(job: Job, **settings: object) -> None:
    """With the pre-processing that the documentation asks for: shape inference and graph optimization first."""
    with tempfile.TemporaryDirectory() as scratch, job.timing():
        ready = Path(scratch) / "ready.onnx"
        quant_pre_process(job.model, ready)
        quantize_static(ready, job.out, Samples(job), per_channel=True, **settings)


def unsigned(job: Job) -> None:
    """The advice for x86 with VNNI."""
    prepared(job, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def signed(job: Job) -> None:
    """The advice for GPU and TensorRT: symmetric int8."""
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    prepared(job, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, extra_options=symmetric)


serve({"default": default, "u8s8-per-channel": unsigned, "s8s8-per-channel": signed}, ["onnxruntime", "onnx"])
