"""Every accepted form ends in the same program: eval mode, dynamic batch, the outputs of the module itself."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from model_nets import Branches, ConvNet, HardCoded, MixesRows, Mlp, Sequences, TwoInputs, seeded
from torch import nn

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.core.spec import TensorSpec, parse_input
from edgeopt.model.load import load_model
from edgeopt.model.reference import reference_outputs

FACTORY = "model_nets:make_mlp"


def same_as_module(module: nn.Module, program, *shape: int, seed: int = 0) -> None:
    """In float64 NumPy terms: the program's float32 outputs are the eager module's, at any number of rows."""
    for rows in (1, 2, 5):
        x = np.random.default_rng(seed).standard_normal((rows, *shape)).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        (got,) = reference_outputs(program, [x])
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-4)


class TestExportArchive:
    def test_a_first_time_users_archive_gets_a_dynamic_batch(self, archive, mlp):
        model = load_model(archive)
        assert model.format == "pt2"
        assert model.name == "model"
        assert [str(spec) for spec in model.inputs] == ["x:float32[batch,20]"]
        assert [str(spec) for spec in model.outputs] == ["output:float32[batch,2]"]
        assert model.parameters == 20 * 64 + 64 + 64 * 32 + 32 + 32 * 2 + 2
        assert [event.kind for event in model.events] == ["note"]
        assert "traced again with a dynamic batch" in model.events[0].message
        same_as_module(mlp, model.program, 20)

    def test_the_suffix_does_not_matter(self, archive, tmp_path):
        path = archive.rename(tmp_path / "model.pt")
        assert load_model(path).format == "pt2"

    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_literal_batch_in_a_reshape_follows_the_batch(self, tmp_path, batch):
        net = seeded(ConvNet)
        torch.export.save(torch.export.export(net, (torch.randn(batch, 1, 8, 8),)), tmp_path / "conv.pt2")
        model = load_model(tmp_path / "conv.pt2")
        assert str(model.inputs[0]) == "image:float32[batch,1,8,8]"
        same_as_module(net, model.program, 1, 8, 8)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_token_heads_and_recurrent_state_follow_the_batch(self, tmp_path, batch):
        net = seeded(Sequences)
        torch.export.save(torch.export.export(net, (torch.randn(batch, 5, 8),)), tmp_path / "seq.pt2")
        model = load_model(tmp_path / "seq.pt2")
        assert str(model.inputs[0]) == "x:float32[batch,5,8]"
        same_as_module(net, model.program, 5, 8)

    @pytest.mark.parametrize("batch", [1, 4])
    def test_heads_and_states_of_common_layers_follow_the_batch(self, tmp_path, batch):
        class Common(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
                self.rnn = nn.LSTM(16, 8, 2, bidirectional=True)  # four states: as many as rows, where batch is 4

            def forward(self, x):
                y, (h, _) = self.rnn(self.attention(x).transpose(0, 1))
                return y[-1], h

        net = seeded(Common)
        torch.export.save(torch.export.export(net, (torch.randn(batch, 5, 16),)), tmp_path / "net.pt2")
        model = load_model(tmp_path / "net.pt2")
        assert [str(spec) for spec in model.outputs] == ["output:float32[batch,16]", "output_1:float32[4,batch,8]"]
        x = np.random.default_rng(0).standard_normal((3, 5, 16)).astype(np.float32)
        with torch.no_grad():
            expected = net(torch.from_numpy(x))
        for got, want in zip(reference_outputs(model.program, [x]), expected, strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-5)

    def test_layers_and_lines_are_still_known(self, tmp_path):
        net = seeded(ConvNet)
        torch.export.save(torch.export.export(net, (torch.randn(1, 1, 8, 8),)), tmp_path / "conv.pt2")
        nodes = {node.name: node for node in load_model(tmp_path / "conv.pt2").program.graph.nodes}
        assert [path for path, _ in nodes["conv2d"].meta["nn_module_stack"].values()] == ["", "conv"]
        assert "model_nets.py" in nodes["conv2d"].meta["stack_trace"]

    def test_an_archive_from_a_gpu_is_loaded_on_the_cpu(self, tampered, mlp):
        def edit(members):
            for name in ("models/model.json", "data/weights/model_weights_config.json"):
                members[name] = members[name].replace(
                    b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}'
                )

        same_as_module(mlp, load_model(tampered(edit)).program, 20)

    def test_a_dynamic_archive_is_taken_as_it_is(self, tmp_path, mlp):
        program = torch.export.export(mlp, (torch.randn(3, 20),), dynamic_shapes=({0: torch.export.Dim("rows")},))
        torch.export.save(program, tmp_path / "dynamic.pt2")
        model = load_model(tmp_path / "dynamic.pt2")
        assert model.events == ()
        assert str(model.inputs[0]) == "x:float32[batch,20]"
        same_as_module(mlp, model.program, 20)

    def test_an_archive_of_derived_sizes_passes_the_scan(self, tmp_path):
        class Up(nn.Module):
            def forward(self, x):
                return nn.functional.interpolate(x, scale_factor=2, mode="bilinear")

        dims = {0: torch.export.Dim("b", max=64), 2: 2 * torch.export.Dim("h", min=2, max=20)}
        program = torch.export.export(Up(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=(dims,))
        torch.export.save(program, tmp_path / "up.pt2")
        assert load_model(tmp_path / "up.pt2").inputs[0].shape[0] == "batch"

    def test_rows_that_depend_on_each_other_keep_the_batch_and_say_so(self, tmp_path):
        torch.export.save(torch.export.export(MixesRows(), (torch.randn(4, 6),)), tmp_path / "mix.pt2")
        model = load_model(tmp_path / "mix.pt2")
        assert str(model.inputs[0]) == "x:float32[4,6]"
        assert model.events[0].kind == "fallback"
        assert "rows of output 0 depend on each other" in model.events[0].message

    def test_an_export_in_training_mode_is_switched_to_inference(self, tmp_path):
        net = seeded(ConvNet)
        torch.export.save(torch.export.export(net.train(), (torch.randn(4, 1, 8, 8),)), tmp_path / "train.pt2")
        model = load_model(tmp_path / "train.pt2")
        assert "training mode (batch_norm, dropout)" in model.events[0].message
        same_as_module(net.eval(), model.program, 1, 8, 8)
        assert not model.program.graph_signature.buffers_to_mutate

    def test_nested_inputs_become_plain_ones(self, tmp_path):
        class Nested(nn.Module):
            def forward(self, pair, *, scale):
                return pair["a"] * 2 + pair["b"] * scale

        example = ({"a": torch.randn(2, 3), "b": torch.randn(2, 3)},)
        program = torch.export.export(Nested(), example, {"scale": torch.randn(2, 3)})
        model = load_model(program)
        assert [spec.shape for spec in model.inputs] == [("batch", 3)] * 3
        a, b, c = (np.random.default_rng(i).standard_normal((4, 3)).astype(np.float32) for i in range(3))
        np.testing.assert_allclose(reference_outputs(model.program, [a, b, c])[0], a * 2 + b * c, rtol=1e-6)

    def test_a_specification_that_is_not_the_models_is_refused(self, archive):
        for text in ("x:float32[1,21]", "y:float32[1,20]", "x:int64[1,20]", "x:float32[20]"):
            with pytest.raises(ModelError, match=r"does not fit the model.*x:float32\[batch,20\]"):
                load_model(archive, inputs=[parse_input(text)])
        assert load_model(archive, inputs=[parse_input("x:float32[1,20]")]).inputs[0].shape == ("batch", 20)

    def test_an_output_that_is_no_tensor_is_refused(self):
        class Count(nn.Module):
            def forward(self, x):
                return x, 3

        with pytest.raises(ModelError, match="output 'output_1' is not a tensor"):
            load_model(torch.export.export(Count(), (torch.randn(2, 3),)))

    def test_an_input_that_is_no_tensor_is_refused(self):
        class Scaled(nn.Module):
            def forward(self, x, by):
                return x * by

        with pytest.raises(ModelError, match=r"Input 1 .* is not a tensor"):
            load_model(torch.export.export(Scaled(), (torch.randn(2, 3), 2)))


class TestStateDict:
    @pytest.fixture
    def weights(self, tmp_path, mlp):
        torch.save(mlp.state_dict(), tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    def load(self, path, *, factory=FACTORY, inputs="x:float32[1,20]", **arguments):
        return load_model(path, factory=factory, factory_args=arguments, inputs=[parse_input(inputs)])

    def test_weights_and_a_factory_give_the_module(self, weights, mlp):
        model = self.load(weights, hidden="64", name="mlp")
        assert model.format == "state-dict"
        assert str(model.inputs[0]) == "x:float32[batch,20]"
        same_as_module(mlp, model.program, 20)

    def test_a_checkpoint_with_an_optimizer_is_unpacked(self, tmp_path, mlp):
        torch.save({"state_dict": mlp.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
        model = self.load(tmp_path / "checkpoint.pt")
        assert "under 'state_dict'" in model.events[0].message

    def test_the_current_directory_is_importable(self, weights, tmp_path, monkeypatch):
        (tmp_path / "my_net.py").write_text("from model_nets import make_mlp as make\n")
        monkeypatch.chdir(tmp_path)
        first = self.load(weights, factory="my_net:make")
        (tmp_path / "my_net.py").write_text("from model_nets import make_mlp as make  # edited\n")
        del sys.modules["my_net"]
        importlib.invalidate_caches()
        second = self.load(weights, factory="my_net:make")
        assert first.identity != second.identity
        assert first.sha256 == second.sha256

    def test_a_factory_is_asked_for(self, weights):
        with pytest.raises(ModelError, match=r"weights only .*--factory"):
            load_model(weights)

    def test_inputs_are_asked_for(self, weights):
        with pytest.raises(ModelError, match=r"does not say what its inputs.*forward\(x\)"):
            load_model(weights, factory=FACTORY)

    def test_other_shapes_are_listed(self, weights):
        with pytest.raises(ModelError, match=r"Of another shape: body\.0\.weight is \[64, 20\], the factory's is \[16"):
            self.load(weights, hidden="16")

    def test_missing_and_unexpected_keys_are_listed(self, tmp_path, mlp):
        state = mlp.state_dict()
        state["extra"] = state.pop("body.0.bias")
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"Missing: body\.0\.bias\. Unexpected: extra\."):
            self.load(tmp_path / "w.pt")

    def test_data_parallel_names_are_explained(self, tmp_path, mlp):
        torch.save({f"module.{k}": v for k, v in mlp.state_dict().items()}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="DataParallel"):
            self.load(tmp_path / "w.pt")

    def test_a_file_without_weights_is_refused(self, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="holds no state dict"):
            self.load(tmp_path / "w.pt")

    @pytest.mark.parametrize(
        ("factory", "arguments", "match"),
        [
            ("model_nets", {}, "Write it as package.module:callable"),
            ("no_such_module:make", {}, "cannot be imported: No module named"),
            ("model_nets:nothing_here", {}, "cannot be imported: .*nothing_here"),
            ("model_nets:make_nothing", {}, "did not return a torch.nn.Module"),
            (FACTORY, {"depth": "3"}, "fails.*unexpected keyword"),
            (FACTORY, {"name": "resnet"}, r"fails at .*model_nets\.py:\d+: assert name"),
        ],
    )
    def test_a_factory_that_does_not_work(self, weights, factory, arguments, match):
        with pytest.raises(ModelError, match=match):
            self.load(weights, factory=factory, **arguments)

    def test_a_factory_for_another_form_is_refused(self, archive):
        with pytest.raises(ModelError, match="goes with a state dict only"):
            load_model(archive, factory=FACTORY)


class TestTorchScript:
    @pytest.mark.parametrize("how", ["trace", "script"])
    def test_it_becomes_a_dynamic_program(self, tmp_path, how):
        net = seeded(ConvNet)
        x = torch.randn(2, 1, 8, 8)
        script = torch.jit.trace(net, x) if how == "trace" else torch.jit.script(net)
        torch.jit.save(script, tmp_path / "net.pt")
        model = load_model(tmp_path / "net.pt", inputs=[parse_input("image:float32[1,1,8,8]")])
        assert model.format == "torchscript"
        assert str(model.inputs[0]) == "image:float32[batch,1,8,8]"
        assert model.parameters == sum(parameter.numel() for parameter in net.parameters())
        same_as_module(net, model.program, 1, 8, 8)

    def test_rows_that_depend_on_each_other_keep_the_batch(self, tmp_path):
        torch.jit.save(torch.jit.trace(MixesRows(), torch.randn(4, 6)), tmp_path / "mix.pt")
        model = load_model(tmp_path / "mix.pt", inputs=[parse_input("x:float32[4,6]")])
        assert model.inputs[0].shape == (4, 6)
        assert model.events[0].kind == "fallback"
        with pytest.raises(ModelError, match="cannot take a batch of any size"):
            load_model(tmp_path / "mix.pt", inputs=[parse_input("x:float32[n,6]")])

    def test_inputs_are_asked_for(self, tmp_path, mlp):
        torch.jit.save(torch.jit.trace(mlp, torch.randn(1, 20)), tmp_path / "net.pt")
        with pytest.raises(ModelError, match="does not say what its inputs look like"):
            load_model(tmp_path / "net.pt")

    def test_a_wrong_input_is_the_users_error(self, tmp_path, mlp):
        torch.jit.save(torch.jit.trace(mlp, torch.randn(1, 20)), tmp_path / "net.pt")
        with pytest.raises(ModelError, match="itself fails on such inputs"):
            load_model(tmp_path / "net.pt", inputs=[parse_input("x:float32[1,21]")])

    def test_code_that_writes_files_is_refused(self, tmp_path):
        class Writes(nn.Module):
            def forward(self, x):
                return x + torch.from_file("written", shared=True, size=4, dtype=torch.float32)

        torch.jit.save(torch.jit.script(Writes()), tmp_path / "net.pt")
        with pytest.raises(UnsafeModelError, match=r"reads or writes files: code/.*from_file"):
            load_model(tmp_path / "net.pt", inputs=[parse_input("x:float32[1,4]")])

    def test_what_cannot_be_converted_names_another_way(self, tmp_path):
        class Loops(nn.Module):
            def forward(self, x):
                while bool(x.sum() < 10):
                    x = x + 1
                return x

        torch.jit.save(torch.jit.script(Loops()), tmp_path / "net.pt")
        with pytest.raises(ModelError, match=r"cannot be converted.*torch\.onnx\.export"):
            load_model(tmp_path / "net.pt", inputs=[parse_input("x:float32[1,4]")])


class TestPickledModule:
    @pytest.fixture
    def pickled(self, tmp_path, mlp):
        torch.save(mlp, tmp_path / "module.pt")
        return tmp_path / "module.pt"

    def test_it_is_refused_and_its_imports_are_listed(self, pickled):
        with pytest.raises(
            UnsafeModelError, match=r"would import .*model_nets\.Mlp.*torch\.nn\.modules\.linear\.Linear"
        ):
            load_model(pickled, inputs=[parse_input("x:float32[1,20]")])

    def test_trust_loads_it(self, pickled, mlp):
        model = load_model(pickled, inputs=[parse_input("x:float32[1,20]")], trust=True)
        assert model.format == "pickle"
        same_as_module(mlp, model.program, 20)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pickle_with_code_is_refused_and_not_run(self, tmp_path, marker, legacy):
        class Payload:
            def __reduce__(self):
                return (exec, (f"import os; os.mkdir({str(marker)!r})",))

        path = tmp_path / "evil.pt"
        torch.save({"weight": Payload()}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UnsafeModelError, match=r"would import .*builtins\.exec"):
            load_model(path, factory=None)
        with pytest.raises(ModelError, match="goes with a state dict only"):
            load_model(path, factory=FACTORY)
        assert not marker.exists()

    def test_a_trusted_pickle_of_something_else_is_refused(self, tmp_path):
        torch.save(nn.ReLU, tmp_path / "class.pt")
        with pytest.raises(ModelError, match=r"holds no torch\.nn\.Module"):
            load_model(tmp_path / "class.pt", trust=True)

    def test_a_class_that_is_not_here_is_explained(self, pickled, monkeypatch):
        import model_nets

        monkeypatch.delattr(model_nets, "Mlp")
        with pytest.raises(ModelError, match="needs the classes it was saved with"):
            load_model(pickled, trust=True)


class TestModuleInMemory:
    def test_several_inputs_share_the_batch(self):
        net = seeded(TwoInputs)
        specs = [parse_input("features:float32[1,3]"), parse_input("ids:int64[1,7]")]
        model = load_model(net, inputs=specs)
        assert [str(spec) for spec in model.inputs] == ["ids:int64[batch,7]", "features:float32[batch,3]"]
        assert [str(spec) for spec in model.outputs] == ["logits:float32[batch,2]", "pooled:float32[batch]"]
        rng = np.random.default_rng(0)
        ids, features = rng.integers(0, 11, (5, 7)), rng.standard_normal((5, 3)).astype(np.float32)
        logits, pooled = reference_outputs(model.program, [ids, features])
        table, weight, bias = (
            net.state_dict()[key].double().numpy() for key in ("table.weight", "head.weight", "head.bias")
        )
        oracle = np.concatenate([table[ids].mean(1), features.astype(np.float64)], 1) @ weight.T + bias
        np.testing.assert_allclose(logits, oracle, atol=1e-5)
        np.testing.assert_allclose(pooled, features.sum(1), atol=1e-6)

    def test_named_dimensions_vary(self):
        net = seeded(TwoInputs)
        model = load_model(net, inputs=[parse_input("ids:int64[n,length]"), parse_input("features:float32[n,3]")])
        assert [spec.shape for spec in model.inputs] == [("batch", "length"), ("batch", 3)]
        ids, features = np.zeros((2, 9), np.int64), np.zeros((2, 3), np.float32)
        assert reference_outputs(model.program, [ids, features])[0].shape == (2, 2)

    def test_the_users_module_is_left_alone(self):
        net = seeded(ConvNet).train()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        load_model(net, inputs=[parse_input("image:float32[2,1,8,8]")])
        assert net.training
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_a_hard_coded_batch_stays_and_says_so(self):
        model = load_model(HardCoded(), inputs=[parse_input("x:float32[4,16]")])
        assert model.inputs[0].shape == (4, 16)
        assert model.events[0].kind == "fallback"
        assert "return x.view(4, 16)" in model.events[0].message

    def test_a_dynamic_batch_that_was_asked_for_is_not_dropped(self):
        with pytest.raises(ModelError, match=r"rows of output 0 depend.*Give the batch as a number.*x:float32\[1,16\]"):
            load_model(MixesRows(), inputs=[parse_input("x:float32[n,16]")])

    def test_what_export_cannot_take_names_the_line_and_two_ways_out(self, capfd):
        with pytest.raises(ModelError, match=r"model_nets\.py:\d+: if x\.sum\(\) > 0:.*Two ways out"):
            load_model(Branches(), inputs=[parse_input("x:float32[1,4]")])
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("texts", "match"),
        [
            (["x:float32[1,21]"], r"itself fails on such inputs \(RuntimeError"),
            (["x:float32[1,20]", "z:float32[1,20]"], "itself fails on such inputs"),
            (["x:float32[1,20]", "x:float32[1,20]"], "Two inputs have one name"),
            ([], "does not say what its inputs"),
        ],
    )
    def test_a_wrong_input_specification(self, mlp, texts, match):
        with pytest.raises(ModelError, match=match):
            load_model(mlp, inputs=[parse_input(text) for text in texts])

    def test_an_argument_left_out(self):
        with pytest.raises(ModelError, match=r"leaves out arguments.*for ids too"):
            load_model(seeded(TwoInputs), inputs=[parse_input("features:float32[1,3]")])

    def test_dropout_that_is_always_on_is_switched_off(self):
        class Careless(nn.Module):
            def forward(self, x):
                return nn.functional.dropout(x, 0.5)

        model = load_model(Careless(), inputs=[parse_input("x:float32[1,50]")])
        assert "training mode (dropout)" in model.events[0].message
        x = np.ones((3, 50), np.float32)
        np.testing.assert_array_equal(reference_outputs(model.program, [x])[0], x)

    def test_an_unknown_dtype_is_refused(self):
        with pytest.raises(ModelError, match=r"dtype that edgeopt does not know.*bfloat16"):
            load_model(torch.export.export(nn.Linear(2, 2).bfloat16(), (torch.randn(2, 2).bfloat16(),)))


class TestIdentity:
    def test_weights_and_specification_count(self):
        spec = [TensorSpec(name="x", dtype="float32", shape=(1, 20))]
        first, again = (load_model(seeded(Mlp), inputs=spec) for _ in range(2))
        assert first.identity == again.identity
        other = seeded(Mlp)
        with torch.no_grad():
            other.body[0].bias[0] += 1e-3
        assert load_model(other, inputs=spec).identity != first.identity
        assert load_model(seeded(Mlp), inputs=[parse_input("x:float32[2,20]")]).identity != first.identity


class TestReference:
    def test_a_fixed_batch_is_filled_and_cut(self):
        model = load_model(HardCoded(), inputs=[parse_input("x:float32[4,16]")])
        x = np.random.default_rng(0).standard_normal((10, 16)).astype(np.float32)
        (got,) = reference_outputs(model.program, [x])
        np.testing.assert_allclose(got, x + (np.arange(10) % 4)[:, None], rtol=1e-6)

    def test_it_is_deterministic(self, archive):
        model = load_model(archive)
        x = np.random.default_rng(0).standard_normal((7, 20)).astype(np.float32)
        np.testing.assert_array_equal(reference_outputs(model.program, [x]), reference_outputs(model.program, [x]))

    @pytest.mark.parametrize(
        ("arrays", "match"),
        [
            ([np.zeros((2, 20))], r"does not fit .*float64\[2, 20\]"),
            ([np.zeros((2, 21), np.float32)], "does not fit"),
            ([np.zeros((0, 20), np.float32)], "does not fit"),
            ([], "another number of inputs"),
        ],
    )
    def test_wrong_arrays(self, archive, arrays, match):
        with pytest.raises(ModelError, match=match):
            reference_outputs(load_model(archive).program, arrays)

    def test_inputs_of_different_lengths(self):
        net = load_model(
            seeded(TwoInputs), inputs=[parse_input("ids:int64[1,7]"), parse_input("features:float32[1,3]")]
        )
        with pytest.raises(ModelError, match="different numbers of rows"):
            reference_outputs(net.program, [np.zeros((2, 7), np.int64), np.zeros((3, 3), np.float32)])
