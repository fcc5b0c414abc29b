"""What a step will do, in the words of ``edgeopt compile --dry-run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from edgeopt.recipes.schema import StepConfig, step_name, training_of
from edgeopt.recipes.training import FreezeAfter, Training

__all__ = ["float_words", "training_words"]


def float_words(config: StepConfig) -> str:
    """What a float step will do. A step without words of its own is told by its name and its options."""
    written = _WORDS.get(step_name(config), _by_options)
    return written(config)


def training_words(training: Training, batchnorm: FreezeAfter | str | None = None) -> str:
    """A training in one phrase."""
    taught = f"taught by FP32 at {training.distillation.weight:g}" if training.distillation else "no teacher"
    limit = f", at most {training.max_minutes:g} minutes" if training.max_minutes else ""
    live = f"live for {batchnorm.freeze_after} epochs" if isinstance(batchnorm, FreezeAfter) else batchnorm
    norms = f", BatchNorm {live}" if live else ""
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, {training.optimizer} at {training.learning_rate:g}, "
        f"loss {training.loss}, {taught}{norms}{limit}"
    )


def _finetune(config: Any) -> str:
    return f"train the float model ({training_words(config.training, config.batchnorm)})"


def _by_options(config: StepConfig) -> str:
    """``prune (importance l1, macs_ratio 0.5)``: what is set, and is no group of options."""
    options = {
        name: value
        for name, value in config.model_dump(mode="json", exclude={"training", "batchnorm"}).items()
        if _is_told(name, value, config)
    }
    words = [f"{name} {_value_words(value)}" for name, value in options.items()]
    training = training_of(config)
    if training is not None:
        words.append(training_words(training, getattr(config, "batchnorm", None)))
    return step_name(config) + (f" ({', '.join(words)})" if words else "")


def _is_told(name: str, value: Any, config: StepConfig) -> bool:
    if value is None or value in ([], {}) or isinstance(getattr(config, name), BaseModel):
        return False
    return value is not False or type(config).model_fields[name].default is True  # what is switched off is told


def _value_words(value: Any) -> str:
    """``a, b`` of a list, ``{a: 1, b: 2}`` of a table, ``no`` and ``yes`` of a switch."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {one}" for key, one in value.items()) + "}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_WORDS: dict[str, Callable[[Any], str]] = {"finetune": _finetune}
