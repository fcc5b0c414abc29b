"""A program with other values in its parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram

__all__ = ["with_state"]


def with_state(program: ExportedProgram, values: Mapping[str, torch.Tensor]) -> ExportedProgram:
    """A copy of ``program`` with the tensors of ``values`` by their names; the others are copied too."""
    state: dict[str, torch.Tensor] = {}
    for name, old in program.state_dict.items():
        value = values.get(name, old).detach().clone()
        is_parameter = isinstance(old, torch.nn.Parameter)
        state[name] = torch.nn.Parameter(value, requires_grad=old.requires_grad) if is_parameter else value
    made = copy.copy(program)  # a deep copy loses how inputs are laid out
    made._state_dict = state  # noqa: SLF001  there is no public way to replace it
    return made
