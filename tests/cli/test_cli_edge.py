"""Exceptions become exit codes in one place."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import click
import pytest

from edgeopt.cli.edge import run
from edgeopt.cli.progress import progress_bars
from edgeopt.core.errors import DataError
from edgeopt.core.events import Progress


@pytest.fixture(autouse=True)
def _ctrl_c():
    """As in a terminal: a shell's background jobs ignore SIGINT, and tests may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _command(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def fail(*, as_json: bool) -> None:
        raise error

    return fail


def test_a_users_error_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_command(DataError("The data has no labels.", got="x.npz", fix="Add y.")), []) == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: The data has no labels. Received: x.npz. Add y.\n"
    assert captured.out == ""


def test_a_users_error_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_command(DataError("Bad.", got=3, fix="Do.")), ["--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"type": "DataError", "message": "Bad. Received: 3. Do.", "what": "Bad.", "got": "3", "fix": "Do."}


def test_a_defect_is_exit_3_and_leaves_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_command(ZeroDivisionError("oops")), []) == 3
    message = capsys.readouterr().err
    log = re.search(r"Log: (.+)", message)
    assert log is not None
    assert "ZeroDivisionError: oops" in Path(log[1]).read_text()
    Path(log[1]).unlink()


def test_ctrl_c_is_exit_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_command(KeyboardInterrupt()), []) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_a_command_may_return_its_code() -> None:
    @click.command()
    def four() -> int:
        return 4

    assert run(four, []) == 4


def test_ctrl_c_that_other_code_renames_is_still_130(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def rename() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt as stop:
            raise ImportError("the module could not be initialized") from stop

    assert run(rename, []) == 130
    captured = capsys.readouterr()
    assert "Interrupted" in captured.err
    assert "Internal error" not in captured.err


def test_ctrl_c_that_other_code_swallows_stops_at_the_next_step() -> None:
    @click.command()
    def swallow() -> int:
        with progress_bars() as listen:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                pass
            listen(Progress(stage="next", done=0, total=None))
        return 0

    assert run(swallow, []) == 130


def test_the_callers_own_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(_command(KeyboardInterrupt()), []) == 130
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_a_finalizer_still_ends_the_command(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # the handler runs here, where Python drops what it raises

    reached = []

    @click.command()
    def finalize() -> None:
        made = Finalized()
        del made
        time.sleep(30)
        reached.append(True)

    before = sys.unraisablehook
    assert run(finalize, []) == 130
    assert not reached
    assert sys.unraisablehook is before
    assert (
        capfd.readouterr().err.strip()
        == "Interrupted. Nothing was left half written; the next run resumes from the cache."
    )
