"""Training of the float model; with a teacher, which is the original FP32 model, it is distillation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.feature_points import Point, match_points
from edgeopt.compress.program_state import with_state
from edgeopt.compress.sparse_weights import student_masks
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.job import Job
from edgeopt.compress.training.loop import train
from edgeopt.compress.training.losses import find_loss
from edgeopt.compress.training.outcome import events_of, section_of
from edgeopt.compress.training.reference import reference_graph
from edgeopt.compress.training.tape import Tape, own_tensors, trained_parameters
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_json
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Distil, Finetune, step_name

__all__ = ["FloatStudent", "finetune_program"]

_TOLD = 8  # names in one event


class FloatStudent(torch.nn.Module):
    """A float graph whose BatchNorms use batch statistics for some epochs; dropout stays off."""

    def __init__(self, tape: Tape, norms_until: int) -> None:
        super().__init__()
        self.tape, self._norms_until = tape, norms_until

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Flat inputs to flat outputs, features behind them."""
        outputs: tuple[torch.Tensor, ...] = self.tape(*inputs)
        return outputs

    def begin_epoch(self, epoch: int) -> None:
        """Freeze BatchNorms whose time is over."""
        self.tape.live_norms = epoch < self._norms_until

    def settle(self) -> None:
        """Nothing is derived from the parameters."""


def finetune_program(model: TrainedModel, config: Finetune, context: StepContext) -> StepResult:
    """Train a program's parameters; ``run_float_training`` has checked that there are a program and splits.

    Raises:
        RecipeError: Nothing can be trained; the loss is no loss; a pattern of features matches nothing.
        DataError: The data does not fit the model.
    """
    program, data = model.program, context.data
    if program is None or data is None:
        raise TypeError("run_float_training passes a program and data")
    name, trained = step_name(config), trained_parameters(program)
    batch, fixed = config.training.batch_size, model.inputs[0].batch
    feed = Feed.of(model, program, data.splits["calibration"], batch, batch)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(context.seed)
        graph = program.module(check_guards=False)
        teacher = reference_graph(model, graph, context, lambda original: original.module(check_guards=False))
        own_tensors(graph, {node.name for node in graph.graph.nodes if str(node.target) in trained})
        points = match_points(config.features, graph, teacher) if isinstance(config, Distil) else ()
        tape = Tape(graph, [point.student for point in points])
        until = 0 if config.batchnorm == "frozen" else config.batchnorm.freeze_after
        job = Job(
            student=FloatStudent(tape, until),
            reference=Tape(teacher, [point.teacher for point in points]),
            loss=dataclasses.replace(
                find_loss(config.training, task=data.task),
                points=len(points),
                feature_weight=config.feature_weight or 0.0 if isinstance(config, Distil) else 0.0,
            ),
            config=config.training,
            batches=TrainingBatches(
                split=data.splits["train"],
                feed=feed,
                size=fixed if isinstance(fixed, int) else batch,
                seed=context.seed,
            ),
            feed=feed,
            tune=data.splits["tune"],
            workspace=context.workspace,
            deadline=context.deadline,
            masks=student_masks(graph, model.sparse, {key: f"tape.{name}" for key, name in tape.state_names.items()}),
        )
        result = train(job, context.progress)
        made = with_state(program, {key: getattr(tape, name) for key, name in tape.state_names.items()})
    return StepResult(
        model=dataclasses.replace(model, program=made, identity=_identity(model, config, context)),
        events=(*events_of(result, name), *_point_events(points)),
        stats={
            "epochs": len(result.curve) - 1,
            "best_epoch": result.best_epoch,
            "ended": result.ended,
            "features": len(points),
        },
        training=(section_of(result, job, name),),
    )


def _point_events(points: Sequence[Point]) -> tuple[Event, ...]:
    if not points:
        return ()
    names = [point.name for point in points]
    told = ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")
    return (Event(kind="note", stage="distil", message=f"Features compared with the teacher's: {told}."),)


def _identity(model: TrainedModel, config: Finetune, context: StepContext) -> str:
    splits = context.data.splits.items() if context.data is not None else ()
    return hash_json(
        {
            "model": model.identity,
            "step": {step_name(config): config.model_dump(mode="json")},
            "data": {name: split.fingerprint for name, split in splits if name != "test"},
            "seed": context.seed,
        }
    )
