"""The bundle's reference samples as raw numbers: what an application without NumPy can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle.layout import read_reference, write_json
from edgeopt.bundle.load import Bundle
from edgeopt.core.errors import BundleError

__all__ = ["DTYPES", "MOST_SAMPLES", "write_self_test"]

DTYPES = ("float32", "float64", "int8", "uint8", "int32", "int64", "bool")
"""What the samples' sources read and write; ONNX Runtime's Objective-C interface has no float64 and no bool."""
MOST_SAMPLES = 4
"""An app need not carry all of them."""


def write_self_test(bundle: Bundle, folder: Path, share: float, tolerance: str) -> int:
    """Write ``selftest.json`` and one raw little-endian file per input and output.

    Args:
        folder: Where the application keeps the bundle.
        share: How far an output may be from its reference, as a share of the reference's range; ``tolerance``: in words.

    Returns:
        How many samples there are.

    Raises:
        BundleError: The bundle has no reference samples, or lacks an input or an output in them.
    """
    reference = read_reference(bundle.directory)
    if reference is None:
        raise BundleError(
            "The bundle has no reference samples, so an application could not test itself.",
            got=bundle.directory,
            fix="Compile the model again with `edgeopt compile`.",
        )
    inputs, outputs = reference
    contract = bundle.manifest.contract
    document: dict[str, Any] = {"share": share, "tolerance": tolerance}
    names = [record.name for record in contract.inputs], [record.name for record in contract.outputs]
    for kind, wanted, arrays in (("input", names[0], inputs), ("output", names[1], outputs)):
        missing = [name for name in wanted if name not in arrays]
        if missing:
            raise BundleError(f"The reference samples lack an {kind} of the model.", got=", ".join(missing))
        document[f"{kind}s"] = [
            _write(folder, f"{kind}{index}.bin", name, arrays[name]) for index, name in enumerate(wanted)
        ]
    samples = min(MOST_SAMPLES, len(next(iter(inputs.values()))))
    document["samples"] = samples
    write_json(folder / "selftest.json", document)
    return samples


def _write(folder: Path, file: str, name: str, array: np.ndarray) -> dict[str, Any]:
    kept = np.ascontiguousarray(array[:MOST_SAMPLES])
    little = kept.astype(kept.dtype.newbyteorder("<"), copy=False)
    (folder / file).write_bytes(little.tobytes())
    return {"name": name, "dtype": str(kept.dtype), "shape": list(kept.shape), "file": file}
