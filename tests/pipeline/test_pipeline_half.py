"""A net in bfloat16, from the model to a bundle, on the runtime that has kernels for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from quick import QUICK

import edgeopt
from edgeopt.core.errors import RecipeError
from edgeopt.pipeline.verify import verify_bundle
from edgeopt.targets.host import detect_host

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A small convolutional classifier and its data."""
    pytest.importorskip("openvino")
    if "avx512_bf16" not in detect_host().features:
        pytest.skip("this CPU has no bfloat16 instructions")
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2)),
        *(torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)),
    ).eval()
    x = torch.randn(200, 3, 16, 16)
    batch = torch.export.Dim("batch", max=512)
    torch.export.save(torch.export.export(net, (x[:2].clone(),), dynamic_shapes=({0: batch},)), folder / "net.pt2")
    np.savez(folder / "net.npz", x=x.numpy(), y=net(x).argmax(1).numpy(), x_calibration=x[:64].numpy())
    return folder


@pytest.fixture(scope="module")
def bundle(work, tmp_path_factory):
    return edgeopt.compile(
        work / "net.pt2",
        target="local",
        data=str(work / "net.npz"),
        recipe="bf16",
        overrides=[*QUICK, "objective=size"],
        output=tmp_path_factory.mktemp("out") / "bundle",
    )


def test_bfloat16_is_made_for_openvino_and_keeps_the_outputs(bundle):
    (made,) = [one for one in bundle.report.candidates if one.precision == "bf16"]
    figures = {one.name: one.value for one in made.measurements}
    assert made.runtime == "openvino"
    assert figures["agreement_pct"] >= 98
    assert figures["size_mib"] < 0.75 * next(
        m.value
        for one in bundle.report.candidates
        if one.precision == "fp32"
        for m in one.measurements
        if m.name == "size_mib"
    )


def test_it_was_held_against_pytorch_and_a_second_runtime(bundle):
    rows = {(row.stage, row.against.partition(",")[0]) for row in bundle.report.parity if row.passed}
    assert ("convert bfloat16", "PyTorch FP32") in rows
    assert len([against for stage, against in rows if stage == "openvino-bf16"]) == 2


def test_the_portable_graph_is_of_bfloat16(bundle):
    graph = onnx.load(bundle.directory / "model.onnx").graph
    kinds = {onnx.TensorProto.DataType.Name(one.data_type) for one in graph.initializer}
    assert "BFLOAT16" in kinds
    assert "FLOAT" not in kinds
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_bundle_verifies(bundle):
    assert bundle.report.shipped.precision == "bf16"
    found = verify_bundle(bundle.directory)
    assert (found.ok, found.outputs) == (True, "compared")


def test_a_target_without_it_refuses(work, tmp_path):
    with pytest.raises(RecipeError, match="runs bf16 to advantage"):
        edgeopt.compile(
            work / "net.pt2", target="x86-vnni", data=str(work / "net.npz"), recipe="bf16", output=tmp_path / "b"
        )
