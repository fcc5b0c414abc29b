"""Opens Lightning Fabric on the devices that a recipe asks for, or says why that cannot be."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from edgeopt.core.errors import RecipeError
from edgeopt.recipes.training import Training

__all__ = ["open_fabric"]


def open_fabric(config: Training) -> Any:
    """A Fabric that is not launched yet.

    Raises:
        RecipeError: The machine has no such device, too few of them, or none of that precision.
    """
    _demand_device(config)
    from lightning_fabric import Fabric  # noqa: PLC0415  an extra; QatStep says which where it is missing
    from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415

    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    strategy: Any = "auto"
    if config.devices > 1:
        # A branch that no sample of a batch takes leaves its parameters without gradients.
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about devices that were not asked for
        return Fabric(
            accelerator=config.accelerator, devices=config.devices, strategy=strategy, precision=config.precision
        )


def _demand_device(config: Training) -> None:
    if config.accelerator == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if there < config.devices:
            raise RecipeError(
                "There are not so many GPUs here.",
                got=f"training.accelerator: cuda, training.devices: {config.devices}, of which {there} are here",
                fix="Set training.accelerator=cpu, or fewer devices.",
            )
        lacks = config.precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Fabric would quietly take bfloat16 for float16 on a CPU, and emulate bfloat16 where there are no kernels.
        lacks = config.precision == "16-mixed" or (config.precision == "bf16-mixed" and not _cpu_has_bf16())
    if lacks:
        raise RecipeError(
            f"The {config.accelerator} here has no {config.precision} for training.",
            got=f"training.precision: {config.precision}",
            fix="Set training.precision=32-true.",
        )


def _cpu_has_bf16() -> bool:
    able = torch.cpu.get_capabilities()
    return any(bool(able.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
