"""The runner that computes nothing: what is timed with it is the harness itself.

Its entry file is JSON: ``{"inputs": {name: [dtype, shape]}, "outputs": {…}}``. Outputs are zeros; a text as first
dimension takes the batch of the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["NullRunner", "open_runner"]


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> NullRunner:  # noqa: ARG001
    """Read the entry file; options and threads mean nothing here."""
    return NullRunner(json.loads(Path(path).read_text(encoding="utf-8")))


class NullRunner:
    """Zeros of the right shapes."""

    version = "0"

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.inputs: Mapping[str, Any] = description["inputs"]
        self.outputs: Mapping[str, Any] = description["outputs"]

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros, one array per output."""
        batch = len(next(iter(inputs.values())))
        return {
            name: np.zeros([batch if isinstance(n, str) else n for n in shape], dtype)
            for name, (dtype, shape) in self.outputs.items()
        }

    def __enter__(self) -> NullRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to release."""
