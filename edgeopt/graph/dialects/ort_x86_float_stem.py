"""ONNX Runtime on x86 with VNNI, the layers that read the model's input in float: faster for some nets, slower for others."""

from edgeopt.graph.dialects.ort_x86 import OrtX86

__all__ = ["DIALECT"]

DIALECT = OrtX86(name="ort-x86-float-stem", float_stem=True)
