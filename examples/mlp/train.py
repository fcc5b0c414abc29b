"""A first-time user's classifier: is the sum of twenty numbers positive?

    python examples/mlp/train.py OUT

writes ``OUT/mlp.pt2`` and ``OUT/mlp.npz``. Nothing in it knows edgeopt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn


def main() -> None:
    """Train for ten epochs, save the program and unseen data."""
    parser = argparse.ArgumentParser(description="Train a small MLP.")
    parser.add_argument("out", type=Path, help="the folder to write into")
    out: Path = parser.parse_args().out
    torch.manual_seed(0)
    x = torch.randn(8000, 20)
    y = (x.sum(1) > 0).long()
    train_x, train_y, test_x, test_y = x[:4000], y[:4000], x[4000:], y[4000:]

    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(10):
        for picked in torch.randperm(len(train_x)).split(32):
            loss = nn.functional.cross_entropy(model(train_x[picked]), train_y[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    print(f"{100 * (model(test_x).argmax(1) == test_y).float().mean():.2f} % of {len(test_x)} right")

    out.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(model, (torch.randn(1, 20),)), out / "mlp.pt2")
    np.savez(out / "mlp.npz", x=test_x.numpy(), y=test_y.numpy())
    print(f"edgeopt compile {out / 'mlp.pt2'} --data {out / 'mlp.npz'} --target local")


if __name__ == "__main__":
    main()
