"""A small real bundle: one linear layer on images, its engine an ONNX file that ONNX Runtime opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sample_report import build_sample_report

from edgeopt.bundle.document import SplitRow
from edgeopt.bundle.layout import (
    CALIBRATION,
    ENGINE,
    MODEL,
    RECIPE,
    REPORT_JSON,
    TARGET,
    report_json,
    write_json,
    write_reference,
    write_yaml,
)
from edgeopt.bundle.manifest import (
    Contract,
    DataRecord,
    EngineRecord,
    InputRecord,
    Manifest,
    ModelRecord,
    OutputRecord,
)
from edgeopt.bundle.write import write_bundle
from edgeopt.core.spec import TensorSpec

CHANNELS, HEIGHT, WIDTH, CLASSES = 2, 4, 6, 3


def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(CHANNELS * HEIGHT * WIDTH, CLASSES)).astype(np.float32), np.float32([0.5, -1.0, 2.0])


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    """The model in NumPy, in float64: shares no code with the runtime."""
    weight, bias = weights()
    return x.reshape(len(x), -1).astype(np.float64) @ weight.astype(np.float64) + bias.astype(np.float64)


def linear_onnx(batch: int | str, path: Path) -> None:
    weight, bias = weights()
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, CHANNELS, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def sample_manifest(batch: int | None = None, **changes) -> Manifest:
    dim = batch or "batch"
    image = ("batch", CHANNELS, HEIGHT, WIDTH)
    engine = {
        "entry": "model.onnx",
        "status": "built",
        "batch": batch,
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(dim, *image[1:])),),
        "outputs": (TensorSpec(name="logits", dtype="float32", shape=(dim, CLASSES)),),
    }
    fields = {
        "edgeopt_version": "0.1.0",
        "versions": {"onnx": "1.23.2", "onnxruntime": "1.31.1"},
        "python": "3.11.9",
        "created": "2026-01-02T03:04:05Z",
        "command": "edgeopt compile linear.onnx --target local",
        "seed": 0,
        "model": ModelRecord(name="linear", format="onnx", sha256="ab" * 32),
        "target": "local",
        "recipe": "fp32",
        "runtime": "onnxruntime",
        "runtime_version": "1.31.1",
        "precision": "fp32",
        "dialect": "float",
        "engine": EngineRecord(**engine | changes.pop("engine", {})),
        "contract": Contract(
            inputs=(InputRecord(name="x", dtype="float32", shape=image, layout="NCHW", value_range=(-1.0, 1.0)),),
            outputs=(OutputRecord(name="logits", dtype="float32", shape=("batch", CLASSES)),),
            classes=("cat", "dog", "owl"),
        ),
        "data": DataRecord(
            name="synthetic",
            fingerprint="cd" * 32,
            splits=(SplitRow(name="test", samples=8, how="made in code", fingerprint="ef" * 32),),
        ),
    }
    return Manifest(**fields | changes)


def fill_bundle(folder: Path, batch: int | None = None, note: str = "") -> None:
    (folder / ENGINE).mkdir()
    linear_onnx("batch", folder / MODEL)
    linear_onnx(batch or "batch", folder / ENGINE / "model.onnx")
    write_yaml(folder / RECIPE, {"name": "fp32", "steps": [], "note": note})
    write_yaml(folder / TARGET, {"name": "local"})
    write_json(folder / CALIBRATION, {"fingerprint": "cd" * 32, "ranges": {}})
    (folder / REPORT_JSON).write_text(report_json(build_sample_report()), encoding="utf-8")
    x = images(8)
    write_reference(folder, {"x": x}, {"logits": expected(x).astype(np.float32)})


def sample_bundle(destination: Path, batch: int | None = None, note: str = "", **changes) -> Path:
    return write_bundle(
        destination,
        lambda folder: fill_bundle(folder, batch, note),
        lambda _: sample_manifest(batch, **changes),
    )
