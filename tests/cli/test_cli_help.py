"""The command line says what it can do, instantly."""

import gc
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from edgeopt.cli.main import COMMANDS, cli, main

HEAVY = ("torch", "torchao", "onnx", "onnxruntime", "openvino", "numpy", "pydantic", "rich", "matplotlib", "scipy")


@pytest.fixture
def collector():
    kept = gc.get_threshold()
    yield
    gc.set_threshold(*kept)


def test_the_collector_does_not_walk_torchs_objects_again_and_again(monkeypatch, collector):
    monkeypatch.setattr(sys, "argv", ["edgeopt", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert gc.get_threshold()[0] >= 10_000


def _leaves() -> list[tuple[str, ...]]:
    context = click.Context(cli)
    found: list[tuple[str, ...]] = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name,))
        if isinstance(command, click.Group):
            found.extend((name, child) for child in command.commands)
    return found


@pytest.mark.parametrize("path", _leaves(), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from edgeopt.cli.edge import run\nfrom edgeopt.cli.main import cli\n"
        "code = run(cli, ['--help'])\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_help_lists_every_command_without_importing_it() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    for name in COMMANDS:
        assert f"\n  {name}" in result.output


def test_unknown_command_gets_the_nearest_ones_and_exit_2() -> None:
    from edgeopt.cli.edge import run

    assert run(cli, ["compil"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_EDGEOPT_COMPLETE" in result.output
