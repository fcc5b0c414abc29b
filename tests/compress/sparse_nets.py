"""Sparsified nets, distillation of a few steps, and what of a pattern is left in a program."""

from __future__ import annotations

from typing import Any

import torch
from compress_nets import make_context
from training_nets import TRAINING, net_of, training_data

from edgeopt.compress.base import StepResult
from edgeopt.compress.registry import STEPS
from edgeopt.core.sparsity import Pattern, held_share
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Distil, Sparsify

TWO_OF_FOUR = Pattern(2, 4)


def sparsified(name: str, pattern: str = "2:4", **options: Any) -> tuple[TrainedModel, StepResult, Any]:
    """The net as it came, what sparsify made of it, and a context whose original it is."""
    model, net, shape = net_of(name)
    context = make_context(training_data(net, shape), original=model)
    result = STEPS["sparsify"].run(model, Sparsify.model_validate({"pattern": pattern, **options}), context)
    return model, result, context


def make_distil(**options: Any) -> Distil:
    training = TRAINING | options.pop("training", {})
    return Distil.model_validate({"batchnorm": "frozen", **options, "training": training})


def shares(model: TrainedModel, pattern: Pattern = TWO_OF_FOUR) -> dict[str, float]:
    """Of each weight with two axes or more that groups fit into: the share that holds the pattern along axis 1."""
    program = model.program
    tensors = {**program.state_dict, **{k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)}}
    return {
        name: held_share(value.detach().numpy(), pattern, 1)
        for name, value in tensors.items()
        if value.ndim > 1 and value.shape[1] % pattern.group == 0
    }
