"""NVIDIA Model-Optimizer: ``modelopt.onnx.quantization.quantize``, calibrated on the CPU."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from exchange import Job, serve
from modelopt.onnx.quantization import quantize


def run(job: Job, **settings: object) -> None:
    shapes = ",".join(f"{name}:{'x'.join(map(str, (1, *array.shape[1:])))}" for name, array in job.samples.items())
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"  # it writes over its input
        shutil.copyfile(job.model, model)
        with job.timing():
            quantize(
                str(model),
                calibration_data=dict(job.samples),
                calibration_shapes=shapes,
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",  # its default, fp16, has no kernels on the x86 runtimes
                output_path=str(job.out),
                log_level="ERROR",
                **settings,
            )


serve(
    {"default": run, "max": lambda job: run(job, calibration_method="max")},
    ["nvidia-modelopt", "onnx", "onnxruntime", "torch"],
)
