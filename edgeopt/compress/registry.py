"""The steps by their recipe names."""

from __future__ import annotations

from edgeopt.compress.base import Step
from edgeopt.core.registry import Registry

__all__ = ["STEPS"]

STEPS: Registry[Step] = Registry(
    "step",
    {
        "quantize": "edgeopt.compress.quantize:QuantizeStep",
        "qat": "edgeopt.compress.training_steps:QatStep",
        "prune": "edgeopt.compress.prune:PruneStep",
        "finetune": "edgeopt.compress.training_steps:FinetuneStep",
        "distil": "edgeopt.compress.distil:DistilStep",
        "sparsify": "edgeopt.compress.sparsify:SparsifyStep",
    },
    "edgeopt.steps",
)
