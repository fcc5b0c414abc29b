"""The one training loop, on Lightning Fabric: any trainee, any loss, one process or several, stopped and resumed at will.

A run that was killed and started again ends in the same weights, bit for bit: the order of the data and the learning
rate are functions of the step, and the rest is in the checkpoint.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from edgeopt.compress.training.device import open_fabric
from edgeopt.compress.training.job import Job, Trained
from edgeopt.compress.training.run import Run
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress

__all__ = ["train"]


def train(job: Job, progress: ProgressListener) -> Trained:
    """Train ``job.student``, which ends in the state of its best epoch.

    Raises:
        RecipeError: The device or the precision is not there; the loss is no loss; it became NaN in the first epoch.
        DataError: There are fewer training samples than one step takes.
    """
    config = job.config
    if job.batches.size % config.devices and not isinstance(job.feed.specs[0].batch, int):
        raise RecipeError(
            "A batch cannot be shared out evenly.",
            got=f"training.batch_size {job.batches.size} on {config.devices} devices",
            fix="Make batch_size a multiple of devices.",
        )
    size = job.batches.size if isinstance(job.feed.specs[0].batch, int) else job.batches.size // config.devices
    job = replace(job, batches=replace(job.batches, size=size, processes=config.devices))
    if job.batches.steps == 0:
        raise DataError(
            "There are fewer training samples than one step takes.",
            got=f"{len(job.batches.split)} samples, {size * config.devices} per step",
            fix="Give more, or lower training.batch_size.",
        )
    fabric = open_fabric(config)
    if config.devices == 1:
        result: Trained = fabric.launch(_work, job, progress)
    else:
        progress(Progress(stage=f"train in {config.devices} processes", done=0, total=None))
        result = _apart(fabric, job)
    job.student.load_state_dict(result.best)
    job.student.eval()
    return result


def _work(fabric: Any, job: Job, progress: ProgressListener) -> Trained:
    """What each process does; what the first one returns counts."""
    with torch.enable_grad():
        return Run(fabric, job, progress).run()


def _apart(fabric: Any, job: Job) -> Trained:
    """Train in processes of their own. The result comes in a file: a pipe is read only when they have ended."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-training-") as folder:
        path = Path(folder) / "trained.pt"
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # advice about options that were set on purpose
        # As part of the function: Fabric would look for modules inside an argument, and refuses frozen dataclasses.
        fabric.launch(partial(_work_apart, job, path))
        return Trained(**torch.load(path, weights_only=True))


def _work_apart(job: Job, path: Path, fabric: Any) -> None:
    """What a process of its own does: its tensors come in memory that all of them share, and each trains a copy."""
    for tensor in (*job.student.parameters(), *job.student.buffers()):
        tensor.data = tensor.data.clone()
    result = _work(fabric, job, ignore_progress)
    if fabric.global_rank == 0:
        torch.save(vars(result), path)
