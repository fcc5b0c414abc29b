"""Narrower models as engines: graphs with the widths that were asked for, timed beside the whole one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeopt.compress.pruning.channels import trace_channels
from edgeopt.compress.pruning.importance import score_units
from edgeopt.core.events import ignore_progress
from edgeopt.pipeline import prune_variants
from edgeopt.pipeline.compile import prepared
from edgeopt.pipeline.graphs import float_graph
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.prune_variants import WHOLE, Variants
from edgeopt.pipeline.samples import parity_inputs
from edgeopt.recipes.schema import Prune

FAST = ("measure.warmup=2", "measure.block=10", "limits.latency_ratio=null", "limits.drop_pp=null")
PRUNE = "- prune: {importance: l2, latency_ratio: 0.8}\n"
QUANTIZE = "- quantize: {precision: int8, observer: minmax, bias_correction: false, calibration_samples: 64}\n"


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(prune_variants, "_SAMPLES", 20)
        yield


@pytest.fixture
def variants_of(tmp_path):
    """Of two convolutions of 16 channels, under a recipe of these steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 4)).eval()
    x = torch.randn(96, 3, 8, 8)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(net, (x[:2].clone(),), dynamic_shapes=dynamic), tmp_path / "net.pt2")
    np.savez(tmp_path / "net.npz", x=x[:64].numpy(), y=np.arange(64) % 4, x_calibration=x[64:].numpy())
    opened = ExitStack()

    def make(*steps):
        (tmp_path / "own.yaml").write_text(f"schema_version: 1\nname: own\nsteps:\n{''.join(steps)}")
        options = CompileOptions(
            model=tmp_path / "net.pt2",
            target="local",
            data=str(tmp_path / "net.npz"),
            recipe=tmp_path / "own.yaml",
            overrides=FAST,
            output=tmp_path / "bundle",
        )
        run = opened.enter_context(prepared(options, ignore_progress))
        samples = parity_inputs(run.loaded.model, run.data, 8, 0)
        model = run.loaded.opened()
        channels = trace_channels(model.program)
        return Variants(
            run=run,
            plan=run.plan,
            samples=samples,
            config=run.plan.recipe.step(Prune),
            model=model,
            channels=channels,
            scores=score_units(channels, "l2", seed=0, feed=None, classification=True),
            graph=float_graph(replace(run.context, events=[], parity=[]), run.loaded, run.plan, samples),
        )

    with opened:
        yield make


def shapes(path):
    """The shapes of the convolutions' weights, and all operators."""
    graph = onnx.load(path).graph
    known = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [known[n.input[1]] for n in graph.node if n.op_type == "Conv"], {n.op_type for n in graph.node}


def test_a_variant_has_the_widths_that_were_asked_for_and_the_others_stay(variants_of):
    variants = variants_of(PRUNE)
    weights, operators = shapes(variants._graph((("0", 8),)).path)
    assert weights == [(8, 3, 3, 3), (16, 8, 3, 3)]
    assert "QuantizeLinear" not in operators
    assert variants.precision == "fp32"
    assert variants._graph(WHOLE) is variants.graph


def test_where_the_recipe_quantizes_the_whole_model_and_each_variant_are_int8(variants_of):
    variants = variants_of(PRUNE, QUANTIZE)
    assert variants.precision == "int8"
    assert {planned.precision for planned in variants.runtimes()} == {"int8"}
    for kept, width in ((WHOLE, 16), ((("0", 8),), 8)):
        graph = onnx.load(variants._graph(kept).path).graph
        assert any(node.op_type == "QuantizeLinear" for node in graph.node)
        assert width in {tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 4}


def test_each_runtime_is_there_once_with_what_is_to_be_shipped(variants_of):
    variants = variants_of(PRUNE)
    assert [planned.id for planned in variants.runtimes()] == ["onnxruntime-fp32", "openvino-fp32"]


def test_ratios_are_to_the_whole_model_and_know_their_milliseconds(variants_of):
    variants = variants_of(PRUNE)
    narrow = (("0", 4), ("2", 4))
    planned = variants.runtimes()[0]
    found = variants.ratios(planned, [narrow])
    assert set(found) == {WHOLE, narrow}
    assert found[WHOLE].value == pytest.approx(1.0)
    assert found[narrow].interval.low <= found[narrow].value <= found[narrow].interval.high
    milliseconds = [found[kept].conditions["p50_ms"] for kept in (narrow, WHOLE)]
    assert all(value > 0 for value in milliseconds)


def test_a_plan_can_be_timed_for_longer(variants_of):
    variants, narrow = variants_of(PRUNE), (("0", 4),)
    planned = variants.runtimes()[0]
    usual, longer = (variants.ratios(planned, [narrow], times=times)[narrow] for times in (1, 3))
    assert longer.n == 3 * usual.n


def test_more_variants_than_fit_together_are_timed_in_parts_each_beside_the_whole(variants_of, monkeypatch):
    variants = variants_of(PRUNE)
    parts = []
    monkeypatch.setattr(Variants, "_together", lambda _, planned, wanted, times: parts.append(wanted) or {})
    variants.ratios(variants.runtimes()[0], [(("0", count),) for count in range(1, 9)])
    assert [len(part) for part in parts] == [6, 2]


def test_what_cannot_be_built_is_left_out_and_without_the_whole_there_is_no_ratio(variants_of, monkeypatch):
    variants = variants_of(PRUNE)
    planned, broken = variants.runtimes()[0], (("2", 4),)
    build = prune_variants.build_engine

    def failing(*which):
        def build_some(context, plan, planned, graph):
            built = build(context, plan, planned, graph)
            return replace(built, engine=None) if graph.path in which else built

        return build_some

    monkeypatch.setattr(prune_variants, "build_engine", failing(variants._graph(broken).path))
    assert set(variants.ratios(planned, [broken, (("0", 4),)])) == {WHOLE, (("0", 4),)}
    monkeypatch.setattr(prune_variants, "build_engine", failing(variants.graph.path))
    assert variants.ratios(planned, [(("0", 4),)]) == {}
