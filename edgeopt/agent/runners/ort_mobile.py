"""ONNX Runtime's mobile format: the same runtime opens ``.ort`` files."""

from __future__ import annotations

from .onnxruntime import open_runner

__all__ = ["open_runner"]
