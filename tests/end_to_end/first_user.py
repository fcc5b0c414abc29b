"""What a first-time user has: a small classifier and labelled data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


def write_mlp(folder: Path) -> None:
    """MLP 20 → 64 → 32 → 2, trained on (sum > 0) for ten epochs with AdamW, saved with torch.export; and its data."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
        )
        x = torch.randn(2000, 20, generator=generator)
        y = (x.sum(1) > 0).long()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        for _ in range(10):
            for start in range(0, len(x), 64):
                loss = torch.nn.functional.cross_entropy(net(x[start : start + 64]), y[start : start + 64])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.export.save(torch.export.export(net.eval(), (x[:1].clone(),)), folder / "mlp.pt2")
    test = torch.randn(1000, 20, generator=generator)
    np.savez(folder / "mlp.npz", x=test.numpy(), y=(test.sum(1) > 0).long().numpy(), x_calibration=x[:200].numpy())
