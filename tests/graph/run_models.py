"""Run models in a process that may be emulated: ``run_models.py FOLDER``; each NAME.onnx on NAME.in.npy → NAME.out.npy."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

for model in sorted(Path(sys.argv[1]).glob("*.onnx")):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    x = np.load(model.with_suffix(".in.npy"))
    np.save(model.with_suffix(".out.npy"), session.run(None, {session.get_inputs()[0].name: x})[0])
