"""A float step for tests alone: it keeps the first half of a hidden layer, and computes something else from then on."""

from __future__ import annotations

import dataclasses

import torch
from pydantic import BaseModel, ConfigDict

from edgeopt.compress.base import StepResult
from edgeopt.compress.registry import STEPS as RUNNERS
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event
from edgeopt.recipes import schema

RUNS: list[str | None] = []  # one entry per time that the step did its work: the identity of the original it was given


class Narrow(BaseModel):
    """How many hidden units stay."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    keep: int = 8


class NarrowStep:
    """Works on Sequential(Linear, ReLU, Linear)."""

    @staticmethod
    def check(config, recipe, target, has_data):
        """Refuse to leave nothing."""
        if config.keep < 1:
            raise RecipeError("Nothing would be left.", got=f"keep: {config.keep}")

    @staticmethod
    def run(model, config, context):
        """A new program with ``keep`` hidden units."""
        RUNS.append(context.original.identity if context.original else None)
        weights = model.program.state_dict
        first, last = weights["0.weight"][: config.keep], weights["2.weight"][:, : config.keep]
        net = torch.nn.Sequential(
            torch.nn.Linear(first.shape[1], config.keep), torch.nn.ReLU(), torch.nn.Linear(config.keep, last.shape[0])
        ).eval()
        values = {"0.weight": first, "0.bias": weights["0.bias"][: config.keep], "2.weight": last}
        net.load_state_dict(values | {"2.bias": weights["2.bias"]})
        example = torch.zeros(2, first.shape[1])
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        event = Event(kind="note", stage="narrow", message=f"{config.keep} hidden units are left.")
        return StepResult(model=dataclasses.replace(model, program=program), events=(event,))


def register(patch) -> None:
    """Make ``narrow`` a step; the union that recipes are parsed by does not know it, so it is put in by ``model_copy``."""
    patch.setitem(schema.STEPS, "narrow", Narrow)
    patch.setitem(schema.FLOAT_STEPS, "narrow", "narrowed")
    patch.setitem(RUNNERS._builtin, "narrow", "narrow_step:NarrowStep")
