"""What a caller asks of ``compile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeopt.core.spec import TensorSpec
from edgeopt.devices.base import Device

__all__ = ["NUMERICS_SAMPLES", "CompileOptions"]

NUMERICS_SAMPLES = 64
"""Of the test split, on an emulated CPU: 60 to 570 times slower than the one that emulates it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Every argument of ``compile``, as given.

    Attributes:
        model: A model file, an ``nn.Module`` or an ``ExportedProgram``.
        target: A target's name, alias or YAML file.
        data: A manifest, ``.npz``, folder or ``package.module:callable``; None: nothing is calibrated or judged.
        recipe: A recipe's name or file; None: the target's default.
        overrides: ``steps.quantize.observer=histogram`` and the like.
        inputs: Input specs, where the model does not carry them.
        factory: ``package.module:callable`` that makes the module a state dict belongs to.
        factory_args: Its keyword arguments, as text.
        trust_model: Load files that can execute code.
        output: The bundle's folder; None: ``dist/<model>-<target>``.
        seed: Of every random choice.
        use_cache: Reuse the results of earlier runs, and keep this one's.
        max_minutes: Of the whole run: when it is over, a ladder yields the best so far, and training ends early.
        device: Where the measured engines run: a name or URL, or a device that is open; None: the target's own.
        numerics: Devices whose outputs what is shipped is compared with this machine's, e.g. ``qemu:cortex-a53``.
        numerics_samples: How many of the test split are run on each.
        command: What the user typed, for the manifest.
    """

    model: Any
    target: str
    data: Any = None
    recipe: str | Path | None = None
    overrides: Sequence[str] = ()
    inputs: Sequence[TensorSpec] = ()
    factory: str | None = None
    factory_args: Mapping[str, str] = field(default_factory=dict)
    trust_model: bool = False
    output: Path | None = None
    seed: int = 0
    use_cache: bool = True
    max_minutes: float | None = None
    device: str | Device | None = None
    numerics: Sequence[str] = ()
    numerics_samples: int = NUMERICS_SAMPLES
    command: str = "edgeopt.compile"

    def destination(self, model_name: str, target_name: str) -> Path:
        """Where the bundle goes."""
        return Path(self.output) if self.output else Path("dist") / f"{model_name}-{target_name}"
