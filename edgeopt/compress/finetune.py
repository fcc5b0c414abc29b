"""Training of the float model; with a teacher, which is the model as it came, it is distillation."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch.export import ExportedProgram

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.job import Job
from edgeopt.compress.training.loop import train
from edgeopt.compress.training.losses import find_loss
from edgeopt.compress.training.outcome import events_of, section_of
from edgeopt.compress.training.tape import Tape, own_tensors, trained_parameters
from edgeopt.core.fingerprint import hash_json
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Finetune

__all__ = ["FloatStudent", "finetune_program"]


class FloatStudent(torch.nn.Module):
    """A float graph whose BatchNorms use batch statistics for some epochs; dropout stays off."""

    def __init__(self, tape: Tape, norms_until: int) -> None:
        super().__init__()
        self.tape, self._norms_until = tape, norms_until

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Flat inputs to flat outputs."""
        outputs: tuple[torch.Tensor, ...] = self.tape(*inputs)
        return outputs

    def begin_epoch(self, epoch: int) -> None:
        """Freeze BatchNorms whose time is over."""
        self.tape.live_norms = epoch < self._norms_until

    def settle(self) -> None:
        """Nothing is derived from the parameters."""


def finetune_program(model: TrainedModel, config: Finetune, context: StepContext) -> StepResult:
    """Train a program's parameters; ``FinetuneStep.run`` has checked that there are a program and splits.

    Raises:
        RecipeError: Nothing can be trained; the loss is no loss.
        DataError: The data does not fit the model.
    """
    program, data = model.program, context.data
    if program is None or data is None:
        raise TypeError("FinetuneStep.run passes a program and data")
    trained = trained_parameters(program)
    batch, fixed = config.training.batch_size, model.inputs[0].batch
    feed = Feed.of(model, program, data.splits["calibration"], batch, batch)
    classification = data.task == "classification"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(context.seed)
        graph = program.module(check_guards=False)
        reference = Tape(copy.deepcopy(graph))
        own_tensors(graph, {node.name for node in graph.graph.nodes if str(node.target) in trained})
        tape = Tape(graph)
        until = 0 if config.batchnorm == "frozen" else config.batchnorm.freeze_after
        job = Job(
            student=FloatStudent(tape, until),
            reference=reference,
            loss=find_loss(config.training, classification=classification, labelled=classification),
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
        )
        result = train(job, context.progress)
        made = _with_state(program, tape)
    return StepResult(
        model=dataclasses.replace(model, program=made, identity=_identity(model, config, context)),
        events=tuple(events_of(result, "finetune")),
        stats={"epochs": len(result.curve) - 1, "best_epoch": result.best_epoch, "ended": result.ended},
        training=(section_of(result, job, "finetune"),),
    )


def _with_state(program: ExportedProgram, tape: Tape) -> ExportedProgram:
    """A copy of ``program`` with the tensors of ``tape``."""
    state: dict[str, torch.Tensor] = {}
    for name, old in program.state_dict.items():
        value = getattr(tape, tape.state_names[name]).detach() if name in tape.state_names else old.detach()
        value = value.clone()
        is_parameter = isinstance(old, torch.nn.Parameter)
        state[name] = torch.nn.Parameter(value, requires_grad=old.requires_grad) if is_parameter else value
    made = copy.copy(program)  # a deep copy loses how inputs are laid out
    made._state_dict = state  # noqa: SLF001  there is no public way to replace it
    return made


def _identity(model: TrainedModel, config: Finetune, context: StepContext) -> str:
    splits = context.data.splits.items() if context.data is not None else ()
    return hash_json(
        {
            "model": model.identity,
            "step": {"finetune": config.model_dump(mode="json")},
            "data": {name: split.fingerprint for name, split in splits if name != "test"},
            "seed": context.seed,
        }
    )
