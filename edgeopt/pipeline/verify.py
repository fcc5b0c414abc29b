"""Whether a bundle is still what was written, and still computes what it computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgeopt.bundle.contract import InputChecker
from edgeopt.bundle.layout import ENGINE, REFERENCE_INPUTS, REFERENCE_OUTPUTS, read_reference
from edgeopt.bundle.load import Bundle, Problem, load_bundle, verify_files
from edgeopt.bundle.tolerance import TOLERANCES
from edgeopt.core.engine import Arrays
from edgeopt.core.errors import BackendError, BundleError
from edgeopt.devices.base import Device
from edgeopt.pipeline.on_device import demand_runtime, run_there
from edgeopt.pipeline.serve import open_engine, run_in_batches

__all__ = ["OutputRow", "VerifyResult", "verify_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """One output against its reference: largest absolute difference, what was allowed, rows whose argmax changed."""

    name: str
    max_abs: float
    allowed: float
    changed_argmax: int | None

    @property
    def passed(self) -> bool:
        """Whether the difference is inside what is allowed; NaN is not."""
        return self.max_abs <= self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What was checked and found.

    Attributes:
        files_ok: Every file is there, unchanged, and none was added.
        problems: One per file that is not as the manifest says.
        files: How many files were hashed.
        outputs: ``compared``, or ``not_run`` for ``reason``.
        samples: How many reference samples were run.
        rows: One per output.
        tolerance: What was allowed, in words.
        max_abs: The largest difference over all outputs; None where nothing was compared.
    """

    files_ok: bool
    problems: tuple[Problem, ...]
    files: int
    outputs: Literal["compared", "not_run"]
    reason: str = ""
    samples: int = 0
    rows: tuple[OutputRow, ...] = ()
    tolerance: str = ""
    max_abs: float | None = None

    @property
    def outputs_ok(self) -> bool | None:
        """Whether every output is inside its tolerance; None where nothing was compared."""
        return all(row.passed for row in self.rows) if self.outputs == "compared" else None

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is wrong; an engine that could not run here is not wrong."""
        return self.files_ok and self.outputs_ok is not False


def verify_bundle(path: Path | str, *, threads: int | None = None, device: Device | None = None) -> VerifyResult:
    """Check every hash, then run the reference inputs through the engine and compare with the reference outputs.

    An engine whose own files or references were changed is not run.

    Args:
        device: Where the engine is run; None: in this process.

    Raises:
        BundleError: This is no bundle, its manifest cannot be read, or its reference samples are not its engine's.
        DataError: The reference inputs do not fit the bundle's own contract.
    """
    bundle = load_bundle(path, complete=False)
    problems = tuple(verify_files(bundle))
    files = len(bundle.manifest.files)
    reason = _why_not(bundle, problems)
    if not reason:
        try:
            rows, samples = _run(bundle, threads, device)
        except BackendError as error:
            reason = str(error)
    if reason:
        return VerifyResult(files_ok=not problems, problems=problems, files=files, outputs="not_run", reason=reason)
    return VerifyResult(
        files_ok=not problems,
        problems=problems,
        files=files,
        outputs="compared",
        samples=samples,
        rows=rows,
        tolerance=TOLERANCES[bundle.manifest.precision][1],
        max_abs=float(np.max([row.max_abs for row in rows])),
    )


def _why_not(bundle: Bundle, problems: tuple[Problem, ...]) -> str:
    """Why the engine is not to be run; empty where it is."""
    manifest = bundle.manifest
    touched = [p.path for p in problems if p.path.startswith(f"{ENGINE}/") or p.path in _REFERENCES]
    if touched:
        return f"files it needs are not as written: {', '.join(touched)}"
    if bundle.engine.status != "built":
        command = manifest.engine.next_command
        return "the engine is not built" + (
            f"; on its device, in the bundle: cd {ENGINE} && {command}" if command else ""
        )
    if manifest.precision not in TOLERANCES:
        return f"no tolerance is known for precision {manifest.precision!r}"
    if any(name not in manifest.files for name in _REFERENCES):
        return "the bundle holds no reference samples"
    return ""


def _run(bundle: Bundle, threads: int | None, device: Device | None) -> tuple[tuple[OutputRow, ...], int]:
    """One row per output, and the number of samples."""
    reference = read_reference(bundle.directory)
    if reference is None:
        raise BundleError("The bundle's reference samples went away while they were read.", got=bundle.directory)
    inputs, wanted = reference
    arrays = InputChecker(bundle.manifest.contract, bundle.engine)(inputs)
    if device is None:
        with open_engine(bundle.engine, threads) as runner:
            got: Arrays = run_in_batches(runner, bundle.engine, arrays)
    else:
        demand_runtime(device, bundle)
        got = run_there(device, bundle.engine, arrays, threads)
    shapes, reference_shapes = _shapes(got), _shapes(wanted)
    if shapes != reference_shapes:
        raise BundleError(
            "The engine's outputs are not of the form of the reference outputs.",
            got=f"{shapes}, and the reference has {reference_shapes}",
            fix="Compile the model again with `edgeopt compile`.",
        )
    share = TOLERANCES[bundle.manifest.precision][0]
    samples = len(next(iter(inputs.values())))
    return tuple(_compare(name, got[name], wanted[name], share) for name in wanted), samples


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: arrays[name].shape for name in sorted(arrays)}


def _compare(name: str, got: np.ndarray, wanted: np.ndarray, share: float) -> OutputRow:
    """In float64; ``share``: of the reference's range (largest minus smallest value, at least the largest magnitude)."""
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    extent = max(float(b.max() - b.min()), float(np.abs(b).max()))
    ranked = b.ndim == 2 and b.shape[1] > 1
    return OutputRow(
        name=name,
        max_abs=float(np.abs(a - b).max()),
        allowed=share * extent,
        changed_argmax=int((a.argmax(1) != b.argmax(1)).sum()) if ranked else None,
    )


_REFERENCES = (REFERENCE_INPUTS, REFERENCE_OUTPUTS)
