"""The one training loop, on Lightning Fabric: any trainee, any loss, one process or several, stopped and resumed at will.

A run that was killed and started again ends in the same weights, bit for bit: the order of the data and the learning
rate are functions of the step, and the rest is in the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.observers import NonFiniteError
from edgeopt.compress.score import Judge, Score
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeopt.compress.training.device import open_fabric
from edgeopt.compress.training.losses import Loss
from edgeopt.compress.training.schedule import learning_rate
from edgeopt.compress.training.tape import Tape
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.data.contract import Split
from edgeopt.recipes.training import Training

__all__ = ["Job", "Trained", "Trainee", "train"]

_CHECKPOINT_EVERY_S = 30.0  # within an epoch; when it is written changes no result


class Trainee(Protocol):
    """A ``torch.nn.Module`` that is trained: flat inputs to a tuple of outputs. It can be pickled."""

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what the recipe freezes from this epoch (from 0) on."""
        ...

    def settle(self) -> None:
        """Bring derived state in line with the parameters; called before every scoring."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, in a form that can be sent to other processes.

    Attributes:
        student: A ``Trainee``.
        reference: The FP32 model: the teacher, and what scores are held against.
        batches: Of the train split, for a single process.
        tune: The tuning split; ``feed`` reads it.
        workspace: Where the checkpoint lies; None: there is none.
    """

    student: Any
    reference: Tape
    loss: Loss
    config: Training
    batches: TrainingBatches
    feed: Feed
    tune: Split
    workspace: Path | None


@dataclass(kw_only=True)
class Trained:
    """What came of it.

    Attributes:
        best: State of the student at its best epoch.
        curve: One row per epoch, the untrained start (epoch 0) first: ``epoch``, ``loss`` (mean over the epoch; None
            for the start), ``learning_rate`` (of its last step), ``score``, and ``best``.
        ended: Why it ended, in words.
        trouble: What broke it off, where something did.
        resumed: The epoch and step that a checkpoint was found for.
    """

    best: dict[str, torch.Tensor]
    curve: list[dict[str, Any]] = field(default_factory=list)
    ended: str = "all epochs were trained"
    trouble: str = ""
    resumed: tuple[int, int] | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch whose state ``best`` is."""
        return _best_row(self.curve)["epoch"] if self.curve else 0


def train(job: Job, progress: ProgressListener) -> Trained:
    """Train ``job.student``, which ends in the state of its best epoch.

    Raises:
        RecipeError: The device or the precision is not there; the loss is no loss; it became NaN in the first epoch.
        DataError: There are fewer training samples than one step takes.
    """
    config = job.config
    if job.batches.size % config.devices and not isinstance(job.feed.specs[0].batch, int):
        raise RecipeError(
            "A batch cannot be shared out evenly.",
            got=f"training.batch_size {job.batches.size} on {config.devices} devices",
            fix="Make batch_size a multiple of devices.",
        )
    size = job.batches.size if isinstance(job.feed.specs[0].batch, int) else job.batches.size // config.devices
    job = replace(job, batches=replace(job.batches, size=size, processes=config.devices))
    if job.batches.steps == 0:
        raise DataError(
            "There are fewer training samples than one step takes.",
            got=f"{len(job.batches.split)} samples, {size * config.devices} per step",
            fix="Give more, or lower training.batch_size.",
        )
    fabric = open_fabric(config)
    if config.devices == 1:
        result: Trained = fabric.launch(_work, job, progress)
    else:
        progress(Progress(stage=f"train in {config.devices} processes", done=0, total=None))
        result = _apart(fabric, job)
    job.student.load_state_dict(result.best)
    job.student.eval()
    return result


def _work(fabric: Any, job: Job, progress: ProgressListener) -> Trained:
    """What each process does; what the first one returns counts."""
    with torch.enable_grad():
        return _Run(fabric, job, progress).run()


def _apart(fabric: Any, job: Job) -> Trained:
    """Train in processes of their own. The result comes in a file: a pipe is read only when they have ended."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-training-") as folder:
        path = Path(folder) / "trained.pt"
        # As part of the function: Fabric would look for modules inside an argument, and refuses frozen dataclasses.
        fabric.launch(partial(_work_apart, job, path))
        return Trained(**torch.load(path, weights_only=True))


def _work_apart(job: Job, path: Path, fabric: Any) -> None:
    """What a process of its own does: its tensors come in memory that all of them share, and each trains a copy."""
    for tensor in (*job.student.parameters(), *job.student.buffers()):
        tensor.data = tensor.data.clone()
    result = _work(fabric, job, ignore_progress)
    if fabric.global_rank == 0:
        torch.save(vars(result), path)


class _Run:
    """One process's share of a training."""

    def __init__(self, fabric: Any, job: Job, progress: ProgressListener) -> None:
        self.fabric, self.job, self.config, self.progress = fabric, job, job.config, progress
        self.student = job.student
        self.reference = job.reference.to(fabric.device).eval()
        self.batches = replace(job.batches, rank=fabric.global_rank)
        self.model, self.optimizer = fabric.setup(self.student, _optimizer(self.student, self.config))
        self.judge = (
            Judge.on(
                self._on_device(self.reference),
                job.feed,
                job.tune,
                len(job.tune),
                classification=job.loss.classification,
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
        for inputs, labels in self._ahead(state):
            rate = learning_rate(self.config, state.epoch * total + state.step, total)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(inputs, labels)
            if not math.isfinite(loss):
                return f"the loss is {loss} in epoch {state.epoch + 1}, step {state.step + 1}"
            state.step, state.loss_sum = state.step + 1, state.loss_sum + loss
            self.progress(
                Progress(stage=self._words(state, loss, rate), done=state.epoch * total + state.step, total=self._total)
            )
            if time.perf_counter() - self.saved > _CHECKPOINT_EVERY_S and state.step < total:
                self._save(state)
        return ""

    def _step(self, inputs: list[torch.Tensor], labels: torch.Tensor | None) -> float:
        """One update; returns the loss, mean over the processes. Nothing is updated where it is no number."""
        inputs = [self.fabric.to_device(tensor) for tensor in inputs]
        labels = None if labels is None else self.fabric.to_device(labels)
        teacher = None
        if self.job.loss.distillation is not None:
            with torch.no_grad():
                teacher = self.reference(*inputs)
        try:
            loss = self.job.loss(self.model(*inputs), labels, teacher)
        except NonFiniteError:
            loss = torch.full((), math.nan, device=self.fabric.device)
        value = float(self.fabric.all_reduce(loss.detach(), reduce_op="mean"))
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.config.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
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
        if _best_row(state.curve) is row:
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
        since = state.epoch - int(_best_row(state.curve)["epoch"])
        if self.config.patience is not None and since >= self.config.patience:
            return f"{since} epochs without a better score on the tuning split"
        limit = self.config.max_minutes
        spent = self.fabric.broadcast(state.spent_s + time.perf_counter() - self.begun)
        return f"the time limit, {limit:g} minutes" if limit is not None and spent > 60 * limit else ""

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
        """``model`` on flat CPU tensors, outputs on the CPU."""
        return lambda inputs: [x.cpu() for x in model(*(self.fabric.to_device(tensor) for tensor in inputs))]

    def _ahead(self, state: Checkpoint) -> Iterator[tuple[list[torch.Tensor], torch.Tensor | None]]:
        return self.batches.epoch(state.epoch, state.step)

    @property
    def _total(self) -> int:
        return self.config.epochs * self.batches.steps

    def _words(self, state: Checkpoint, loss: float, rate: float) -> str:
        last = state.curve[-1]
        metric = f"accuracy {100 * last['accuracy']:.2f} %" if last["accuracy"] is not None else f"{last['value']:.4g}"
        return f"epoch {state.epoch + 1} of {self.config.epochs}, loss {loss:.4g}, rate {rate:.2g}, tuning {metric}"


def _best_row(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The earliest of the rows with the least value."""
    return min(curve, key=lambda row: float(row["value"]))


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
