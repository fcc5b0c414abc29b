"""A first-time user's model and data, and a cache that these tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory):
    """One cache for all end-to-end tests, outside the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLP 20 → 64 → 32 → 2, trained on (sum > 0) for ten epochs with AdamW, saved with torch.export."""
    folder = tmp_path_factory.mktemp("mlp")
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
    return folder
