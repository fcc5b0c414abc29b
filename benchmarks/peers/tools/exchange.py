"""What a peer's script is told, and what it tells: files in, one file and one JSON object out.

Runs in the peer's environment: NumPy and the standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

__all__ = ["Job", "serve"]


@dataclass(kw_only=True)
class Job:
    """One quantization.

    Attributes:
        model: The FP32 ONNX file, dynamic batch; only to be read.
        samples: float32 [N, …] by input name; all of them are to be used.
        out: The file to write.
        seconds: Spent inside ``timing``.
    """

    model: Path
    samples: Mapping[str, np.ndarray]
    out: Path
    seconds: float | None = None

    def __len__(self) -> int:
        return len(next(iter(self.samples.values())))

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        """The samples one by one, each [1, …] by input name."""
        for index in range(len(self)):
            yield {name: array[index : index + 1] for name, array in self.samples.items()}

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Around the peer's own call: reading the model and writing the result are outside."""
        begun = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - begun


def serve(variants: Mapping[str, Callable[[Job], None]], packages: Sequence[str]) -> None:
    """Do the one job of the command line, and write its report.

    Args:
        variants: A way to quantize, by the name that the command line gives.
        packages: Whose versions the report tells.
    """
    parser = argparse.ArgumentParser()
    for name in ("--model", "--calibration", "--out", "--report"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--variant", choices=list(variants), required=True)
    given = parser.parse_args()
    with np.load(given.calibration, allow_pickle=False) as arrays:
        job = Job(model=given.model, samples={name: arrays[name] for name in arrays.files}, out=given.out)
    error = None
    try:
        variants[given.variant](job)
        if not given.out.is_file():
            error = "it ended without an error and wrote no model"
    except BaseException as problem:  # noqa: BLE001 - whatever a peer raises belongs into its row
        traceback.print_exc()
        error = f"{type(problem).__name__}: {str(problem).strip() or 'no message'}"
    report = {
        "seconds": job.seconds,
        "samples": len(job),
        "versions": {name: version(name) for name in packages},
        "error": error,
    }
    given.report.write_text(json.dumps(report, indent=1))
    sys.exit(0)
