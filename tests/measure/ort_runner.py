"""A small ONNX Runtime runner, sent to the agent by name: these tests need a real runtime, not edgeopt's own runner."""

from __future__ import annotations

import onnxruntime as ort

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def open_runner(path, options, threads):
    made = ort.SessionOptions()
    made.intra_op_num_threads = threads or 0
    return OrtRunner(ort.InferenceSession(str(path), made, providers=["CPUExecutionProvider"]))


class OrtRunner:
    version = ort.__version__

    def __init__(self, session):
        self._session = session
        self.inputs = {port.name: (_DTYPES[port.type], port.shape) for port in session.get_inputs()}
        self.outputs = {port.name: (_DTYPES[port.type], port.shape) for port in session.get_outputs()}

    def infer(self, inputs):
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
