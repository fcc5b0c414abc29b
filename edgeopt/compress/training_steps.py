"""The steps that train, and what they refuse before any work. The work itself, which needs torch, is imported on use."""

from __future__ import annotations

from importlib.util import find_spec

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.quantize import QuantizeStep, quiet_loggers
from edgeopt.compress.training.losses import has_loss
from edgeopt.core.errors import BackendError, RecipeError
from edgeopt.core.named import imported
from edgeopt.data.contract import Dataset
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Finetune, Qat, Recipe, StepConfig, step_name, training_of
from edgeopt.targets.schema import Target

__all__ = ["FinetuneStep", "QatStep", "demand_trainable", "run_float_training"]


class QatStep:
    """Weights and activations to int8, trained on the grid that is shipped."""

    @staticmethod
    def check(config: Qat, recipe: Recipe, target: Target, has_data: bool) -> None:
        """Refuse what quantization refuses.

        Raises:
            RecipeError: With what would work instead.
        """
        QuantizeStep.check(config, recipe, target, has_data)

    @staticmethod
    def run(model: TrainedModel, config: Qat, context: StepContext) -> StepResult:
        """Calibrate, train, convert.

        Raises:
            BackendError: Lightning Fabric is not installed.
            RecipeError: Nothing can be trained, or there is nothing to train on; the loss is no loss.
            DataError: The data does not fit the model.
        """
        QuantizeStep.demand(model, context)
        demand_trainable(config, context.data)
        with quiet_loggers():
            from edgeopt.compress.qat import train_quantized  # noqa: PLC0415  (torch)
        return train_quantized(model, config, context)


class FinetuneStep:
    """The float model trained on, before what comes next compresses it."""

    @staticmethod
    def check(config: Finetune, recipe: Recipe, target: Target, has_data: bool) -> None:  # noqa: ARG004 (Step's form)
        """Refuse training without data.

        Raises:
            RecipeError: There is no data.
        """
        if not has_data:
            raise RecipeError("finetune needs data to train on, and there is none.", fix="Give --data.")

    @staticmethod
    def run(model: TrainedModel, config: Finetune, context: StepContext) -> StepResult:
        """Train the program's parameters; its graph stays.

        Raises:
            BackendError: Lightning Fabric is not installed.
            RecipeError: Nothing can be trained, or there is nothing to train on; the loss is no loss.
            DataError: The data does not fit the model.
        """
        return run_float_training(model, config, context)


def run_float_training(model: TrainedModel, config: Finetune, context: StepContext) -> StepResult:
    """What finetune and distil do; a ``Distil`` compares features too.

    Raises:
        BackendError: Lightning Fabric is not installed.
        RecipeError: Nothing can be trained, or there is nothing to train on; the loss is no loss; a pattern of features
            matches nothing.
        DataError: The data does not fit the model.
    """
    if model.program is None:
        raise RecipeError(
            "Training needs the PyTorch program.",
            got=f"{model.name!r}, given as ONNX",
            fix=f"Give the model as a torch.export archive, or leave the {step_name(config)} step out.",
        )
    demand_trainable(config, context.data)
    with quiet_loggers():
        from edgeopt.compress.finetune import finetune_program  # noqa: PLC0415  (torch)
    return finetune_program(model, config, context)


def demand_trainable(config: StepConfig, data: Dataset | None) -> None:
    """Refuse a training that cannot begin: told from the recipe and the splits alone, before any work.

    A step that does not train asks for nothing.

    Raises:
        BackendError: Lightning Fabric is not installed.
        RecipeError: There is no train or tuning split; or neither labels, nor a teacher, nor a loss; the loss cannot
            be imported.
    """
    name, training = step_name(config), training_of(config)
    if training is None:
        return
    if find_spec("lightning_fabric") is None:
        raise BackendError(
            f"The step {name} needs Lightning Fabric, which is not installed.",
            got="no module lightning_fabric",
            fix="Install it with: pip install 'edgeopt[train]'.",
        )
    for split, why in (("train", "to train on"), ("tune", "to choose the best epoch on")):
        if data is None or not len(data.splits.get(split, ())):  # type: ignore[call-overload]
            got = "no data" if data is None else f"data {data.name!r} with {', '.join(data.splits)}"
            raise RecipeError(
                f"The step {name} needs a {split} split {why}, and there is none.",
                got=got,
                fix="Add training data (in an .npz: x_train and y_train; in a manifest: splits.train), "
                "or use a recipe without training, such as 'int8-ptq'.",
            )
    if training.loss != "task":
        imported(training.loss)
    if data is not None and training.loss == "task" and not training.distillation and not has_loss(data.task):
        reason = (
            "the data has no labels"
            if data.task == "unlabelled"
            else f"the task {data.task} has no loss of its own here"
        )
        raise RecipeError(
            f"There is nothing to train on: {reason}, and the recipe has neither a teacher nor a loss.",
            got=f"step {name} with training.loss: task, training.distillation: null",
            fix="Give labels, set training.distillation, or name a loss (package.module:callable).",
        )
