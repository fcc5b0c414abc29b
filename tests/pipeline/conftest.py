"""What tests of whole runs share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A cache that this module's runs share with nobody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
