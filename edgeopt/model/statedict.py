"""A state dict and the factory that makes the module it belongs to: the safest form a model can come in."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgeopt.core.errors import ModelError
from edgeopt.core.events import Event
from edgeopt.model.failures import first_line, user_line

__all__ = ["build_module", "importable_here", "load_state_dict"]

# Where checkpoints keep the weights beside an optimizer's state.
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net")
_SHOWN = 8


def build_module(factory: str, arguments: Mapping[str, str]) -> torch.nn.Module:
    """Call ``package.module:callable``; the current directory is importable.

    Args:
        factory: Where the callable is.
        arguments: Its keyword arguments as text: read as a Python literal (``10``, ``0.5``, ``[1, 2]``, ``True``)
            where it is one, else passed as the text itself.

    Raises:
        ModelError: It cannot be imported, it fails, or it returns something other than a module.
    """
    name, _, attribute = factory.partition(":")
    if not name or not attribute:
        raise ModelError("The factory cannot be read.", got=repr(factory), fix="Write it as package.module:callable.")
    with importable_here():
        try:
            target: Any = importlib.import_module(name)
            for part in attribute.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError) as error:
            raise ModelError(
                f"The factory cannot be imported: {first_line(error)}.",
                got=factory,
                fix="Run edgeopt in the folder that holds the module, or install its package.",
            ) from error
        except Exception as error:
            raise _failed(f"The module of the factory {factory} fails when it is imported", error) from error
        try:
            module = target(**{key: _literal(value) for key, value in arguments.items()})
        except Exception as error:
            raise _failed(f"The factory {factory} fails", error) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError("The factory did not return a torch.nn.Module.", got=f"{type(module).__name__} from {factory}")
    return module


def load_state_dict(path: Path, module: torch.nn.Module) -> tuple[Event, ...]:
    """Load the weights in ``path`` into ``module``, in place; only tensors and plain values are unpickled.

    Raises:
        ModelError: The file holds no state dict, or its keys or shapes are not the module's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"The state dict cannot be read ({type(error).__name__}: {first_line(error)}).",
            got=str(path),
            fix="Save it with torch.save(model.state_dict(), path).",
        ) from error
    weights, key = _weights(content, path)
    _refuse_mismatch(path, weights, module)
    module.load_state_dict(weights)
    if key is None:
        return ()
    return (Event(kind="note", stage="load", message=f"The weights are those under {key!r} in the checkpoint."),)


@contextmanager
def importable_here() -> Iterator[None]:
    """Make the current directory importable, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _failed(what: str, error: Exception) -> ModelError:
    line = user_line(error)
    at = f" at {line}" if line else ""
    return ModelError(
        f"{what}{at}.",
        got=f"{type(error).__name__}: {first_line(error)}",
        fix="Pass its arguments with --factory-arg k=v.",
    )


def _weights(content: object, path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    if _is_state_dict(content):
        return content, None  # type: ignore[return-value]  # _is_state_dict says so
    if isinstance(content, Mapping):
        found = [key for key in _NESTED if _is_state_dict(content.get(key))]
        if len(found) == 1:
            return content[found[0]], found[0]
    keys = ", ".join(map(str, list(content)[:_SHOWN])) if isinstance(content, Mapping) else type(content).__name__
    raise ModelError(
        "The file holds no state dict: names of weights and their tensors.",
        got=f"{path} with {keys}",
        fix="Save it with torch.save(model.state_dict(), path).",
    )


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in value.items())
    )


def _refuse_mismatch(path: Path, weights: Mapping[str, torch.Tensor], module: torch.nn.Module) -> None:
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [
        f"{key} is {list(weights[key].shape)}, the factory's is {list(own[key].shape)}"
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    if not (missing or unexpected or reshaped):
        return
    parts = [("Missing", missing), ("Unexpected", unexpected), ("Of another shape", reshaped)]
    listed = " ".join(f"{what}: {_listed(keys)}." for what, keys in parts if keys)
    fix = "Check --factory and --factory-arg: they must make the module that was saved."
    if missing and sorted(key.removeprefix("module.") for key in unexpected) == sorted(missing):
        fix = "The names begin with 'module.' (DataParallel): save model.module.state_dict() instead."
    raise ModelError(f"The state dict does not match the factory. {listed}", got=str(path), fix=fix)


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
