"""Run an ONNX file on samples, in a process of its own: NumPy and ONNX Runtime, so that it also runs under emulation.

    python benchmarks/run_onnx.py MODEL.onnx SAMPLES.npy OUTPUTS.npy
    qemu-x86_64 -cpu Haswell .venv/bin/python benchmarks/run_onnx.py MODEL.onnx SAMPLES.npy OUTPUTS.npy

One thread, one sample at a time; the model's first output, [N, …].
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def main() -> None:
    model, samples, outputs = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(None, {name: sample[None]})[0] for sample in np.load(samples)]
    np.save(outputs, np.concatenate(results))


if __name__ == "__main__":
    main()
