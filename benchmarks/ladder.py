"""The automatic ladder on a net that needs its last rung: post-training quantization loses too much, training does not.

The net has a hidden layer in which four of 68 channels are some forty times as large as the others, and SiLU behind it:
per-tensor activations spend their grid on the four, and no scale can be moved across SiLU to prevent it.

    python benchmarks/ladder.py build/ladder [--target openvino-cpu] [--limit 0.1] [--max-minutes 30]

Prints one row per rung, as the report has them; the bundle with the whole report stays in the folder. Exits with 1 where
the ladder did not have to be climbed to the rung that trains, or where that rung misses the limit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

import edgeopt
from edgeopt.report.ladder import RUNG_HEADS, rung_lines

__all__ = ["main", "write_net"]

_LARGE = 40.0
_CLASSES = 8


def write_net(folder: Path) -> None:
    """Train the net on the answers of a random one, seeded; write ``model.pt2`` and ``data.npz``."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        asked = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, _CLASSES)).eval()
        net = torch.nn.Sequential(
            torch.nn.Linear(16, 68),
            torch.nn.SiLU(),
            torch.nn.Linear(68, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, _CLASSES),
        )
        with torch.no_grad():
            asked[0].weight *= 3
            net[0].weight[:4] *= _LARGE
            net[2].weight[:, :4] /= _LARGE
        x = torch.randn(30_000, 16, generator=generator)
        with torch.no_grad():
            y = asked(x).argmax(1)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30 * (20_000 // 100))
        for _ in range(30):
            order = torch.randperm(20_000, generator=generator)
            for rows in order.split(100):
                loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(net.eval(), (x[:2].clone(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")
    splits = {"": slice(25_000, 30_000), "_train": slice(0, 20_000), "_tune": slice(20_000, 22_000)}
    splits["_calibration"] = slice(22_000, 22_512)
    arrays = {f"x{name}": x[rows].numpy() for name, rows in splits.items()}
    arrays |= {f"y{name}": y[rows].numpy() for name, rows in splits.items()}
    np.savez(folder / "data.npz", **arrays)


def main() -> int:
    """Climb, print, and say by the exit code whether the last rung was needed and was enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the net and the bundle go")
    parser.add_argument("--target", default="openvino-cpu", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=float, default=1.0, help="largest drop, percentage points (default: %(default)s)"
    )
    parser.add_argument("--max-minutes", type=float, default=None, help="of the whole climb")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as edgeopt compile takes it")
    chosen = parser.parse_args()
    if not (chosen.folder / "model.pt2").exists():
        write_net(chosen.folder)
    # The net is tiny: what it shows is accuracy. Its latency is printed, and not a limit.
    # Parity is loosened so that a rung that loses much is judged on the whole test split and not refused before.
    overrides = [
        f"limits.drop_pp={chosen.limit}",
        "limits.latency_ratio=null",
        "parity.int8_top1_agreement=0.5",
        *chosen.set,
    ]
    bundle = edgeopt.compile(
        chosen.folder / "model.pt2",
        target=chosen.target,
        data=str(chosen.folder / "data.npz"),
        recipe="auto",
        overrides=overrides,
        output=chosen.folder / "bundle",
        max_minutes=chosen.max_minutes,
    )
    lines = rung_lines(bundle.report)
    table = [RUNG_HEADS, *(line.cells for line in lines)]
    widths = [max(len(row[column]) for row in table) for column in range(len(RUNG_HEADS))]
    for row in table:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    for line in lines:
        if line.message:
            sys.stdout.write(f"{line.name}: {line.message}\n")
    sys.stdout.write(f"{bundle.report.ladder.summary} Shipped: {bundle.report.shipped.id}.\n")
    status = {line.name: line.status for line in lines}
    return 0 if status.pop("int8-qat") == "met" and "met" not in status.values() else 1


if __name__ == "__main__":
    sys.exit(main())
