"""Peak memory (VmHWM of a process of its own) does not follow the number of samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SAMPLES = (100, 10_000)
# Bookkeeping is under 100 bytes per sample (digest, label, range, order, path): below 2 MiB for 10,000.
# The data itself has 4 KiB per sample: 39 MiB.
MOST_MIB = 6
PROBE = """
import sys
from edgeopt.core.spec import parse_input
from edgeopt.data.load import load_data
data = load_data(sys.argv[1], inputs=[parse_input(sys.argv[2])])
for split in data.splits.values():
    for batch in split.batches(32):
        pass
hwm = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sum(len(split) for split in data.splits.values()), int(hwm.split()[1]) / 1024)
"""
DATASET = """
import numpy as np
class Made:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index):
        return np.random.default_rng(index).random((1, 32, 32), np.float32), index % 4
def few(): return Made(100)
def many(): return Made(10_000)
"""


def peak_mib(spec: str, count: int, cwd: Path, model_input: str = "x:float32[n,1,32,32]") -> float:
    command = [sys.executable, "-c", PROBE, spec, model_input]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    seen, peak = run.stdout.split()
    assert int(seen) == count
    return float(peak)


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_are_streamed(tmp_path, save):
    for count in SAMPLES:
        x = np.random.default_rng(0).integers(0, 50, (count, 1, 32, 32)).astype(np.float32)
        save(tmp_path / f"{count}.npz", x=x, y=np.arange(count) % 4)
        size_mib = x.nbytes / 2**20
    few, many = (peak_mib(f"{count}.npz", count, tmp_path) for count in SAMPLES)
    assert size_mib > 5 * MOST_MIB
    assert many - few < MOST_MIB


def test_map_style_data_sets_are_streamed(tmp_path):
    (tmp_path / "made.py").write_text(DATASET)
    few, many = peak_mib("made:few", 100, tmp_path), peak_mib("made:many", 10_000, tmp_path)
    assert many - few < MOST_MIB


@pytest.mark.long
def test_folders_of_images_are_streamed(tmp_path, write_manifest, image_preprocessing):
    from PIL import Image

    for count in SAMPLES:
        folder = tmp_path / str(count)
        for name in "abcd":
            (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 64), np.uint8)
        for index in range(count):
            Image.fromarray(pixels[index]).save(folder / "abcd"[index % 4] / f"{index}.bmp")
        how = {**image_preprocessing, "mode": "L"}
        write_manifest(folder / "manifest.yaml", source={"folder": "."}, preprocessing=how)
    few, many = (peak_mib(str(count), count, tmp_path, "x:float32[n,1,16,64]") for count in SAMPLES)
    assert many - few < MOST_MIB


def test_nothing_is_left_behind_by_a_compressed_file(tmp_path, monkeypatch):
    import tempfile

    from edgeopt.core.spec import parse_input
    from edgeopt.data.load import load_data

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    x = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    np.savez_compressed(tmp_path / "c.npz", x=x)
    data = load_data(tmp_path / "c.npz", inputs=[parse_input("x:float32[n,4]")])
    assert list((tmp_path / "temporary").iterdir()) == [], "unpacked into a file without a name"
    split = data.splits["test"]
    np.testing.assert_array_equal(next(split.batches(50)).inputs[0], x[split.indices])


def test_unpacking_without_space_is_one_clear_error(tmp_path, monkeypatch):
    import shutil

    from edgeopt.core.errors import DataError
    from edgeopt.core.spec import parse_input
    from edgeopt.data.load import load_data

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    np.savez_compressed(tmp_path / "c.npz", x=np.zeros((50, 4), np.float32))
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"cannot be unpacked.*No space left.*Set TMPDIR"):
        load_data(tmp_path / "c.npz", inputs=[parse_input("x:float32[n,4]")])
