"""The automatic ladder on a net that needs its last rung: post-training quantization loses too much, training does not.

The net has squared ReLUs (So et al. 2021, Primer, arXiv:2109.08668) between its five linear layers: each squares what is
large, so that few values span the grid of all, layer after layer, and no scale can be moved from one to the next.

    python benchmarks/ladder.py build/ladder [--target openvino-cpu] [--limit 0.5] [--max-minutes 30]

Prints one row per rung, as the report has them; the bundle with the whole report stays in the folder. Exits with 1 where
the ladder did not have to be climbed to the rung that trains, or where that rung misses the limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

import edgeopt
from edgeopt.report.ladder import RUNG_HEADS, rung_lines

__all__ = ["main", "write_net"]

_CLASSES, _WIDTH = 8, 64


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (16, *[_WIDTH] * 4, _CLASSES)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(i, o) for i, o in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.relu(layer(x)).square()
        made: torch.Tensor = last(x)
        return made


def write_net(folder: Path) -> None:
    """Train the net on the answers of a random one, seeded; write ``model.pt2`` and ``data.npz``."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        asked = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, _CLASSES)).eval()
        net = _Net()
        with torch.no_grad():
            asked[0].weight *= 3
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
        "--limit", type=float, default=0.5, help="largest drop, percentage points (default: %(default)s)"
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
        "parity.int8_top1_agreement=0.1",
        "parity.int8_sqnr_db=1",
        # A net of this size learns at a larger rate than the recipe's, which is for nets as they are shipped.
        "steps.qat.training.learning_rate=3e-3",
        "steps.qat.training.epochs=12",
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
