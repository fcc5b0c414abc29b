"""The training loop: order, rate, loss, checkpoints; killed and resumed it ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_nets import make_context
from torch.nn import functional as F
from training_nets import TRAINING, make_finetune, make_qat, net_of, run_qat, split, training_data, weights_of

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.registry import STEPS
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeopt.compress.training.losses import find_loss
from edgeopt.compress.training.schedule import learning_rate
from edgeopt.compress.training.tape import Tape
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.recipes.training import Training

HERE = Path(__file__).parent


def config(**options):
    return Training.model_validate(TRAINING | options)


class TestOrder:
    def batches(self, count=20, size=4, **options):
        model, _, _ = net_of("mlp")
        x = np.arange(count * 20, dtype=np.float32).reshape(count, 20)
        feed = Feed.of(model, model.program, split("calibration", x, None), 8, size)
        given = split("train", x, np.arange(count))
        return TrainingBatches(split=given, feed=feed, size=size, seed=3, **options)

    def labels(self, batches, epoch, start=0):
        return [labels.tolist() for _, labels in batches.epoch(epoch, start)]

    def test_every_sample_comes_once_an_epoch_in_another_order_each(self):
        first, second = ([*chain(*self.labels(self.batches(), epoch))] for epoch in (0, 1))
        assert sorted(first) == sorted(second) == list(range(20))
        assert first != second
        assert first == [*chain(*self.labels(self.batches(), 0))]

    def test_an_epoch_can_be_entered_in_its_middle(self):
        assert self.labels(self.batches(), 1, start=3) == self.labels(self.batches(), 1)[3:]

    def test_two_processes_share_each_step_of_one(self):
        alone = self.labels(self.batches(size=4), 0)
        shares = [self.labels(self.batches(size=2, rank=rank, processes=2), 0) for rank in (0, 1)]
        assert [a + b for a, b in zip(*shares, strict=True)] == alone

    def test_inputs_and_labels_belong_together_and_no_batch_is_short(self):
        for (x,), labels in self.batches(count=22).epoch(5):
            assert x.shape == (4, 20)
            assert torch.equal(x[:, 0], labels.float() * 20)


def test_the_rate_rises_over_the_warm_up_and_falls_to_nothing():
    rates = [learning_rate(config(epochs=4, warmup_epochs=1, learning_rate=0.1), step, 10) for step in range(40)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], 0.05 * (1 + np.cos(np.pi * np.arange(30) / 30)))
    constant = config(warmup_epochs=0, schedule="constant", learning_rate=0.1)
    assert [learning_rate(constant, step, 10) for step in (0, 19)] == [0.1, 0.1]


def wrong_shape(outputs, labels):
    return outputs[0]


def detached(outputs, labels):
    return outputs[0].detach().mean()


def broken(outputs, labels):
    raise ValueError("no such thing")


def squared(outputs, labels):
    return (outputs[0] - F.one_hot(labels, outputs[0].shape[-1])).square().mean()


def becomes_nan(outputs, labels):
    becomes_nan.calls += 1
    return outputs[0].mean() * (float("nan") if becomes_nan.calls > becomes_nan.after else 1.0)


class TestLoss:
    outputs = torch.tensor([[1.0, 2.0, 0.5], [0.1, -1.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[0.5, 2.5, 0.0], [1.0, -2.0, 2.0]])
    labels = torch.tensor([1, 0])

    def value(self, task="classification", targets=labels, **options):
        loss = find_loss(config(**options), task=task)
        return float(loss((self.outputs,), targets, (self.teacher,)).detach())

    def test_blends_cross_entropy_and_the_distance_to_the_teacher(self):
        def log_softmax(z):
            z = z - z.max(-1, keepdims=True)
            return z - np.log(np.exp(z).sum(-1, keepdims=True))

        mine, theirs = self.outputs.detach().double().numpy(), self.teacher.double().numpy()
        entropy = -log_softmax(mine)[[0, 1], [1, 0]].mean()
        p, q = log_softmax(theirs / 2), log_softmax(mine / 2)
        distance = 4 * (np.exp(p) * (p - q)).sum(-1).mean()
        assert self.value() == pytest.approx(0.5 * entropy + 0.5 * distance, rel=1e-6)
        assert self.value(distillation=None) == pytest.approx(entropy, rel=1e-6)

    def test_other_outputs_are_held_against_the_teachers_power(self):
        mine, theirs = self.outputs.detach().numpy(), self.teacher.numpy()
        got = self.value(task="unlabelled", targets=None)
        assert got == pytest.approx(((mine - theirs) ** 2).sum() / (theirs**2).sum(), rel=1e-6)

    def test_may_be_the_users_own(self):
        assert self.value(loss="test_compress_training:squared", distillation=None) == pytest.approx(
            float(squared((self.outputs,), self.labels).detach()), rel=1e-6
        )

    @pytest.mark.parametrize(
        ("loss", "message"),
        [
            ("no.such:thing", r"cannot be imported\. Received: no\.such:thing \(ModuleNotFoundError"),
            ("math:nothing", r"cannot be imported\. Received: math:nothing \(AttributeError"),
            ("math:pi", r"cannot be called\. Received: math:pi, a float"),
            (
                "test_compress_training:wrong_shape",
                r"wrong_shape does not return a scalar\. Received: a tensor \[2, 3\]",
            ),
            ("builtins:len", r"len raised\. Received: TypeError"),
            ("test_compress_training:detached", r"detached does not depend on the model's outputs"),
            ("test_compress_training:broken", r"broken raised\. Received: ValueError: no such thing"),
        ],
    )
    def test_is_refused_where_it_is_none(self, loss, message):
        with pytest.raises(RecipeError, match=message):
            self.value(loss=loss, distillation=None)


def test_a_loss_that_becomes_nan_ends_the_training_with_the_best_so_far():
    becomes_nan.calls, becomes_nan.after = 0, 6  # four steps an epoch
    options = {"loss": "test_compress_training:becomes_nan", "epochs": 3}
    result = run_qat("mlp", training=options)
    assert len(result.training[0].epochs) == 2  # the start and one epoch
    (warning,) = [event.message for event in result.events if event.kind == "warning"]
    assert warning.startswith("Training broke off: the loss is nan in epoch 2, step 3; the best epoch before that")


def test_a_loss_that_is_nan_from_the_start_is_an_error():
    becomes_nan.calls, becomes_nan.after = 0, 1
    with pytest.raises(RecipeError, match=r"before the first epoch was over.*nan in epoch 1, step 2.*learning_rate"):
        run_qat("mlp", training={"loss": "test_compress_training:becomes_nan"})


def test_too_few_samples_for_a_step_are_refused():
    with pytest.raises(DataError, match=r"fewer training samples than one step takes\. Received: 16 samples, 32 per"):
        run_qat("mlp", count=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16-mixed"}, "cpu here has no 16-mixed"),
        ({"accelerator": "cuda", "devices": 32}, "not so many GPUs"),
        ({"devices": 3}, r"cannot be shared out evenly\. Received: training\.batch_size 32 on 3 devices"),
    ],
)
def test_what_the_machine_has_not_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        run_qat("mlp", training=options)


def test_bfloat16_is_refused_where_the_cpu_has_none(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    with pytest.raises(RecipeError, match="no bf16-mixed"):
        run_qat("mlp", training={"precision": "bf16-mixed"})


def test_patience_ends_it_and_a_time_limit_too():
    lazy = run_qat("mlp", training={"epochs": 9, "learning_rate": 10.0, "clip_norm": None, "patience": 2})
    assert len(lazy.training[0].epochs) == 3
    assert lazy.training[0].ended == "2 epochs without a better score on the tuning split"
    brief = run_qat("mlp", training={"epochs": 9, "max_minutes": 1e-9})
    assert len(brief.training[0].epochs) == 1
    assert any("the time limit" in event.message for event in brief.events)


def test_a_checkpoint_is_read_back_as_it_was_written(tmp_path):
    state = Checkpoint(
        epoch=2,
        step=7,
        student={"w": torch.randn(3)},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        best={"w": torch.randn(3)},
        curve=[{"epoch": 0, "value": float("inf"), "loss": None}],
        spent_s=1.5,
    )
    save_checkpoint(tmp_path, state)
    numbers = np.random.mtrand._rand  # the legacy generator, which libraries may use
    expected = torch.rand(2), numbers.random()
    torch.rand(5), numbers.random(5)
    found = load_checkpoint(tmp_path)
    assert torch.equal(torch.rand(2), expected[0])
    assert numbers.random() == expected[1]
    assert found.curve == state.curve
    assert (found.epoch, found.step, found.optimizer["param_groups"]) == (2, 7, state.optimizer["param_groups"])
    assert torch.equal(found.student["w"], state.student["w"])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("kind", [{}, {"scales": "observed", "freeze_ranges_after": 1}])
def test_a_run_that_stopped_goes_on_to_the_same_bits(kind, tmp_path, monkeypatch):
    """Stopped inside the second epoch, where a checkpoint was written after each step."""
    options = {"training": {"epochs": 3}, **kind}
    whole = weights_of(run_qat("conv1d", **options))
    monkeypatch.setattr("edgeopt.compress.training.run._CHECKPOINT_EVERY_S", -1.0)
    steps = []

    def stop(progress):
        if progress.stage.startswith("epoch"):
            steps.append(progress.done)
            if progress.done == 7:
                raise Stop

    with pytest.raises(Stop):
        run_qat("conv1d", context={"workspace": tmp_path, "progress": stop}, **options)
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    steps.clear()
    resumed = run_qat("conv1d", context={"workspace": tmp_path, "progress": lambda p: steps.append(p.done)}, **options)
    assert [s for s in steps if s > 4][-6:] == [7, 8, 9, 10, 11, 12]
    again = weights_of(resumed)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)


KILLED = """
import sys, torch
sys.path.insert(0, {here!r})
import edgeopt.compress.training.run as run
run._CHECKPOINT_EVERY_S = -1.0
from pathlib import Path
from training_nets import run_qat, weights_of
torch.set_num_threads(int(sys.argv[1]))
training = {{"epochs": 40}}
result = run_qat("conv1d", training=training, batchnorm={{"freeze_after": 20}}, context={{"workspace": Path(sys.argv[2])}})
torch.save(weights_of(result), sys.argv[3])
"""


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
def test_a_killed_process_goes_on_to_the_same_bits(threads, tmp_path):
    program = tmp_path / "run.py"
    program.write_text(KILLED.format(here=str(HERE)))

    def start(name, output):
        command = [sys.executable, str(program), str(threads), str(tmp_path / name), str(tmp_path / output)]
        return subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)

    assert start("whole", "whole.pt").wait() == 0
    killed = start("killed", "killed.pt")
    while not (tmp_path / "killed" / "checkpoint.pt").is_file():
        time.sleep(0.01)
        assert killed.poll() is None
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.pt").exists()
    assert start("killed", "killed.pt").wait() == 0
    whole, again = (torch.load(tmp_path / name) for name in ("whole.pt", "killed.pt"))
    assert all(torch.equal(again[key], whole[key]) for key in whole)


@pytest.mark.long
def test_two_processes_train_what_one_does():
    """The mean of two half batches' gradients is the whole batch's: the same training but for rounding."""
    program = """
import sys
sys.path.insert(0, {here!r})
from training_nets import run_qat, weights_of
import torch
if __name__ == "__main__":
    results = [run_qat("mlp", training={{"devices": n, "optimizer": "sgd", "clip_norm": None, "learning_rate": 0.02}}) for n in (1, 2)]
    one, two = map(weights_of, results)
    floats = [k for k in one if one[k].is_floating_point()]
    print(max(float((one[k] - two[k]).abs().max()) for k in floats))
    print([[row.loss for row in r.training[0].epochs] for r in results])
"""
    path = HERE / ".two_processes.py"
    path.write_text(program.format(here=str(HERE)))
    try:
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    distance, losses = done.stdout.splitlines()[-2:]
    assert float(distance) < 1e-4
    first, second = json.loads(losses.replace("None", "null"))
    assert first[2] != first[1]  # it went on training
    assert first[1:] == pytest.approx(second[1:], rel=1e-3)


def test_a_tape_computes_what_its_graph_does(nets):
    for name, (model, shape) in nets.items():
        x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
        graph = model.program.module(check_guards=False)
        with torch.no_grad():
            torch.testing.assert_close(Tape(graph)(x)[0], graph(x), rtol=0, atol=0, msg=name)


class TestFinetune:
    def run(self, name="resnet", **options):
        model, net, shape = net_of(name)
        return model, STEPS["finetune"].run(model, make_finetune(**options), make_context(training_data(net, shape)))

    def test_trains_a_float_model_in_its_own_graph(self):
        model, result = self.run(training={"distillation": None})
        trained = result.model.program
        assert [str(n.target) for n in trained.graph.nodes] == [str(n.target) for n in model.program.graph.nodes]
        assert result.training[0].best_epoch > 0
        assert any(not torch.equal(v, trained.state_dict[k]) for k, v in model.program.state_dict.items())
        statistics = [k for k in trained.state_dict if "running" in k]
        assert all(torch.equal(trained.state_dict[k], model.program.state_dict[k]) for k in statistics)
        assert result.model.identity != model.identity

    def test_batch_norms_move_where_they_may(self):
        model, result = self.run(training={"distillation": None}, batchnorm={"freeze_after": 1})
        trained = result.model.program.state_dict
        assert any(not torch.equal(v, trained[k]) for k, v in model.program.state_dict.items() if "running" in k)

    def test_what_was_trained_is_then_quantized(self):
        _, result = self.run("mlp")
        net, shape = net_of("mlp")[1:]
        quantized = STEPS["qat"].run(result.model, make_qat(), make_context(training_data(net, shape)))
        assert quantized.stats["layers_int8"] == 3

    def test_is_refused_for_onnx(self):
        model, net, shape = net_of("mlp")
        import dataclasses

        onnx = dataclasses.replace(model, program=None, onnx_path=Path("net.onnx"))
        with pytest.raises(RecipeError, match="needs the PyTorch program"):
            STEPS["finetune"].run(onnx, make_finetune(), make_context(training_data(net, shape)))
