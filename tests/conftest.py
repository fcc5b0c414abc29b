"""Golden files and the synthetic report, for every room."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_report import build_sample_report


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture
def golden(request):
    """``golden(name, text)`` compares with ``golden/NAME`` beside the test; ``--update-golden`` writes it."""

    def compare(name: str, text: str) -> None:
        path = Path(request.node.path).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest with --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs: read it, then --update-golden"

    return compare


@pytest.fixture(scope="session")
def sample_report():
    return build_sample_report()
