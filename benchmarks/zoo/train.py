"""Train the zoo: the nets that the quantization benchmarks measure.

    python benchmarks/zoo/train.py build/zoo [NAME ...]

writes ``build/zoo/NAME/model.pt2`` (the exported program in eval mode, dynamic batch) and ``build/zoo/NAME/data.npz``.
Nothing in it knows edgeopt.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import DATA
from nets import NETS
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one net is trained.

    Attributes:
        data: A key of ``data.DATA``.
        epochs: Passes over the training split.
        rate: The peak of a one-cycle learning rate.
        batch: Samples per step.
        flip: Mirror images at random.
        channels_last: How tensors lie in memory: depthwise convolutions train twice as fast.
    """

    data: str
    epochs: int
    rate: float = 4e-3
    batch: int = 64
    flip: bool = False
    channels_last: bool = False


PLANS = {
    "mlp": Plan(data="digits", epochs=4, rate=1e-3),
    "prelu": Plan(data="fashion", epochs=4, flip=True),
    "cnn1d": Plan(data="spoken-padded", epochs=25, batch=32),
    "longconv": Plan(data="spoken-stretched", epochs=25, rate=2e-3, batch=32),
    "gru": Plan(data="spoken-padded", epochs=40, batch=32),
    "resnet20": Plan(data="fashion", epochs=5, flip=True, channels_last=True),
    "mobilenetv2": Plan(data="fashion", epochs=3, flip=True, channels_last=True),
    "vit": Plan(data="digits", epochs=12, rate=1.5e-3),
}


def main() -> None:
    """Train, test and write each net asked for."""
    parser = argparse.ArgumentParser(description="Train the benchmark nets.")
    parser.add_argument("out", type=Path, help="the folder to write into, one folder per net")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which nets (default: all): {', '.join(PLANS)}")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(PLANS))
    if unknown:
        parser.error(f"no such net: {', '.join(unknown)}; there are {', '.join(PLANS)}")
    torch.set_num_threads(1)  # the same sums in the same order, on any machine with this CPU's instructions
    torch.use_deterministic_algorithms(True)
    for name in arguments.names or PLANS:
        make(name, PLANS[name], arguments.out / name)


def make(name: str, plan: Plan, folder: Path) -> None:
    """Train one net, and write its program and its data."""
    begun = time.perf_counter()
    parts = DATA[plan.data]()
    torch.manual_seed(SEED)
    model = train(NETS[name](), parts["x_train"], parts["y_train"], plan)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", **parts)
    export(model, torch.from_numpy(parts["x_train"]), folder / "model.pt2")
    print(
        f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{100 * accuracy(model, parts['x'], parts['y']):.2f} % of {len(parts['x']):,} test samples right, "
        f"{(time.perf_counter() - begun) / 60:.1f} min",
        flush=True,
    )


def train(model: nn.Module, x: np.ndarray, y: np.ndarray, plan: Plan) -> nn.Module:
    """AdamW with one cycle and label smoothing; returns the model in eval mode."""
    samples, labels = torch.from_numpy(x), torch.from_numpy(y)
    if plan.channels_last:
        samples = samples.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.02)
    steps = plan.epochs * -(-len(samples) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=plan.rate, total_steps=steps)
    for epoch in range(plan.epochs):
        begun, total = time.perf_counter(), 0.0
        for picked in torch.randperm(len(samples)).split(plan.batch):
            batch = samples[picked]
            if plan.flip:
                batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(-1), batch)
            loss = F.cross_entropy(model(batch), labels[picked], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(picked)
        print(
            f"  epoch {epoch + 1}/{plan.epochs}: loss {total / len(samples):.4f}, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    return model.to(memory_format=torch.contiguous_format).eval()


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Share of right predictions."""
    with torch.no_grad():
        answers = [model(part).argmax(1) for part in torch.from_numpy(x).split(250)]
    return float((torch.cat(answers).numpy() == y).mean())


def export(model: nn.Module, samples: torch.Tensor, path: Path) -> None:
    """Write the program with a dynamic batch. The example input is cloned: a slice would carry the whole data set."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (samples[:4].clone(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


if __name__ == "__main__":
    main()
