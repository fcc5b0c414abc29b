"""Post-training quantization, start to end: calibrate, convert, correct biases, export again."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.finish import finish
from edgeopt.compress.prepare import open_session
from edgeopt.compress.sanity import Look, data_warnings
from edgeopt.compress.techniques import fold_norms, quantize_graph
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
        session = open_session(model, config, context)
        data = session.data
        normalized = fold_norms(session.graph)
        look, other = Look(session.feed), None
        if "tune" in data.splits:
            other = Look(replace(session.feed, split=data.splits["tune"]))
            other.fill(session.graph, context.answers)
        made = quantize_graph(session, normalized, look.see)
        doubts = data_warnings(look, other, classification=data.task == "classification")
        layers = tuple(
            replace(layer, reason=f"{layer.reason}; {made.notes[layer.node]}") if layer.node in made.notes else layer
            for layer in session.layers
        )
        session = replace(session, layers=layers)
        return finish(session, made.graph, made.samples, events=(*doubts, *made.events), trials=made.trials)
