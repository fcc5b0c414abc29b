"""N:M sparsity by magnitude, as a step. The work itself, which needs torch, is imported on use."""

from __future__ import annotations

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.quantize import quiet_loggers
from edgeopt.core.errors import RecipeError
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize, Recipe, Sparsify
from edgeopt.targets.schema import Target

__all__ = ["SparsifyStep"]


class SparsifyStep:
    """Of every M consecutive input channels' weights the N largest stay, the others are zero from now on.

    The model says so (``TrainedModel.sparse``), and every later step keeps it: training re-applies the masks after each
    of its steps, rounding leaves a zero a zero. The groups lie where TensorRT looks for them: see ``sparse_weights``.
    """

    @staticmethod
    def check(config: Sparsify, recipe: Recipe, target: Target, has_data: bool) -> None:  # noqa: ARG004 (Step's form)
        """Refuse integers: their zeros are chosen before they are.

        Raises:
            RecipeError: Something quantizes before it.
        """
        kinds = [isinstance(step, Quantize) for step in recipe.steps]
        if True in kinds and config in recipe.steps and kinds.index(True) < recipe.steps.index(config):
            raise RecipeError(
                f"Recipe {recipe.name!r} quantizes before it makes weights sparse.",
                got="quantize, sparsify",
                fix="Put sparsify first: it works on the float model.",
            )

    @staticmethod
    def run(model: TrainedModel, config: Sparsify, context: StepContext) -> StepResult:
        """Zero the smallest weights of every group; the graph stays.

        Raises:
            RecipeError: The model came as ONNX; a pattern of ``skip`` matches no layer; no layer can be made sparse.
        """
        if model.program is None:
            raise RecipeError(
                "Sparsity is made in the PyTorch program.",
                got=f"{model.name!r}, given as ONNX",
                fix="Give the model as a torch.export archive, or leave the sparsify step out.",
            )
        with quiet_loggers():
            from edgeopt.compress.sparse_weights import sparsify_program  # noqa: PLC0415  (torch)
        return sparsify_program(model, config, context)
