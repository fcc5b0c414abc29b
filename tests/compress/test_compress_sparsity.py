"""N:M sparsity: made by magnitude along the input channels, and kept by whatever comes after."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_nets import NETS, dataset, export, make_config, make_context, make_recipe, make_target, samples, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_nets import TWO_OF_FOUR, make_distil, shares, sparsified
from torch import nn
from training_nets import make_finetune, make_qat, net_of, weights_of

from edgeopt.compress.adaround import round_to_output
from edgeopt.compress.gptq import gptq
from edgeopt.compress.registry import STEPS
from edgeopt.compress.sparse_weights import nm_mask, sparse_nodes
from edgeopt.core.errors import GraphError, RecipeError
from edgeopt.core.sparsity import Pattern, SparseWeight, held_share
from edgeopt.graph.export import export_onnx
from edgeopt.graph.sparsity import layer_sparsity
from edgeopt.model.store import load_stored, save_model
from edgeopt.recipes.schema import Sparsify

STEP = STEPS["sparsify"]


class TestMask:
    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(["1:2", "2:4", "1:4", "3:4", "4:8"]), st.integers(1, 3), st.integers(0, 2), st.integers(0, 99)
    )
    def test_keeps_the_largest_of_each_group_and_no_more(self, text, groups, axis, seed):
        pattern, shape = Pattern.read(text), [3, 2, 5]
        shape[axis] = groups * pattern.group
        weight = torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32))
        mask = nm_mask(weight, pattern, axis)
        rows = lambda x: np.moveaxis(x.numpy(), axis, -1).reshape(-1, pattern.group)  # noqa: E731
        kept, magnitude = rows(mask), np.abs(rows(weight))
        assert (kept.sum(1) == pattern.kept).all()
        largest_dropped = np.where(kept, -1, magnitude).max(1)
        assert (np.where(kept, magnitude, 99).min(1) >= largest_dropped).all()
        assert held_share((weight * mask).numpy(), pattern, axis) == 1.0
        assert torch.equal(nm_mask(weight * mask, pattern, axis) & (weight != 0), mask & (weight != 0))

    @pytest.mark.parametrize("text", ["", "2", "4:2", "0:4", "4:4", "2:4:8", "2 4", "-1:4", "1:65"])
    def test_a_pattern_that_is_none_is_refused(self, text):
        with pytest.raises(ValueError, match="no pattern N:M with 0 < N < M"):
            Sparsify(pattern=text)


class TestStep:
    def test_makes_every_weight_with_whole_groups_sparse_and_says_what_it_left(self):
        model, result, _ = sparsified("resnet")
        assert set(shares(result.model).values()) == {1.0}
        assert result.stats == {"pattern": "2:4", "layers": 9, "layers_sparse": 8, "zeros_pct": 50.0}
        assert result.decisions[0].reason == "its 3 input channels are no multiple of 4"
        assert [event.message for event in result.events] == [
            "8 of 9 layers are 2:4 sparse, 96.7 % of the multiplications.",
            "stem.0 left dense: its 3 input channels are no multiple of 4.",
        ]
        assert not any(share == 1.0 for share in shares(model).values())  # the model that came in is as it was
        assert result.model.identity != model.identity
        assert result.model.sparse["head.weight"] == SparseWeight(pattern="2:4", axis=1)
        assert len(sparse_nodes(result.model)) == 8

    def test_keeps_what_is_largest_and_changes_no_weight_that_it_keeps(self):
        model, result, _ = sparsified("mlp")
        old, new = model.program.state_dict["2.weight"], result.model.program.state_dict["2.weight"]
        assert torch.equal(torch.where(new != 0, old, 0.0), new)
        groups = old.detach().abs().reshape(-1, 4).sort(descending=True)[0]
        assert torch.equal((new.detach().abs().reshape(-1, 4)).sum(1), groups[:, 0] + groups[:, 1])

    def test_grouped_transposed_and_recurrent_layers_stay_dense(self):
        assert [d.reason for d in sparsified("conv1d")[1].decisions] == [
            "2:4 sparse",
            "sparse kernels take no grouped or depthwise convolution",
            "2:4 sparse",
        ]
        assert {d.op: d.reason for d in sparsified("gru")[1].decisions}[
            "recurrent"
        ] == "no runtime has sparse kernels for it"

    def test_skips_what_the_recipe_names(self):
        _, result, _ = sparsified("resnet", skip=["blocks.1.*", "head"])
        assert {d.name: d.reason for d in result.decisions}["head"] == "skipped by the recipe ('head')"
        assert len(result.model.sparse) == 4

    def test_a_pattern_of_names_that_matches_nothing_lists_the_nearest(self):
        with pytest.raises(RecipeError, match=r"the sparsify step's skip matches no layer\. Received: 'haed'.*: head"):
            sparsified("resnet", skip=["haed"])

    def test_a_model_with_no_such_layer_is_refused(self):
        with pytest.raises(
            RecipeError, match=r"no layer that could be made 2:64 sparse\. Received: first: its 4 input"
        ):
            sparsified("conv1d", "2:64")

    def test_an_onnx_model_is_refused(self):
        model = dataclasses.replace(net_of("mlp")[0], program=None, onnx_path=Path("net.onnx"))
        with pytest.raises(RecipeError, match="made in the PyTorch program"):
            STEP.run(model, Sparsify(pattern="2:4"), make_context(None))

    def test_after_quantization_is_refused(self):
        quantize = {"quantize": {"precision": "int8", "observer": "minmax", "bias_correction": False}}
        recipe = make_recipe(quantize, {"sparsify": {"pattern": "2:4"}})
        with pytest.raises(RecipeError, match="Put sparsify first"):
            STEP.check(recipe.steps[1], recipe, make_target(), True)
        right = make_recipe({"sparsify": {"pattern": "2:4"}}, quantize)
        STEP.check(right.steps[0], right, make_target(), False)

    def test_a_matrix_that_is_stored_the_other_way_is_grouped_along_its_inputs_all_the_same(self):
        class Gpt(nn.Module):
            def __init__(self):
                super().__init__()
                self.matrix, self.bias = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6))

            def forward(self, x):
                return torch.addmm(self.bias, x, self.matrix)

        result = STEP.run(export(Gpt(), (8,)), Sparsify(pattern="2:4"), make_context(None))
        assert result.model.sparse == {"matrix": SparseWeight(pattern="2:4", axis=0)}
        assert held_share(result.model.program.state_dict["matrix"].detach().numpy(), TWO_OF_FOUR, 0) == 1.0
        assert list(sparse_nodes(result.model)) == ["addmm"]

    def test_a_weight_that_something_else_reads_stays_dense(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
                self.head.weight = nn.Parameter(torch.randn(8, 8))

            def forward(self, x):
                return self.head(self.first(x)) * self.head.weight.sum()

        result = STEP.run(export(Tied(), (8,)), Sparsify(pattern="2:4"), make_context(None))
        assert result.model.sparse.keys() == {"first.weight"}
        assert result.decisions[1].reason.startswith("its weight is shared with sum")

    def test_a_weight_that_is_computed_stays_dense(self):
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 4))
        with torch.no_grad():  # as it is made, a direction times its own length can be the parameter to the last bit
            net[0].parametrizations.weight.original0.mul_(2)
        result = STEP.run(export(net, (8,)), Sparsify(pattern="2:4"), make_context(None))
        assert result.decisions[0].reason == "its weight is no parameter, but computed from others"
        assert result.model.sparse.keys() == {"1.weight"}


def test_a_stored_model_keeps_what_it_says_of_its_weights(tmp_path):
    model = sparsified("mlp")[1].model
    save_model(model, tmp_path)
    again = load_stored(tmp_path, with_program=True)
    assert again.sparse == model.sparse
    assert set(shares(again).values()) == {1.0}
    assert sparse_nodes(again) == sparse_nodes(model)


def written(model, tmp_path):
    path = tmp_path / "net.onnx"
    export_onnx(model.program, model.inputs, model.outputs, path, opset=20, sparse=sparse_nodes(model))
    return layer_sparsity(path)


class TestTraining:
    @pytest.mark.parametrize(
        "options",
        [
            {"optimizer": "adamw", "weight_decay": 0.1},
            {"optimizer": "sgd", "weight_decay": 0.1, "clip_norm": None},
        ],
        ids=["adamw", "sgd"],
    )
    def test_of_the_float_model_keeps_the_zeros(self, options):
        _, result, context = sparsified("resnet")
        config = make_finetune(training=options | {"learning_rate": 0.01}, batchnorm={"freeze_after": 1})
        trained = STEPS["finetune"].run(result.model, config, context).model
        before, after = result.model.program.state_dict, trained.program.state_dict
        assert set(shares(trained).values()) == {1.0}
        assert not torch.equal(before["head.weight"], after["head.weight"])
        assert trained.sparse == result.model.sparse
        assert all((after[name][before[name] == 0] == 0).all() for name in result.model.sparse)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"batchnorm": {"freeze_after": 1}},
            {"scales": "observed", "freeze_ranges_after": 1},
            {"precision": "w4a8"},
        ],
        ids=["learned", "live norms", "observed", "4 bits"],
    )
    def test_on_the_grid_keeps_them_to_the_exported_graph(self, options, tmp_path):
        _, result, context = sparsified("resnet")
        quantized = STEPS["qat"].run(result.model, make_qat(training={"learning_rate": 0.01}, **options), context)
        assert set(shares(quantized.model).values()) == {1.0}
        layers = written(quantized.model, tmp_path)
        assert [(layer.share, layer.marked) for layer in layers if layer.marked] == [(1.0, "2:4")] * 8
        reasons = {d.name: d.reason for d in quantized.decisions}
        assert reasons["head"].endswith("8-bit input; weight 2:4 sparse")
        assert "sparse" not in reasons["stem.0"]

    def test_of_a_transformer_keeps_them_too(self, tmp_path):
        _, result, context = sparsified("vit")
        trained = STEPS["distil"].run(result.model, make_distil(), context).model
        quantized = STEPS["qat"].run(trained, make_qat(), context).model
        assert sum(layer.marked == "2:4" for layer in written(quantized, tmp_path)) == 9

    def test_without_masks_would_lose_them_and_the_export_says_so(self, tmp_path, monkeypatch):
        _, result, context = sparsified("mlp")
        monkeypatch.setattr("edgeopt.compress.finetune.student_masks", lambda *_: {})
        config = make_finetune(training={"distillation": None, "learning_rate": 0.01})
        trained = STEPS["finetune"].run(result.model, config, context).model
        with pytest.raises(
            GraphError, match=r"no longer hold their pattern.*\(3 of 3\)\. Received: groups that hold it: lin"
        ):
            written(trained, tmp_path)

    def test_that_stopped_goes_on_to_the_same_bits(self, tmp_path, monkeypatch):
        _, result, context = sparsified("mlp")
        config = make_distil(training={"epochs": 3}, features=["*"], feature_weight=1.0)

        def run(**options):
            return STEPS["distil"].run(result.model, config, dataclasses.replace(context, **options))

        class Stop(Exception):
            pass

        def stop(progress):
            if progress.stage.startswith("epoch") and progress.done == 7:
                raise Stop

        whole = weights_of(run())
        monkeypatch.setattr("edgeopt.compress.training.run._CHECKPOINT_EVERY_S", -1.0)
        with pytest.raises(Stop):
            run(workspace=tmp_path, progress=stop)
        seen = []
        again = weights_of(run(workspace=tmp_path, progress=lambda p: seen.append(p.done)))
        assert seen[-6:] == [7, 8, 9, 10, 11, 12]
        assert all(torch.equal(again[key], whole[key]) for key in whole)


class TestRounding:
    @pytest.mark.parametrize(
        "options",
        [
            {"adaround": {"use": True}, "bias_correction": True},
            {"equalize": True, "reestimate_batchnorm": True, "weight_range": "mse"},
        ],
        ids=["adaround", "equalize"],
    )
    def test_keeps_the_zeros_whatever_the_technique(self, options, tmp_path):
        _, result, context = sparsified("resnet")
        quantized = STEPS["quantize"].run(result.model, make_config(**options), context)
        assert all(row.kept for row in quantized.trials)
        assert sum(layer.marked == "2:4" for layer in written(quantized.model, tmp_path)) == 8

    @pytest.mark.parametrize(
        "options",
        [{"precision": "int8", "smooth": True}, {"precision": "w4", "group_size": 16, "gptq": True}],
        ids=["smooth", "gptq"],
    )
    def test_keeps_them_in_a_transformer(self, options, tmp_path):
        _, result, context = sparsified("vit")
        quantized = STEPS["quantize"].run(result.model, make_config(**options), context)
        assert all(row.kept for row in quantized.trials)
        assert sum(layer.marked == "2:4" for layer in written(quantized.model, tmp_path)) == 9

    def test_up_or_down_leaves_a_zero_alone_where_one_step_up_would_be_better(self):
        weight = torch.tensor([[0.0, 0.4]], dtype=torch.float64)
        step, gram = torch.ones(1, 1, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
        wanted = gram @ torch.tensor([[1.0], [0.4]], dtype=torch.float64)  # as if the output were 1.4
        assert round_to_output(weight, step, 7, gram, wanted).tolist() == [[0.0, 1.0]]
        assert round_to_output(weight + 1e-9, step, 7, gram, wanted).sum() >= 1.0

    def test_gptq_leaves_zeros_alone_and_has_others_take_up_the_error(self):
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(8, 32, generator=generator)
        weight *= nm_mask(weight, TWO_OF_FOUR, 1)
        x = torch.randn(64, 32, generator=generator, dtype=torch.float64) @ torch.randn(32, 32, dtype=torch.float64)
        values, _ = gptq(weight, x.T @ x, 16, 7)
        assert held_share(values.numpy(), TWO_OF_FOUR, 1) == 1.0
        assert (values[weight == 0] == 0).all()

    def test_post_training_quantization_alone_keeps_them(self, nets, tmp_path):
        kind, shape = NETS["mlp"]
        model = STEP.run(export(seeded(kind, shape), shape), Sparsify(pattern="1:4"), make_context(None)).model
        context = make_context(dataset(samples(64, shape)))
        quantized = STEPS["quantize"].run(model, make_config(), context).model
        assert [layer.marked for layer in written(quantized, tmp_path)] == ["1:4"] * 3
