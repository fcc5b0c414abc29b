"""What a user sees: JSON alone on stdout, help that fits, a verification that hides nothing, progress without noise."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_bundle import sample_bundle

from edgeopt.cli import progress as progress_module
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.cli.progress import progress_bars
from edgeopt.core.events import Progress


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize(
    "arguments",
    [
        ["targets", "--json"],
        ["targets", "list", "--json"],
        ["targets", "show", "jetson", "--json"],
        ["recipes", "--json"],
        ["recipes", "show", "int8-ptq", "--json"],
        ["doctor", "--json"],
        ["cache", "info", "--json"],
        ["cache", "clear", "--json"],
        ["inspect", "BUNDLE", "--json"],
        ["inspect", "BUNDLE", "--coverage", "--json"],
        ["verify", "BUNDLE", "--json"],
        ["bench", "BUNDLE", "--json"],  # refused: the engine is not built; the error is JSON too
    ],
    ids=" ".join,
)
def test_json_is_all_that_stdout_holds(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    bundle = sample_bundle(
        tmp_path / "linear", engine={"status": "not_built", "entry": "model.plan", "next_command": "python3 build.py"}
    )
    run(cli, [str(bundle) if argument == "BUNDLE" else argument for argument in arguments])
    assert json.loads(capfd.readouterr().out, parse_constant=_refuse)


def test_targets_and_recipes_alone_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["targets"]) == 0
    assert "jetson-orin-nano" in capsys.readouterr().out
    assert run(cli, ["recipes"]) == 0
    assert "int8-ptq-accurate" in capsys.readouterr().out


def test_the_help_of_compile_groups_its_options_and_fits_80_columns() -> None:
    result = CliRunner().invoke(cli, ["compile", "--help"], terminal_width=80)
    headings = re.findall(r"^(\S.*):$", result.output, re.MULTILINE)
    assert headings == [
        "What and where to",
        "How the model is loaded",
        "Which machine measures",
        "How it is run",
        "Other options",
    ]
    assert max(map(len, result.output.splitlines())) <= 80
    # Nothing is lost by grouping.
    context = cli.make_context("edgeopt", ["compile", "--help"], resilient_parsing=True)
    command = cli.get_command(context, "compile")
    assert command is not None
    for parameter in command.params:
        for name in parameter.opts:
            assert name.upper() in result.output.upper(), name


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "edgeopt", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: edgeopt [OPTIONS] COMMAND")


def test_verify_says_loudly_that_outputs_were_not_run_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(
        tmp_path / "linear", engine={"status": "not_built", "entry": "model.plan", "next_command": "python3 build.py"}
    )
    assert run(cli, ["verify", str(bundle)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "PASS files: all" in text
    assert (
        "NOT RUN outputs: the engine is not built; on its device, in the bundle: cd engine && python3 build.py" in text
    )
    assert "the outputs were NOT" in text


def test_verify_names_each_file_that_is_not_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = sample_bundle(
        tmp_path / "linear", engine={"status": "not_built", "entry": "model.plan", "next_command": "python3 build.py"}
    )
    (bundle / "recipe.yaml").write_text("changed")
    (bundle / "extra.txt").write_text("new")
    assert run(cli, ["verify", str(bundle)]) == 1
    text = capsys.readouterr().out
    assert re.search(r"FAIL +files: 2 of \d+ are not", text)
    assert "recipe.yaml:" in text
    assert "extra.txt:" in text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress_module, "perf_counter", lambda: now[0])
    return now


def test_a_slow_stage_is_one_plain_line_and_its_parts_are_none(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bars() as listen:
        listen(Progress(stage="quick", done=0, total=None))
        listen(Progress(stage="quick", done=1, total=1))
        listen(Progress(stage="quantize", done=0, total=None))
        clock[0] = 3.0
        listen(Progress(stage="quantize", part="calibrate", done=9, total=9))
        clock[0] = 5.0
        listen(Progress(stage="quantize", done=1, total=1))
    captured = capsys.readouterr()
    assert captured.err == "quantize: 5.0 s\n"
    assert captured.out == ""


def test_a_terminal_is_left_without_a_trace_of_the_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "_PATIENCE_S", -1.0)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as listen:
        listen(Progress(stage="quantize", part="calibrate", done=3, total=9))
        listen(Progress(stage="quantize", part="calibrate", done=9, total=9))
        listen(Progress(stage="quantize", done=1, total=1))
    text = capsys.readouterr().err
    assert "\x1b[" in text
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rsplit("\x1b[2K", 1)[-1]).strip() == ""
