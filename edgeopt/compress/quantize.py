"""Post-training quantization to int8, as a step. The work itself, which needs torch, is imported on use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.core.errors import RecipeError
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Convert, Quantize, Recipe
from edgeopt.targets.schema import Target

__all__ = ["QuantizeStep", "quiet_loggers"]


class QuantizeStep:
    """Weights and activations to int8, with ranges seen on calibration data.

    Stateless: the class itself is a ``Step``, and so is an instance.
    """

    @staticmethod
    def check(config: Quantize, recipe: Recipe, target: Target, has_data: bool) -> None:  # noqa: ARG004 (Step's form)
        """Refuse int8 where the target has none, where there is no data, or where the steps' order rules it out.

        Raises:
            RecipeError: With what would work instead.
        """
        steps = [step for step in recipe.steps if isinstance(step, Quantize)]
        if len(steps) > 1:
            raise RecipeError(
                f"Recipe {recipe.name!r} quantizes more than once.",
                got=f"{len(steps)} quantize steps",
                fix="Keep one: its ranges are calibrated on the float model.",
            )
        kinds = [type(step) for step in recipe.steps]
        if Convert in kinds and Quantize in kinds and kinds.index(Convert) < kinds.index(Quantize):
            raise RecipeError(
                f"Recipe {recipe.name!r} converts the graph before it quantizes.",
                got="convert, quantize",
                fix="Put quantize first: it works on the float32 torch model, convert on the exported graph.",
            )
        if target.quantization is None or "int8" not in target.precisions:
            _refuse_int8(target)
        if not has_data:
            raise RecipeError(
                f"int8 for target {target.name!r} needs data to calibrate on, and there is none.",
                got=f"recipe {recipe.name!r}, no data",
                fix=f"Give --data, or use recipe {target.float_recipe!r}. Random tensors are no calibration data.",
            )

    @staticmethod
    def run(model: TrainedModel, config: Quantize, context: StepContext) -> StepResult:
        """Calibrate and quantize; see ``StepResult`` for what comes back.

        Raises:
            RecipeError: The model came as ONNX; a ``skip`` pattern matches nothing; there is no calibration split.
            DataError: The calibration data does not fit the model, or makes it produce NaN or infinity.
        """
        QuantizeStep.demand(model, context)
        with quiet_loggers():
            from edgeopt.compress.ptq import quantize_program  # noqa: PLC0415  (torch)
        return quantize_program(model, config, context)

    @staticmethod
    def demand(model: TrainedModel, context: StepContext) -> None:
        """Refuse a model, a target or data that no quantization can work with.

        Raises:
            RecipeError: With what would work instead.
        """
        if model.program is None:
            raise RecipeError(
                "Quantization is a torch-level step: it needs the PyTorch program.",
                got=f"{model.name!r}, given as ONNX",
                fix="Give the model as a torch.export archive, or leave the quantize step out.",
            )
        if context.target.quantization is None:
            _refuse_int8(context.target)
        if context.data is None or not len(context.data.splits.get("calibration", ())):
            raise RecipeError(
                "int8 needs data to calibrate on.",
                got="no data" if context.data is None else f"data {context.data.name!r} without a calibration split",
                fix=f"Give data with a calibration split, or use recipe {context.target.float_recipe!r}.",
            )


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Hold back warnings: torchao reports each CUDA library that it cannot load on a CPU build."""
    loggers = ("torchao", "torch.utils._pytree")
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _refuse_int8(target: Target) -> None:
    offered = ", ".join(target.precisions) or "none"
    with_int8 = [runtime.name for runtime in target.runtimes if "int8" in runtime.precisions]
    why = (
        f"its runtimes offer {offered}"
        if not with_int8
        else f"{', '.join(with_int8)} offers int8, but the target's file has no quantization rules"
    )
    raise RecipeError(
        f"Target {target.name!r} has no int8.",
        got=f"precision int8; {why}",
        fix=f"Use recipe {target.float_recipe!r}, or a target with int8.",
    )
