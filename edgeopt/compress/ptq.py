"""Post-training quantization, start to end: calibrate, convert, correct biases, export again."""

from __future__ import annotations

import copy
import warnings

import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.bias import correct_biases
from edgeopt.compress.finish import finish
from edgeopt.compress.prepare import channel_axes, open_session, prepare
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize

__all__ = ["quantize_program"]


def quantize_program(model: TrainedModel, config: Quantize, context: StepContext) -> StepResult:
    """Quantize a program; ``QuantizeStep.run`` has checked that there is one, with data and rules.

    Raises:
        RecipeError: A ``skip`` pattern matches no layer, or no layer is left to quantize.
        DataError: The data does not fit the model, or makes it produce NaN or infinity.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # torch's own, while it copies its graphs
        torch.manual_seed(context.seed)
        return _quantize(model, config, context)


def _quantize(model: TrainedModel, config: Quantize, context: StepContext) -> StepResult:
    session = open_session(model, config, context)
    prepared, samples = prepare(session)
    reference = copy.deepcopy(prepared) if config.bias_correction else None
    converted = convert_pt2e(prepared, fold_quantize=False)
    if reference is not None:
        axes = channel_axes(converted, session.layers)
        correct_biases(reference, converted, axes, session.feed, context.progress)
    return finish(session, converted, samples)
