"""``edgeopt targets``: releases, differences, and what another package broke."""

import json

from click.testing import CliRunner

from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.core.errors import TargetError


def said(*words):
    result = CliRunner().invoke(cli, ["targets", *words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_show_lists_the_releases_and_explains_one():
    assert "jetpack-6.1, jetpack-6.2, jetpack-7.2" in said("show", "jetson")
    one = said("show", "jetson@jetpack-7.2")
    assert "jetson-orin-nano@jetpack-7.2" in one
    assert "tensorrt: 10.16.2" in one
    assert "Releases" not in one


def test_diff_shows_fields_and_sources_and_says_when_there_are_none():
    text = said("diff", "rtx-ada", "rtx-ampere")
    assert "compute_capability 89 86" in text
    assert "Only rtx-ampere says" in text
    assert (
        said("diff", "jetson", "jetson-orin-nano") == "jetson-orin-nano and jetson-orin-nano describe the same device."
    )
    found = json.loads(CliRunner().invoke(cli, ["targets", "diff", "rtx-ada", "rtx-ampere", "--json"]).output)
    assert {"field": "compute_capability", "a": 89, "b": 86} in found["fields"]
    assert set(found["sources"]) == {"rtx-ada", "rtx-ampere"}


def test_an_impossible_pair_is_one_line(capsys):
    assert run(cli, ["targets", "diff", "jetson", "thor@jetpack-6.2"]) == 1
    assert "does not run on jetson-thor" in capsys.readouterr().err


def test_a_broken_catalog_is_a_warning_above_the_list(monkeypatch):
    problem = TargetError("The target catalog 'acme' of acme-things cannot be opened.")
    monkeypatch.setattr("edgeopt.targets.load.broken_catalogs", lambda: (problem,))
    result = CliRunner().invoke(cli, ["targets"])
    assert result.exit_code == 0
    assert "Warning: The target catalog 'acme'" in result.output
    assert "jetson-orin-nano" in result.output
