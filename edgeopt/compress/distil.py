"""Distillation of the float model, as a step: training by the original FP32 model, its outputs and its features."""

from __future__ import annotations

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.training_steps import run_float_training
from edgeopt.core.errors import RecipeError
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Distil, Recipe
from edgeopt.targets.schema import Target

__all__ = ["DistilStep"]


class DistilStep:
    """The float model trained on by its own former self, which steps before may have changed beyond its accuracy."""

    @staticmethod
    def check(config: Distil, recipe: Recipe, target: Target, has_data: bool) -> None:  # noqa: ARG004 (Step's form)
        """Refuse training without data.

        Raises:
            RecipeError: There is no data.
        """
        if not has_data:
            raise RecipeError("distil needs data to train on, and there is none.", fix="Give --data.")

    @staticmethod
    def run(model: TrainedModel, config: Distil, context: StepContext) -> StepResult:
        """Train the program's parameters; its graph stays.

        Raises:
            BackendError: Lightning Fabric is not installed.
            RecipeError: Nothing can be trained, or there is nothing to train on; the loss is no loss; a pattern of
                features matches nothing.
            DataError: The data does not fit the model.
        """
        return run_float_training(model, config, context)
