"""OpenVINO on CPUs with bfloat16 instructions: recurrent cells and attention, float in an int8 graph, in bfloat16."""

from edgeopt.graph.dialects.openvino import OpenVino

__all__ = ["DIALECT"]

DIALECT = OpenVino(name="openvino-bf16-products", bfloat16_products=True)
"""The form ``openvino`` with what int8 leaves in float in bfloat16: a conv-GRU takes 0.74 of its time, a ViT 0.97 to 0.92.

For CPUs with AVX512-BF16 or AMX alone: where there is AVX-512 without, OpenVINO 2026.4 emulates bfloat16, and this form takes 10
(the conv-GRU) and 7 times (the ViT) the time of ``openvino``.
"""
