"""Run models in a process that may be emulated: ``run_models.py RUNTIME FOLDER``.

Each NAME.onnx on NAME.in.npy gives NAME.out.npy, by ``onnxruntime`` or ``openvino``.
"""

import sys
from pathlib import Path

import numpy as np


def by_onnxruntime(model: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def by_openvino(model: Path, x: np.ndarray) -> np.ndarray:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = openvino.Core()
    read = core.read_model(model)
    read.reshape({read.inputs[0]: list(x.shape)})
    return core.compile_model(read, "CPU", options)(x)[0]


if __name__ == "__main__":
    run = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}[sys.argv[1]]
    for path in sorted(Path(sys.argv[2]).glob("*.onnx")):
        np.save(path.with_suffix(".out.npy"), run(path, np.load(path.with_suffix(".in.npy"))))
