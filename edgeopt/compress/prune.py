"""Structured pruning, as a step. The work itself, which needs torch, is imported on use."""

from __future__ import annotations

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.quantize import quiet_loggers
from edgeopt.compress.training_steps import demand_trainable
from edgeopt.core.errors import RecipeError
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Finetune, Prune, Quantize, Recipe
from edgeopt.targets.schema import Target

__all__ = ["PruneStep", "between_rounds"]


class PruneStep:
    """Whole channels, heads and hidden units go; see ``recipes.pruning.Prune``."""

    @staticmethod
    def check(config: Prune, recipe: Recipe, target: Target, has_data: bool) -> None:  # noqa: ARG004 (Step's form)
        """Refuse what needs data without data, and pruning what is quantized already.

        Raises:
            RecipeError: With what would work instead.
        """
        kinds = [isinstance(step, Quantize) for step in recipe.steps]
        if True in kinds and any(isinstance(step, Prune) for step in recipe.steps[kinds.index(True) :]):
            raise RecipeError(
                f"Recipe {recipe.name!r} prunes after it quantizes.",
                got="quantize, prune",
                fix="Put prune first: it works on the float model.",
            )
        if config.importance == "taylor" and not has_data:
            raise RecipeError(
                "The importance 'taylor' needs data, and there is none.",
                got="steps.prune.importance: taylor",
                fix="Give --data, or set steps.prune.importance=l2.",
            )
        if config.training is not None and not has_data:
            raise RecipeError(
                "Pruning in rounds needs data to train on between them, and there is none.",
                got=f"steps.prune.rounds: {config.rounds}",
                fix="Give --data, or set steps.prune.rounds=1 and training=null.",
            )

    @staticmethod
    def run(model: TrainedModel, config: Prune, context: StepContext) -> StepResult:
        """Choose units and cut them out.

        Raises:
            RecipeError: The model came as ONNX; a pattern matches nothing; nothing can be pruned, or not so much; a
                training between rounds has nothing to train on.
            DataError: The data does not fit the model.
        """
        if model.program is None:
            raise RecipeError(
                "Pruning needs the PyTorch program.",
                got=f"{model.name!r}, given as ONNX",
                fix="Give the model as a torch.export archive, or leave the prune step out.",
            )
        if config.latency_ratio is not None:
            raise RecipeError(
                "A latency_ratio becomes widths by a search on the device, which only edgeopt compile does.",
                got=f"steps.prune.latency_ratio: {config.latency_ratio:g}",
                fix="Give ratio, macs_ratio or widths.",
            )
        if (training := between_rounds(config)) is not None:
            demand_trainable(training, context.data)
        with quiet_loggers():
            from edgeopt.compress.pruning.run import prune_program  # noqa: PLC0415  (torch)
        return prune_program(model, config, context)


def between_rounds(config: Prune) -> Finetune | None:
    """The training between rounds, as the step that it is; None where there is one round."""
    if config.training is None:
        return None
    return Finetune(batchnorm=config.batchnorm, training=config.training)
