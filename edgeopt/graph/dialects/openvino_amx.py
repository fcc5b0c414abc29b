"""OpenVINO on x86 with AMX tiles for int8: without the rounding between a convolution and its residual addition."""

from edgeopt.graph.dialects.openvino import OpenVino

__all__ = ["DIALECT"]

DIALECT = OpenVino(name="openvino-amx", rounds_branches=False)
