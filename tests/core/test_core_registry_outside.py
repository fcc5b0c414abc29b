"""A plug-in of another package that raises when it is imported: named, and in nobody's way."""

import pytest
from click.testing import CliRunner

from edgeopt.backends.doctor import survey
from edgeopt.backends.registry import BACKENDS
from edgeopt.cli.main import cli
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.registry import Registry


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A distribution with a backend whose module raises, and one whose module is not there."""
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no such driver')\n")
    info = tmp_path / "acme_runtime-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-runtime\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgeopt.backends]\nacme = acme_broken:Backend\ngone = acme_gone:Backend\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_it_is_named_with_its_package_and_its_words(broken):
    with pytest.raises(
        EdgeOptError,
        match=r"backend 'acme' of acme-runtime cannot be loaded\. Received: acme_broken:Backend \(RuntimeError: no such driver\)",
    ):
        BACKENDS["acme"]
    with pytest.raises(EdgeOptError, match=r"'gone' of acme-runtime.*ModuleNotFoundError.*work without it"):
        BACKENDS["gone"]


def test_the_others_are_there(broken):
    assert BACKENDS["tensorrt"].name == "tensorrt"
    found = dict(survey())
    assert found["acme"].version is None
    assert "acme-runtime cannot be loaded" in found["acme"].how_to_get
    assert found["onnxruntime"].version
    said = CliRunner().invoke(cli, ["doctor"])
    assert said.exit_code == 0
    assert "no such driver" in " ".join(said.output.split())


def test_one_of_our_own_raises_its_own_error():
    with pytest.raises(ModuleNotFoundError):
        Registry("thing", {"a": "edgeopt.none:A"}, "edgeopt.none")["a"]
