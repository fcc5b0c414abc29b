"""What metrics of classifiers share: predictions and probabilities, read from outputs that may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["are_probabilities", "by_rows", "margins", "predictions", "probabilities"]

_ROWS = 1024
_CLOSE = 1e-3  # float16 rows of a thousand probabilities sum to one within this


def by_rows(outputs: np.ndarray, read: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``read(rows, start)`` over a few rows at a time, put together."""
    starts = range(0, len(outputs), _ROWS)
    return np.concatenate([read(np.asarray(outputs[start : start + _ROWS]), start) for start in starts])


def predictions(outputs: np.ndarray) -> np.ndarray:
    """Class of the highest score, int64 [N]; among equal ones the lowest.

    Args:
        outputs: Scores [N, C].
    """
    return by_rows(outputs, lambda rows, _: np.argmax(rows, axis=1))


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether every row is a distribution already: nothing negative, and a sum of one."""
    for start in range(0, len(outputs), _ROWS):
        rows = np.asarray(outputs[start : start + _ROWS], dtype=np.float64)
        if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > _CLOSE:
            return False
    return True


def probabilities(outputs: np.ndarray, read: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``read`` over rows of probabilities, float64: the outputs as they are where they are such, else their softmax."""
    ready = are_probabilities(outputs)

    def converted(rows: np.ndarray, start: int) -> np.ndarray:
        rows = rows.astype(np.float64)
        return read(rows / rows.sum(axis=1, keepdims=True) if ready else _softmax(rows), start)

    return by_rows(outputs, converted)


def margins(outputs: np.ndarray) -> np.ndarray:
    """How sure each decision is, float32 [N]: the highest probability less the second highest."""

    def between(rows: np.ndarray, _: int) -> np.ndarray:
        best = np.partition(rows, rows.shape[1] - 2, axis=1)
        return (best[:, -1] - best[:, -2]).astype(np.float32)

    return probabilities(outputs, between)


def _softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows - rows.max(axis=1, keepdims=True))
    found: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return found
