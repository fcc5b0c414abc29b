"""Engines that are compiled for one batch: a larger one is run in parts, one after another.

Standard library and NumPy only, Python 3.8: these files travel to devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .contract import BatchError, Ports, check_inputs

__all__ = ["FixedBatch", "read_ports"]


def read_ports(listed: Sequence[Mapping[str, Any]]) -> Ports:
    """Ports from an engine's options: ``[{"name": …, "dtype": …, "shape": […]}, …]``."""
    return {str(one["name"]): (str(one["dtype"]), [int(dim) for dim in one["shape"]]) for one in listed}


class FixedBatch:
    """Inputs and outputs of an engine whose sizes are fixed.

    Args:
        options: ``inputs`` and ``outputs`` (see ``read_ports``); ``dynamic_batch``: the inputs whose first dimension was
            dynamic; ``rows``: whether all outputs' was too, so that a batch can be run in parts.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._inputs = read_ports(options["inputs"])
        self._outputs = read_ports(options["outputs"])
        self._moving = [str(name) for name in options.get("dynamic_batch", [])] if options.get("rows") else []
        self._compiled = self._inputs[self._moving[0]][1][0] if self._moving else None
        self.inputs: Ports = dict(self._inputs)
        self.outputs: Ports = dict(self._outputs)
        self._parts = 1

    def resize(self, batch: int) -> None:
        """Run at another batch from now on.

        Raises:
            BatchError: The graph's own batch was fixed, or the batch is no multiple of the compiled one.
        """
        sizes = {shape[0] for _, shape in self.inputs.values() if shape}
        if sizes == {batch}:
            return
        if self._compiled is None:
            raise BatchError(f"The graph has a fixed batch; it cannot run at {batch}.")
        if batch < 1 or batch % int(self._compiled):
            raise BatchError(f"The engine is compiled for a batch of {self._compiled}; {batch} is no multiple of it.")
        self._parts = batch // int(self._compiled)
        self.inputs = {
            name: (dtype, [batch, *shape[1:]] if name in self._moving else shape)
            for name, (dtype, shape) in self._inputs.items()
        }
        self.outputs = {name: (dtype, [batch, *shape[1:]]) for name, (dtype, shape) in self._outputs.items()}

    def run(
        self, inputs: Mapping[str, np.ndarray], infer: Callable[[list[np.ndarray]], list[np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Check the inputs, run, and name the outputs.

        Args:
            infer: One array per input in the engine's order, C-contiguous and of the compiled sizes → one per output,
                which are the caller's own.

        Raises:
            RunnerError: The inputs are not the engine's.
        """
        check_inputs(inputs, self.inputs)
        arrays = {name: np.require(inputs[name], requirements="C") for name in self._inputs}
        if self._parts == 1:
            return dict(zip(self._outputs, infer(list(arrays.values()))))
        size = int(self._compiled or 1)
        made = []
        for start in range(0, size * self._parts, size):
            part = [a[start : start + size] if name in self._moving else a for name, a in arrays.items()]
            made.append(infer(part))
        return {name: np.concatenate([one[index] for one in made]) for index, name in enumerate(self._outputs)}
