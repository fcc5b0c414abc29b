"""``edgeopt analyze`` for a user: JSON alone on stdout, files where they were asked for, errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

MODEL = str(Path(__file__).parents[2] / "examples" / "digits" / "model.pt2")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "analyze-cache"  # one load for all tests
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(folder))


def test_the_layers_of_a_model_without_data(capfd):
    assert run(cli, ["analyze", MODEL]) == 0
    out, _ = capfd.readouterr()
    assert "features.1.first.0" in out
    assert "no data was given (--data)" in " ".join(out.split())


def test_json_is_all_that_stdout_holds(capfd):
    assert run(cli, ["analyze", MODEL, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema_version"] == 1
    assert document["totals"]["macs"] == sum(layer["macs"] or 0 for layer in document["layers"])
    assert document["pruning"]["groups"]


@pytest.mark.parametrize("name", ["out.svg", "out.html", "out.json", "folder"])
def test_files_are_written_where_they_were_asked_for(tmp_path, capfd, name):
    assert run(cli, ["analyze", MODEL, "-o", str(tmp_path / "new" / name)]) == 0
    wanted = {name} if "." in name else {"analysis.json", "analysis.svg", "analysis.html"}
    assert {path.name for path in tmp_path.rglob("*.*")} == wanted
    assert "Written:" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "picture.png"], "FILE.svg, FILE.html or FILE.json"),
        (["--size", "batch"], "Write it as NAME=VALUE"),
        (["--size", "batch=two"], "Write it as NAME=N"),
        (["--size", "bath=2"], "no open dimension of that name"),
        (["--size", "batch=0"], "does not take this size"),
        (["--data", "missing.npz"], "missing.npz"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(arguments, words, capfd):
    assert run(cli, ["analyze", MODEL, *arguments]) == 1
    assert words in " ".join(capfd.readouterr().err.split())


def test_a_file_that_is_no_model_is_refused(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("no model")
    assert run(cli, ["analyze", str(tmp_path / "notes.txt")]) == 1
    assert "Error:" in capfd.readouterr().err


def test_ctrl_c_ends_with_130(monkeypatch, capfd):
    from edgeopt.compress import removal

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(removal, "trace_channels", stop)
    assert run(cli, ["analyze", MODEL]) == 130
    assert "Interrupted" in capfd.readouterr().err
