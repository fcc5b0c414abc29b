"""Feeds calibration samples to a graph, a batch at a time, and finds what makes NaN of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from edgeopt.compress.float_run import FloatRunner
from edgeopt.compress.observers import NonFiniteError
from edgeopt.core.errors import DataError
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Split
from edgeopt.model.trained import TrainedModel

__all__ = ["Feed", "Watch", "calibrate"]

Watch = Callable[[Sequence[torch.Tensor], Any, int], None]
"""Called with the inputs of a batch, its outputs, and how many of its rows are samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The samples that calibration reads, in batches that the program takes.

    Attributes:
        split: The calibration split.
        specs: Of the model's inputs, in order.
        limit: How many samples are read at most.
        size: Samples per batch; for a static program exactly its batch.
        smallest: The fewest samples a batch may have; a shorter last batch is filled up with its last sample.
    """

    split: Split
    specs: tuple[TensorSpec, ...]
    limit: int
    size: int
    smallest: int

    @classmethod
    def of(cls, model: TrainedModel, program: ExportedProgram, split: Split, limit: int, size: int) -> Feed:
        """A feed for ``program``; ``size`` is lowered to what it takes."""
        fixed = [spec.batch for spec in model.inputs if isinstance(spec.batch, int)]
        if fixed:
            return cls(split=split, specs=model.inputs, limit=limit, size=fixed[0], smallest=fixed[0])
        low, high = _batch_bounds(program)
        size = max(min(size, high), low)
        return cls(split=split, specs=model.inputs, limit=limit, size=size, smallest=low)

    @property
    def samples(self) -> int:
        """How many samples one pass reads."""
        return min(self.limit, len(self.split))

    def batches(self) -> Iterator[tuple[list[torch.Tensor], int]]:
        """Flat input tensors, and how many of their rows are samples (the rest repeats the last one).

        Raises:
            DataError: A batch does not fit the model's inputs.
        """
        for batch in self.split.batches(self.size, self.limit):
            yield self.tensors(batch), len(batch.inputs[0]) if batch.inputs else 0

    def tensors(self, batch: Batch) -> list[torch.Tensor]:
        """The flat input tensors of one batch, filled up to what the program takes.

        Raises:
            DataError: It does not fit the model's inputs.
        """
        count = len(batch.inputs[0]) if batch.inputs else 0
        return [torch.from_numpy(self._fit(batch, i, count)) for i in range(len(self.specs))]

    def _fit(self, batch: Batch, position: int, count: int) -> np.ndarray:
        spec = self.specs[position]
        if len(batch.inputs) != len(self.specs):
            raise DataError(
                "The data has another number of inputs than the model.",
                got=f"{len(batch.inputs)} arrays",
                fix=f"The model takes {', '.join(str(s) for s in self.specs)}.",
            )
        array = np.ascontiguousarray(batch.inputs[position])
        if count < self.smallest:
            array = np.concatenate([array, np.repeat(array[-1:], self.smallest - count, axis=0)])
        if not spec.accepts(array):
            raise DataError(
                f"The data does not fit input {spec.name!r}.",
                got=f"{batch.inputs[position].dtype}{list(batch.inputs[position].shape)}",
                fix=f"The model takes {spec}.",
            )
        return array if array.flags.writeable else array.copy()


def calibrate(model: GraphModule, feed: Feed, progress: ProgressListener, watch: Watch | None = None) -> int:
    """Run every sample through a graph with observers; returns how many there were.

    Args:
        watch: Sees each batch as it goes by.

    Raises:
        DataError: An activation or an output is NaN or infinite; the first op that makes it so is named.
    """
    done = 0
    progress(Progress(stage="calibrate", done=0, total=feed.samples))
    runner = FloatRunner(model)
    for inputs, count in feed.batches():
        try:
            outputs = runner.run(*inputs, enable_io_processing=False)
        except NonFiniteError:
            outputs = None
        if outputs is None or not _is_finite(outputs):
            raise _blame(model, feed.specs, inputs, done)
        if watch is not None:
            watch(inputs, outputs, count)
        done += count
        progress(Progress(stage="calibrate", done=done, total=feed.samples))
    return done


def _is_finite(value: Any) -> bool:
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in pytree.tree_leaves(value)
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    )


class _Detective(Interpreter):
    """Remembers the first op that makes a non-finite output of finite inputs."""

    def __init__(self, model: GraphModule) -> None:
        super().__init__(model)
        self.first: Node | None = None

    def run_node(self, n: Node) -> Any:
        """Run one node; observers are passed by."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        result = super().run_node(n)
        if self.first is None and n.op == "call_function" and not _is_finite(result):
            self.first = n
        return result


def _blame(model: GraphModule, specs: Sequence[TensorSpec], inputs: Sequence[torch.Tensor], done: int) -> DataError:
    for spec, value in zip(specs, inputs, strict=True):
        if not _is_finite(value):
            row = int(torch.nonzero(~torch.isfinite(value).flatten(1).all(1))[0])
            return DataError(
                f"The calibration data holds NaN or infinity in input {spec.name!r}.",
                got=f"sample {done + row} of the calibration split",
                fix="Remove or repair the sample.",
            )
    detective = _Detective(model)
    detective.run(*inputs, enable_io_processing=False)
    node = detective.first
    where = "an op that could not be found again"
    if node is not None:
        path = [str(entry[0]) for entry in (node.meta.get("nn_module_stack") or {}).values()][-1:]
        where = f"{node.name!r} ({node.target})" + (f" in module {path[0]!r}" if path and path[0] else "")
    return DataError(
        f"The model makes NaN or infinity of finite calibration data, first in {where}.",
        got=f"samples {done} to {done + len(inputs[0]) - 1} of the calibration split",
        fix="Check the model's weights (NaN?) and that the data is preprocessed as in training.",
    )


def _batch_bounds(program: ExportedProgram) -> tuple[int, int]:
    """The smallest and the largest batch that the program's constraints allow."""
    low, high = 1, 1 << 20
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or node.name not in names or not isinstance(value, torch.Tensor) or not value.ndim:
            continue
        bounds = program.range_constraints.get(getattr(getattr(value.shape[0], "node", None), "expr", None))
        if bounds is not None:
            low = max(low, int(bounds.lower))
            high = min(high, int(bounds.upper)) if bounds.upper < high else high
    return low, high
