"""Neural Compressor 2.6, the last release that quantizes ONNX: ``quantization.fit`` without a tuning loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx
from exchange import Job, serve
from neural_compressor import PostTrainingQuantConfig, quantization


class Samples:
    """What it takes for a data loader: batches of (inputs, label)."""

    batch_size = 1

    def __init__(self, job: Job) -> None:
        self._job = job

    def __iter__(self) -> Iterator[tuple[object, int]]:
        for feed in self._job.feeds():
            yield (next(iter(feed.values())) if len(feed) == 1 else feed), 0

    def __len__(self) -> int:
        return len(self._job)


class _Errors(logging.Handler):
    """Keeps the first error that is logged."""

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.levelno >= logging.ERROR and not self.first:
            self.first = record.getMessage()


def run(job: Job, **settings: object) -> None:
    config = PostTrainingQuantConfig(approach="static", calibration_sampling_size=[len(job)], **settings)
    model = onnx.load(job.model)
    del model.graph.value_info[:]  # it transposes weights of a Gemm and leaves the shapes noted here as they were
    said = _Errors()
    logging.getLogger("neural_compressor").addHandler(said)
    with job.timing():
        quantized = quantization.fit(model, config, calib_dataloader=Samples(job))
    if quantized is None:  # it logs what went wrong and raises nothing
        raise RuntimeError(said.first or "quantization.fit returned None")
    quantized.save(str(job.out))


serve(
    {"default": run, "qdq": lambda job: run(job, quant_format="QDQ", recipes={"gemm_to_matmul": False})},
    ["neural-compressor", "onnx", "onnxruntime"],
)
