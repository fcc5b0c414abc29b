"""Bundles that the sample applications are written around."""

from __future__ import annotations

from pathlib import Path

from sample_bundle import CHANNELS, CLASSES, HEIGHT, WIDTH, fill_bundle, sample_manifest

from edgeopt.bundle.manifest import Contract, InputRecord, OutputRecord
from edgeopt.bundle.write import write_bundle

MEAN, STD = (0.25, 0.5), (0.5, 2.0)


def phone_bundle(destination: Path, batch: int | None = None, layout: str = "NCHW", **changes) -> Path:
    """The small real bundle, with an input contract to honour and the session options of a phone."""
    config = {"session.intra_op.allow_spinning": "0", "session.enable_saved_runtime_optimizations": "1"}
    record = {
        "name": "x",
        "dtype": "float32",
        "shape": ("batch", CHANNELS, HEIGHT, WIDTH),
        "layout": layout,
        "scale": "1/255",
        "mean": MEAN,
        "std": STD,
        "preprocessing": "resize to 4 x 6 (bilinear); multiply by 1/255",
    }
    contract = Contract(
        inputs=(InputRecord(**record | changes.pop("record", {})),),
        outputs=(OutputRecord(name="logits", dtype="float32", shape=("batch", CLASSES)),),
        classes=("cat", "dog", "owl"),
    )
    engine = {"options": {"threads": 3, "config": config}} | changes.pop("engine", {})
    manifest = {"contract": contract, "engine": engine} | changes
    return write_bundle(
        destination, lambda folder: fill_bundle(folder, batch), lambda _: sample_manifest(batch, **manifest)
    )
