"""OpenVINO with several inferences at once: what its throughput mode is for.

The model stays compiled at its own batch; a larger batch is cut into pieces that run on the streams side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["StreamPool"]


class StreamPool:
    """As many requests as there are streams, fed in turns.

    Args:
        requests: One per stream, of one compiled model; ``size``: its batch.
        tensor: Makes OpenVINO's tensor of an array, sharing its memory.
        names: The inputs in the model's order; ``split``: those whose first dimension is the batch.
    """

    def __init__(self, requests: list[Any], tensor: Any, size: int, names: list[str], split: list[str]) -> None:
        self._requests, self._tensor, self._size = requests, tensor, size
        self._names, self._split = names, frozenset(split)

    def infer(self, inputs: Mapping[str, np.ndarray], count: int, outputs: list[str]) -> dict[str, np.ndarray]:
        """Run ``count`` samples, a multiple of the compiled batch.

        Returns:
            One array per name in ``outputs``, the pieces put together along the first dimension.
        """
        arrays = {name: np.require(inputs[name], requirements="C") for name in self._names}
        pieces: list[Any] = []
        waiting: list[Any] = []  # started, oldest first
        try:
            for start in range(0, count, self._size):
                request = self._requests[len(pieces) % len(self._requests)]
                if len(pieces) >= len(self._requests):
                    waiting.remove(request)
                    request.wait()
                    pieces[len(pieces) - len(self._requests)] = self._results(request)
                self._feed(request, arrays, start)
                request.start_async()
                waiting.append(request)
                pieces.append(None)
        finally:
            first = len(pieces) - len(waiting)
            for index, request in enumerate(waiting):
                request.wait()
                pieces[first + index] = self._results(request)
        return {name: np.concatenate([piece[i] for piece in pieces]) for i, name in enumerate(outputs)}

    def _feed(self, request: Any, arrays: Mapping[str, np.ndarray], start: int) -> None:
        for index, name in enumerate(self._names):
            array = arrays[name]
            # The tensor shares the array's memory; ``arrays`` outlives the run.
            piece = array[start : start + self._size] if name in self._split else array
            request.set_input_tensor(index, self._tensor(piece))

    @staticmethod
    def _results(request: Any) -> list[np.ndarray]:
        return [np.array(port.data) for port in request.output_tensors]
