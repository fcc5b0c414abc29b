"""A whole split through an engine, streamed: neither side ever holds more than one chunk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeopt.core.device import Host
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError, DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.data.targets import stack_boxes

__all__ = ["collect_outputs", "collect_targets", "judged_output"]

_CHUNK_BYTES = 16 * 2**20
_READ = 256


def collect_outputs(  # noqa: PLR0917 - all are needed, and named at every call
    device: Host,
    engine: Engine,
    split: Split,
    input_names: Sequence[str],
    directory: Path,
    batch: int,
    progress: ProgressListener = ignore_progress,
    *,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Run every sample of ``split`` through the engine, in a fresh process.

    Args:
        input_names: The model's input names, in the order of the split's arrays.
        directory: Where the outputs are kept, one ``.npy`` file each; made where it is missing.
        batch: What the engine is run at; the last batch is padded, and the padding cut off again.
        threads: Of the runtime; None takes all cores.

    Returns:
        Output name → array [N, …], mapped from its file.

    Raises:
        DataError: The split is empty, or has not one array per input.
        DeviceError: The engine cannot be loaded or run.
    """
    if len(split) == 0:
        raise DataError(f"The {split.name} split is empty.", fix="Give it samples, or leave the evaluation out.")
    directory.mkdir(parents=True, exist_ok=True)
    kept: dict[str, np.memmap] = {}
    with (
        tempfile.TemporaryDirectory(prefix="edgeopt-outputs-") as scratch,
        device.open(engine, threads=threads) as session,
    ):
        session.request(
            "load", runtime=engine.runtime, entry=session.entry, options=dict(engine.options), threads=threads
        )
        given, taken = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        done = 0
        for chunk in split.batches(_chunk_size(split, batch, getattr(device, "at_once", 0))):
            size = _write(given, chunk, input_names)
            session.request("infer", inputs=session.put(given), outputs=taken.name, batch=batch)
            session.get(taken.name, taken)
            _keep(kept, directory, taken, start=done, size=size, total=len(split))
            done += size
            progress(Progress(stage="evaluate", done=done, total=len(split)))
    for array in kept.values():
        array.flush()
    return {name: np.load(array.filename, mmap_mode="r") for name, array in kept.items() if array.filename}


def collect_targets(split: Split) -> np.ndarray:
    """All targets of a split, [N, …], as ``Batch.targets`` has them; boxes of all batches padded to one width.

    Raises:
        DataError: The split is empty or has no targets.
    """
    parts = [part.targets for part in split.batches(_READ)]
    targets = [part for part in parts if part is not None]
    if not targets or len(targets) != len(parts):
        raise DataError(f"The {split.name} split has no labels.", fix="Evaluate it as unlabelled data.")
    boxes = targets[0].ndim == 3 and len({part.shape[1] for part in targets}) > 1
    return stack_boxes(targets) if boxes else np.concatenate(targets)


def judged_output(outputs: Mapping[str, np.ndarray], data: Dataset) -> np.ndarray:
    """What the metrics judge: the first output, or the detections that the data's decoder makes of all outputs.

    Args:
        outputs: Output name → array [N, …], in the model's order.

    Returns:
        [N, …]; from a decoder float32 [N, K, 6].

    Raises:
        DataError: The decoder raised, or made something else.
    """
    decoder = data.decoder
    if decoder is None:
        return next(iter(outputs.values()))
    count = len(next(iter(outputs.values())))
    made = []
    for start in range(0, count, _READ):
        part = {name: np.asarray(array[start : start + _READ]) for name, array in outputs.items()}
        try:
            found = decoder(part)
        except Exception as error:  # the user's code may raise anything
            raise DataError("The manifest's decoder raised.", got=f"{type(error).__name__}: {error}") from error
        size = min(_READ, count - start)
        if not isinstance(found, np.ndarray) or found.ndim != 3 or (len(found), found.shape[2]) != (size, 6):
            got = f"an array {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise DataError(
                "The manifest's decoder makes no detections.",
                got=f"{got} for {size} samples",
                fix="Return an array [N, K, 6]: rows (x1, y1, x2, y2, score, class), those not used with score 0.",
            )
        made.append(found.astype(np.float32))
    return _padded(made)


def _padded(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Detections [N, K, 6] of several batches, padded to one width with score 0."""
    widest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, widest - part.shape[1]), (0, 0))) for part in parts])


def _chunk_size(split: Split, batch: int, most: int) -> int:
    """Samples per chunk: whole batches, near 16 MiB of inputs, and near ``most`` on a device that is that slow."""
    first = next(split.batches(1))
    sample_bytes = max(1, sum(array.nbytes for array in first.inputs))
    count = _CHUNK_BYTES // sample_bytes
    return max(1, (min(count, most) if most else count) // batch) * batch


def _write(file: Path, chunk: Batch, input_names: Sequence[str]) -> int:
    if len(chunk.inputs) != len(input_names):
        raise DataError(
            "The data has another number of inputs than the model.",
            got=f"{len(chunk.inputs)} arrays for the inputs {', '.join(input_names)}",
        )
    with file.open("wb") as target:
        np.savez(target, **dict(zip(input_names, chunk.inputs, strict=True)))  # type: ignore[arg-type]
    return len(chunk.inputs[0])


def _keep(kept: dict[str, np.memmap], directory: Path, file: Path, *, start: int, size: int, total: int) -> None:
    with np.load(file, allow_pickle=False) as outputs:
        for index, name in enumerate(outputs.files):
            array = outputs[name]
            if name not in kept:
                # Numbered: an output's name may hold what a file's cannot.
                path, shape = directory / f"output-{index}.npy", (total, *array.shape[1:])
                kept[name] = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=shape)
                _reserve(path)
            if array.shape != (size, *kept[name].shape[1:]):
                raise DeviceError(
                    f"Output {name!r} changed its shape in the middle of the data.",
                    got=f"{list(array.shape)} for {size} samples, before that {list(kept[name].shape[1:])} each",
                )
            kept[name][start : start + size] = array


def _reserve(path: Path) -> None:
    """Take the file's space now: a mapped write to a full disk kills the process (SIGBUS), this is an OSError."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
