"""ONNX: export, passes, dialects, parity."""
