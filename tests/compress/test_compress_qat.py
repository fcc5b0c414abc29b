"""Quantization-aware training: what is trained is what ships, bit for bit, and it brings back what rounding cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compress_nets import NETS, export, make_config, make_context, make_target, run, samples, sqnr_db
from torch import nn
from training_nets import make_qat, net_of, run_qat, training_data

from edgeopt.compress.observers import ActivationObserver
from edgeopt.compress.prepare import open_session, prepare
from edgeopt.compress.qat import finish_qat, start_qat
from edgeopt.compress.registry import STEPS
from edgeopt.compress.training.loop import train
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import ignore_progress
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import activation_points

KINDS = {
    "learned": {},
    "observed": {"scales": "observed", "freeze_ranges_after": 1},
    "live": {"batchnorm": {"freeze_after": 1}},
    "asymmetric": {"target": make_target(asymmetric_activations=True)},
    "moving": {"target": make_target(asymmetric_activations=True), "scales": "observed"},
}
QUICK = {("mlp", "learned"), ("gru", "observed"), ("conv1d", "live"), ("mobilenet", "asymmetric")}


def trained(name, *, bits=None, count=128, labelled=True, target=None, **options):
    """The fake-quantized student after training, the result of its conversion, and the model."""
    model, net, shape = net_of(name)
    config = make_qat(**options)
    session = open_session(model, config, make_context(training_data(net, shape, count, labelled=labelled), target))
    if bits is not None:
        layers = tuple(dataclasses.replace(x, weight_bits=bits) if x.weighted else x for x in session.layers)
        session = dataclasses.replace(session, layers=layers)
    started = start_qat(session, config)
    outcome = train(started.job, ignore_progress)
    return started.job.student, finish_qat(started, outcome), outcome


def onnx_outputs(result, path, x):
    """ONNX Runtime on the exported graph as written: without fusion into int8 kernels, which round once, not twice."""
    model = result.model
    export_onnx(model.program, model.inputs, model.outputs, path, opset=20, ranges=result.ranges)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in QUICK else pytest.mark.long)
        for name in NETS
        for kind in KINDS
        if kind != "live" or name in ("resnet", "mobilenet", "conv1d")  # the others have no BatchNorm after a conv
    ],
)
def test_the_fake_quantized_net_gives_the_outputs_of_its_onnx_graph(name, kind, tmp_path):
    """At most one quantum on at least 99.9 % of outputs; a quantum: 1/255 of the output's own range.

    The ViT's LayerNorm, softmax and GELU are in float: where torch and ONNX Runtime round one of them the other way, a value
    may land on the next point of a grid, and all that follows with it. 99.8 % there.
    """
    student, result, _ = trained(name, **KINDS[kind])
    x = samples(256, NETS[name][1], seed=4)
    with torch.no_grad():
        (expected,) = (y.numpy() for y in student(torch.from_numpy(x)))
    got = onnx_outputs(result, tmp_path / "net.onnx", x)
    quantum = (expected.max() - expected.min()) / 255
    assert (np.abs(got - expected) <= quantum).mean() >= (0.998 if name == "vit" else 0.999)
    # Mostly equal. One value halfway between two points of a grid, rounded the other way, leaves 58 dB here.
    assert result.stats["sqnr_at_convert_db"] > 50


def test_learned_unsigned_grids_are_those_of_the_form_and_clips_fold_into_them(tmp_path):
    _, result, _ = trained("mobilenet", **KINDS["asymmetric"])
    model = result.model
    export_onnx(model.program, model.inputs, model.outputs, tmp_path / "net.onnx", opset=20, ranges=result.ranges)
    form = apply_dialect("ort-x86", tmp_path / "net.onnx", tmp_path / "form.onnx").path
    learned, written = (
        {
            point.scale
            for point in activation_points(load_onnx(path).graph)
            if (point.dtype, point.zero_point) == ("uint8", 0)
        }
        for path in (tmp_path / "net.onnx", form)
    )
    assert learned
    assert learned <= written
    assert all(scale * np.float32(255) <= 6 for scale in learned)


@pytest.mark.long
@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("scales", ["learned", "observed"])
def test_few_weight_bits_arrive_as_they_were_trained(bits, scales, tmp_path):
    taught = {"learning_rate": 3e-3, "epochs": 3, "distillation": {"weight": 1.0, "temperature": 1.0}}
    options = KINDS[scales] | {"batchnorm": {"freeze_after": 1}, "training": taught}
    student, result, outcome = trained("resnet", bits=bits, count=512, **options)
    x = samples(256, NETS["resnet"][1], seed=4)
    with torch.no_grad():
        (expected,) = (y.numpy() for y in student(torch.from_numpy(x)))
    got = onnx_outputs(result, tmp_path / "net.onnx", x)
    assert (np.abs(got - expected) <= (expected.max() - expected.min()) / 255).mean() >= 0.999
    initializers = map(onnx.numpy_helper.to_array, onnx.load(tmp_path / "net.onnx").graph.initializer)
    weights = [w for w in initializers if w.dtype == np.int8 and w.ndim > 1]
    assert len(weights) == 9
    assert {abs(int(w.min())) for w in weights} | {int(w.max()) for w in weights} <= set(range(2 ** (bits - 1)))
    values = [row["value"] for row in outcome.curve]
    if bits == 2:  # on these inputs four bits leave nothing to win back
        assert values[outcome.best_epoch] < 0.7 * values[0]  # the start is the same grid without training


def test_training_starts_on_the_steps_with_the_least_error_of_its_own_grid():
    model, net, shape = net_of("mlp")
    context, config = make_context(training_data(net, shape, 128)), make_qat(observer="histogram")
    started = start_qat(open_session(model, config, context), config).prepared
    after, _ = prepare(open_session(model, make_config(observer="histogram"), context))
    trained, written = (
        np.array([module.scale for module in graph.modules() if isinstance(module, ActivationObserver)])
        for graph in (started, after)
    )
    assert np.all(trained <= written)  # what is clipped weighs more where a runtime's finer grid is all that follows
    assert np.any(trained < written)


def test_training_changes_nothing_of_the_model_that_came_in():
    model, net, shape = net_of("resnet")
    before = {k: v.clone() for k, v in model.program.state_dict.items()}
    STEPS["qat"].run(model, make_qat(), make_context(training_data(net, shape)))
    assert all(torch.equal(before[k], v) for k, v in model.program.state_dict.items())


def test_the_best_epoch_is_kept_and_the_start_counts_as_one():
    result = run_qat("mlp", training={"learning_rate": 10.0, "clip_norm": None, "distillation": None})
    (section,) = result.training
    assert section.best_epoch == 0
    assert any("No epoch was better" in event.message for event in result.events)
    model, _, shape = net_of("mlp")
    x = samples(64, shape, seed=9)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 25


def test_the_curve_tells_every_epoch():
    (section,) = run_qat("mlp", training={"epochs": 3}).training
    assert [row.epoch for row in section.epochs] == [0, 1, 2, 3]
    assert section.epochs[0].loss is section.epochs[0].learning_rate is None
    assert all(row.loss > 0 for row in section.epochs[1:])
    assert {f.name: f.n for f in section.epochs[3].figures}["tune_accuracy_pct"] == 64
    assert section.step == "qat"
    assert section.samples == 128


@pytest.mark.parametrize("scales", ["learned", "observed"])
def test_a_live_bias_beside_a_dead_channel_still_fits_into_int32(scales):
    """A bias of b stands in int32 as b / (input scale × weight scale): a weight scale near zero would overflow it."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
            with torch.no_grad():
                self.conv.weight[1] = 0
                self.conv.bias[1] = 5.0

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    shape = (3, 8, 8)
    torch.manual_seed(0)
    net = Dead().eval()
    config = make_qat(**KINDS[scales])
    result = STEPS["qat"].run(export(net, shape), config, make_context(training_data(net, shape)))
    program = result.model.program
    tensors = {**program.state_dict, **program.constants}
    scale = next(v for k, v in tensors.items() if "conv_weight_scale" in k)
    bias = next(v for k, v in tensors.items() if "conv" in k and "bias" in k)
    first = next(n for n in program.graph.nodes if "quantize_per_tensor" in str(n.target))
    stored = bias.double() / (float(first.args[1]) * scale.double())
    assert stored.abs().max() < 2**30


def test_parameters_that_take_no_gradient_stay_as_they_are():
    model, net, shape = net_of("mlp")
    for name, parameter in model.program.named_parameters():
        parameter.requires_grad_(name.startswith("4."))
    result = STEPS["qat"].run(
        model, make_qat(training={"learning_rate": 0.01}), make_context(training_data(net, shape))
    )
    tensors = {**result.model.program.state_dict, **result.model.program.constants}
    before = model.program.state_dict
    kept = [k for k, v in before.items() if k.endswith("bias") and any(torch.equal(v, t) for t in tensors.values())]
    assert kept == ["0.bias", "2.bias"]


def test_a_program_with_a_static_batch_is_trained_in_its_own_batches():
    result = run_qat("mlp", batch=8)
    assert len(result.training[0].epochs) == 3


class TestRefusals:
    def run(self, change=lambda data: data, model=None, **options):
        given, net, shape = net_of("mlp")
        data = change(training_data(net, shape))
        return STEPS["qat"].run(model or given, make_qat(**options), make_context(data))

    @pytest.mark.parametrize("missing", ["train", "tune"])
    def test_without_a_split_to_train_or_to_choose_on(self, missing):
        def without(data):
            return dataclasses.replace(data, splits={k: v for k, v in data.splits.items() if k != missing})

        with pytest.raises(RecipeError, match=f"needs a {missing} split .* Add training data"):
            self.run(without)

    def test_without_labels_teacher_or_loss(self):
        with pytest.raises(RecipeError, match="nothing to train on: the data has no labels"):
            self.run(lambda data: dataclasses.replace(data, task="unlabelled"), training={"distillation": None})

    def test_of_a_frozen_model(self):
        model, _, _ = net_of("mlp")
        for parameter in model.program.parameters():
            parameter.requires_grad_(False)
        with pytest.raises(RecipeError, match=r"frozen: none of its parameters takes gradients.*6 parameters"):
            self.run(model=model)

    def test_of_a_target_without_int8(self):
        model, net, shape = net_of("mlp")
        target = make_target().model_copy(update={"quantization": None})
        with pytest.raises(RecipeError, match="has no int8"):
            STEPS["qat"].run(model, make_qat(), make_context(training_data(net, shape), target))


def test_without_labels_the_teacher_alone_is_followed():
    _, _, outcome = trained("mlp", bits=3, count=512, labelled=False, training={"learning_rate": 3e-3})
    assert all(row["accuracy"] is None for row in outcome.curve)
    assert outcome.curve[-1]["sqnr_db"] > outcome.curve[0]["sqnr_db"] + 0.5
