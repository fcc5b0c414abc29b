"""Every dialect meets its proof obligation on every kind of net, and so does every runtime that is here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_nets import run_openvino, run_optimized, run_reference
from obligation_nets import NETS, quantized

from edgeopt.graph.dialects import DIALECTS, apply_dialect
from edgeopt.graph.dialects.base import ENOUGH_DB, OBLIGATION_DB, REPAIR_DB
from edgeopt.targets.host import detect_host

# What comes first runs always; the full cross product is the long tier's.
MATRIX = [pytest.param(net, id=net, marks=[] if index == 0 else [pytest.mark.long]) for index, net in enumerate(NETS)]
FORMS = [name for name in DIALECTS if name != "float"]
OPENVINO = ("openvino", "openvino-amx", "openvino-bf16-products", "openvino-amx-bf16-products")
TILES = "amx_int8" in detect_host().features


def sqnr(reference, output):
    reference, output = reference.astype(np.float64), output.astype(np.float64)
    noise = ((reference - output) ** 2).sum()
    return math.inf if noise == 0 else 10 * math.log10((reference**2).sum() / noise)


def graphs(net, tmp_path):
    float_path, int8_path, samples = quantized(net, tmp_path)
    noise = np.random.default_rng(5).normal(size=samples.shape).astype(np.float32)
    return float_path, int8_path, (samples, noise)


@pytest.mark.parametrize("net", MATRIX)
def test_every_dialect_and_every_runtime_keeps_the_quantization(net, tmp_path):
    float_path, int8_path, inputs = graphs(net, tmp_path)
    lost = {}
    for name in FORMS:
        result = apply_dialect(name, int8_path, tmp_path / f"{name}.onnx")
        for kind, x in zip(("samples", "noise"), inputs, strict=True):
            reference, neutral, written = (
                run_reference(path, {"x": x})["y"] for path in (float_path, int8_path, result.path)
            )
            if result.same_points:
                np.testing.assert_array_equal(written, neutral, err_msg=f"{name}, {kind}")
            coarser = REPAIR_DB - OBLIGATION_DB if result.repaired or result.coarser else 0.0
            goal = min(sqnr(reference, neutral), ENOUGH_DB + OBLIGATION_DB) - coarser
            lost[name, kind] = goal - sqnr(reference, written)
            engines = {"onnxruntime": run_optimized(result.path, {"x": x})["y"], "openvino": None}
            # Without AMX tiles OpenVINO 2026.4 computes the neutral form of nets that concatenate wrongly (on AMD's CPUs, by
            # 12 to 34 dB); its own forms it computes rightly, and a compile holds each artifact against another runtime.
            if name in OPENVINO or (name == "neutral" and TILES):
                engines["openvino"] = run_openvino(result.path, x)
            for runtime, got in engines.items():
                # On x86 ONNX Runtime reads ARM's form in float, and OpenVINO's has no int32 bias: all compute the same.
                if got is not None:
                    lost[name, kind, runtime] = goal - sqnr(reference, got)
    assert {key: round(db, 2) for key, db in lost.items() if db > OBLIGATION_DB} == {}
