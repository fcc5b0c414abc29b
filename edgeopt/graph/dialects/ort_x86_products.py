"""ONNX Runtime on x86 with VNNI, matrix products as its own operator: faster for nets of linear layers."""

from edgeopt.graph.dialects.ort_x86 import OrtX86

__all__ = ["DIALECT"]

DIALECT = OrtX86(name="ort-x86-products", integer_products=True)
