"""What it costs to plan the pruning of a ResNet-50-sized graph: seconds, and the peak memory of the whole process.

python benchmarks/pruning_plan.py

The net is ResNet-50 in its shapes (He et al., Deep Residual Learning for Image Recognition, 2015, Table 1), untrained,
224×224, as an exported program. Planning is what decides: the groups are traced, their units scored by magnitude, and
half of the multiply-accumulates are chosen. Cutting the program and exporting it anew is told beside it. Peak memory is
that of the process from its start, with PyTorch and the net in it. Exit code 1: a limit is missed.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from edgeopt.compress.pruning.channels import trace_channels
from edgeopt.compress.pruning.choose import choose, least
from edgeopt.compress.pruning.cut import cut
from edgeopt.compress.pruning.importance import score_units
from edgeopt.core.spec import TensorSpec
from edgeopt.recipes.pruning import Prune

BLOCKS = (3, 4, 6, 3)
MOST_SECONDS = 20.0
MOST_MIB = 2000.0
ROUND_TO = 16
MACS_RATIO = 0.5


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, beside what came in."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, width, 1),
            nn.ReLU(),
            *convolution(width, width, 3, stride),
            nn.ReLU(),
            *convolution(width, 4 * width, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.skip = nn.Identity() if same else nn.Sequential(*convolution(inputs, 4 * width, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, 4 · width, H / stride, W / stride]."""
        return torch.relu(self.skip(x) + self.body(x))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """With its BatchNorm."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet(blocks: Sequence[int]) -> nn.Module:
    """``blocks``: of each of the four stages; 3, 4, 6, 3 is ResNet-50."""
    layers: list[nn.Module] = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(blocks):
        for place in range(count):
            layers.append(Bottleneck(inputs, 64 << stage, 2 if stage and not place else 1))
            inputs = 4 * (64 << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)).eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--blocks", type=int, nargs=4, default=BLOCKS, metavar="N", help="of the four stages (default: 3 4 6 3)"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        resnet(arguments.blocks), (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: batch},)
    )
    print(f"before: {peak_mib():.0f} MiB (PyTorch and the exported net)")
    times = [time.perf_counter()]
    channels = trace_channels(program)
    times.append(time.perf_counter())
    scores = score_units(channels, "l2")
    times.append(time.perf_counter())
    config = Prune(importance="l2", macs_ratio=MACS_RATIO)
    removed = least(scores, choose(channels, config, scores, multiple=ROUND_TO))
    times.append(time.perf_counter())
    planned = times[-1] - times[0]
    for what, begun, ended in zip(("trace", "score", "choose"), times, times[1:], strict=False):
        print(f"{what}: {ended - begun:.1f} s")
    cut(program, channels, removed, [TensorSpec(name="x", dtype="float32", shape=("batch", 3, 224, 224))])
    print(f"cut and export, not planning: {time.perf_counter() - times[-1]:.1f} s")
    left, whole = channels.macs(removed) / 1e9, channels.macs({}) / 1e9
    print(f"{len(channels.groups)} groups; {left:.2f} of {whole:.2f} G multiply-accumulates are left")
    return verdict(planned, peak_mib())


def verdict(seconds: float, mib: float) -> int:
    """Say whether the limits hold, as an exit code."""
    found = {"planning": (seconds, MOST_SECONDS, "s"), "peak memory": (mib, MOST_MIB, "MiB")}
    for what, (value, limit, unit) in found.items():
        print(f"{what}: {value:.1f} {unit}, at most {limit:g}: {'holds' if value <= limit else 'MISSED'}")
    return int(any(value > limit for value, limit, _ in found.values()))


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB on Linux


if __name__ == "__main__":
    sys.exit(main())
