"""Which test samples each recovered net gets right: with them two nets are compared sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from scipy import stats

__all__ = ["difference", "right_answers"]

_KEPT = "right.npy"


def right_answers(folder: Path, data: Path) -> np.ndarray:
    """Of a folder with ``fp32.onnx``, bool [test samples]; kept in the folder, as what is there never changes."""
    kept = folder / _KEPT
    if not kept.is_file():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(folder / "fp32.onnx"), options)
        port = session.get_inputs()[0]
        with np.load(data) as arrays:
            x, y = arrays["x"], arrays["y"]
        size = 250 if isinstance(port.shape[0], str) else port.shape[0]
        parts = [x[start : start + size] for start in range(0, len(x), size)]
        scores = np.concatenate([session.run(None, {port.name: part})[0] for part in parts])
        np.save(kept, scores.argmax(1) == y)
    return np.load(kept)


def difference(own: Sequence[np.ndarray], rival: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """How much more accurate edgeopt's nets are, percentage points, with a 95 % interval over the test samples.

    Args:
        own: bool [N], one per seed; ``rival`` likewise, of the same seeds. The seeds' mean is taken per sample, since they
            share the samples: nets of one way differ less between seeds than samples do.
    """
    each = 100 * (np.mean(own, axis=0) - np.mean(rival, axis=0))
    mean = float(each.mean())
    reach = float(stats.t.ppf(0.975, len(each) - 1) * stats.sem(each))
    return mean, mean - reach, mean + reach
