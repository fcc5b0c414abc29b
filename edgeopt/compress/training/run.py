"""One process's share of a training: epochs, steps, scores, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from edgeopt.compress.base import CUT_SHORT
from edgeopt.compress.observers import NonFiniteError
from edgeopt.compress.score import Judge, Score
from edgeopt.compress.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeopt.compress.training.features import without_points
from edgeopt.compress.training.job import Job, Trained, best_row
from edgeopt.compress.training.schedule import learning_rate
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.recipes.training import Training

__all__ = ["Run"]

_CHECKPOINT_EVERY_S = 30.0  # within an epoch; when it is written changes no result


class Run:
    """One process's share of a training."""

    def __init__(self, fabric: Any, job: Job, progress: ProgressListener) -> None:
        self.fabric, self.job, self.config, self.progress = fabric, job, job.config, progress
        self.student = job.student
        self.reference = job.reference.to(fabric.device).eval()
        self.batches = replace(job.batches, rank=fabric.global_rank)
        self.model, self.optimizer = fabric.setup(self.student, _optimizer(self.student, self.config))
        parameters = dict(self.student.named_parameters())
        self.masked = [(parameters[name], fabric.to_device(mask)) for name, mask in job.masks.items()]
        self.judge = (
            Judge.on(
                self._on_device(self.reference),
                job.feed,
                job.tune,
                len(job.tune),
                classification=job.loss.classification,
                loss=job.loss.task if job.config.loss == "task" else None,
            )
            if fabric.global_rank == 0
            else None
        )
        self.begun = time.perf_counter()
        self.saved = self.begun

    def run(self) -> Trained:
        """From the start, or from where the checkpoint stands, to the end."""
        found = load_checkpoint(self.job.workspace) if self.job.workspace else None
        state = found or self._start()
        result = Trained(best=state.best, curve=state.curve, resumed=(state.epoch, state.step) if found else None)
        if found:
            self.student.load_state_dict(found.student)
            self.optimizer.optimizer.load_state_dict(found.optimizer)
        while state.epoch < self.config.epochs:
            if reason := self._enough(state):
                result.ended = reason
                break
            self.student.begin_epoch(state.epoch)
            self.model.train()
            if trouble := self._epoch(state):
                result.ended, result.trouble = "the loss was no number", trouble
                break
            self._close_epoch(state)
        if result.trouble and state.epoch == 0:
            raise RecipeError(
                "Training broke off before the first epoch was over.",
                got=result.trouble,
                fix="Lower training.learning_rate, or set training.clip_norm.",
            )
        result.best, result.curve = state.best, state.curve
        return result

    def _start(self) -> Checkpoint:
        state = Checkpoint(epoch=0, step=0, student={}, optimizer={}, best=self._state())
        self._note(state, loss=None, rate=None)
        return state

    def _epoch(self, state: Checkpoint) -> str:
        """Train to the end of the epoch; returns what broke it off, or nothing."""
        total = self.batches.steps
        for inputs, targets in self._ahead(state):
            rate = learning_rate(self.config, state.epoch * total + state.step, total)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(inputs, targets)
            if not math.isfinite(loss):
                return f"the loss is {loss} in epoch {state.epoch + 1}, step {state.step + 1}"
            state.step, state.loss_sum = state.step + 1, state.loss_sum + loss
            self.progress(
                Progress(stage=self._words(state, loss, rate), done=state.epoch * total + state.step, total=self._total)
            )
            if time.perf_counter() - self.saved > _CHECKPOINT_EVERY_S and state.step < total:
                self._save(state)
        return ""

    def _step(self, inputs: list[torch.Tensor], targets: torch.Tensor | None) -> float:
        """One update; returns the loss, mean over the processes. Nothing is updated where it is no number."""
        inputs = [self.fabric.to_device(tensor) for tensor in inputs]
        targets = None if targets is None else self.fabric.to_device(targets)
        teacher = None
        if self.job.loss.distillation is not None:
            with torch.no_grad():
                teacher = self.reference(*inputs)
        try:
            loss = self.job.loss(self.model(*inputs), targets, teacher)
        except NonFiniteError:
            loss = torch.full((), math.nan, device=self.fabric.device)
        value = float(self.fabric.all_reduce(loss.detach(), reduce_op="mean"))
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        for parameter, mask in self.masked:  # what may not move is no part of the gradient's norm, nor of a momentum
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        if self.config.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        with torch.no_grad():
            for parameter, mask in self.masked:
                parameter.mul_(mask)
        return value

    def _close_epoch(self, state: Checkpoint) -> None:
        steps = self.batches.steps
        rate = learning_rate(self.config, (state.epoch + 1) * steps - 1, steps)
        loss, state.epoch, state.step, state.loss_sum = state.loss_sum / steps, state.epoch + 1, 0, 0.0
        self._note(state, loss=loss, rate=rate)
        self._save(state)

    def _note(self, state: Checkpoint, *, loss: float | None, rate: float | None) -> None:
        """Score the student; keep its state where it is the best so far."""
        self.student.eval()
        self.student.settle()
        row: dict[str, Any] = {"epoch": state.epoch, "loss": loss, "learning_rate": rate}
        if self.judge is not None:
            score = self.judge.score(self._on_device(self.student))
            row |= {"value": self._value(score), **_figures(score)}
        row = self.fabric.broadcast(row)
        state.curve.append(row)
        if best_row(state.curve) is row:
            state.best = self._state()

    def _value(self, score: Score) -> float:
        """What is to become small: the loss's own blend, on the tuning split; infinite where it is no number."""
        share = self.config.distillation.weight if self.config.distillation is not None else 0.0
        if score.loss is None or self.job.loss.task is None or self.config.loss != "task":
            value = score.divergence
        else:
            value = (1.0 - share) * score.loss + share * score.divergence
        return value if math.isfinite(value) else math.inf

    def _enough(self, state: Checkpoint) -> str:
        """Why to end before the next epoch; empty: go on."""
        if state.step:
            return ""
        since = state.epoch - int(best_row(state.curve)["epoch"])
        if self.config.patience is not None and since >= self.config.patience:
            return f"{since} epochs without a better score on the tuning split"
        limit = self.config.max_minutes
        spent = self.fabric.broadcast(state.spent_s + time.perf_counter() - self.begun)
        if limit is not None and spent > 60 * limit:
            return f"the time limit, {limit:g} minutes"
        over = self.job.deadline is not None and time.monotonic() > self.job.deadline
        return CUT_SHORT if self.fabric.broadcast(over) else ""

    def _save(self, state: Checkpoint) -> None:
        self.saved = time.perf_counter()
        if self.job.workspace is None or self.fabric.global_rank:
            return
        spent = state.spent_s + self.saved - self.begun
        now = replace(state, student=self._state(), optimizer=self.optimizer.optimizer.state_dict(), spent_s=spent)
        save_checkpoint(self.job.workspace, now)

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.student.state_dict().items()}

    def _on_device(self, model: Any) -> Any:
        """``model`` on flat CPU tensors, outputs on the CPU, features left out."""
        points = self.job.loss.points
        return lambda inputs: [
            x.cpu() for x in without_points(model(*(self.fabric.to_device(tensor) for tensor in inputs)), points)
        ]

    def _ahead(self, state: Checkpoint) -> Iterator[tuple[list[torch.Tensor], torch.Tensor | None]]:
        return self.batches.epoch(state.epoch, state.step)

    @property
    def _total(self) -> int:
        return self.config.epochs * self.batches.steps

    def _words(self, state: Checkpoint, loss: float, rate: float) -> str:
        last = state.curve[-1]
        metric = f"accuracy {100 * last['accuracy']:.2f} %" if last["accuracy"] is not None else f"{last['value']:.4g}"
        return f"epoch {state.epoch + 1} of {self.config.epochs}, loss {loss:.4g}, rate {rate:.2g}, tuning {metric}"


def _figures(score: Score) -> dict[str, Any]:
    """A score as a row of the curve has it; ``loss`` is the training's there."""
    return {"loss_on_labels" if key == "loss" else key: value for key, value in dataclasses.asdict(score).items()}


def _optimizer(student: Any, config: Training) -> torch.optim.Optimizer:
    """Weight decay for weights with two or more axes only; a step size or a norm has no reason to shrink."""
    trained = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.learning_rate)
