"""A pickled `nn.Module`: code that runs when it is read, so only for who trusts the file."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.model.failures import first_line
from edgeopt.model.pickles import torch_save_globals
from edgeopt.model.statedict import importable_here

__all__ = ["load_pickled_module"]

_SHOWN = 12


def load_pickled_module(path: Path, *, trust: bool) -> torch.nn.Module:
    """Unpickle a whole module; the current directory is importable.

    Raises:
        UnsafeModelError: Without ``trust``; lists what the file would import. Nothing is executed.
        ModelError: It cannot be unpickled here, or is no module.
    """
    if not trust:
        raise _refusal(path)
    with importable_here():
        try:
            module = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise ModelError(
                f"The pickled module cannot be read ({type(error).__name__}: {first_line(error)}).",
                got=str(path),
                fix="It needs the classes it was saved with: run edgeopt where they can be imported (a class from a "
                "script is looked for in __main__), or save a state dict and pass --factory.",
            ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            "The file holds no torch.nn.Module.",
            got=f"{type(module).__name__} in {path}",
            fix="Save the module itself, or its state dict (then pass --factory).",
        )
    return module


def _refusal(path: Path) -> UnsafeModelError:
    try:
        names = sorted(torch_save_globals(path.read_bytes()))
    except ValueError as error:
        names = [f"(unreadable: {error})"]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return UnsafeModelError(
        f"{path.name} is a pickle of Python objects: reading it runs code. It would import "
        f"{', '.join(names[:_SHOWN])}{more}.",
        fix="Nothing was loaded. Pass --trust-model (trust=True in Python) if you made it yourself or trust who did; "
        "else save model.state_dict() and pass --factory, or use torch.export.save.",
    )
