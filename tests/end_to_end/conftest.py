"""A first-time user's model and data, and a cache that these tests share."""

from pathlib import Path

import pytest
from first_user import write_mlp


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory):
    """One cache for all end-to-end tests, outside the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with ``mlp.pt2`` and ``mlp.npz``."""
    folder = tmp_path_factory.mktemp("mlp")
    write_mlp(folder)
    return folder
