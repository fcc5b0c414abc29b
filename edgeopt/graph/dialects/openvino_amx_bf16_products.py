"""OpenVINO on CPUs with AMX tiles: as ``openvino-amx``, recurrent cells and attention in bfloat16."""

from edgeopt.graph.dialects.openvino import OpenVino

__all__ = ["DIALECT"]

DIALECT = OpenVino(name="openvino-amx-bf16-products", rounds_branches=False, bfloat16_products=True)
