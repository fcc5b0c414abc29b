"""Bad input through the real command line: one clear error, its exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from bad_inputs import CASES, Case, Unavailable, World, compiled, made_beside, new_world
from quick import FAST

from edgeopt.bundle.load import load_bundle, verify_files
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

EDGEOPT = [sys.executable, "-c", "from edgeopt.cli.main import main; main()"]
PROGRESS = re.compile(r"[\w ./'@-]+: \d+\.\d s")


@pytest.fixture
def world(mlp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A case's world, with a folder of its own for temporary files."""
    with new_world(mlp) as made:
        scratch = made.folder.parent / "temporary"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        yield made


def arguments_of(case: Case, world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    try:
        arguments = case.arguments(world)
    except Unavailable as reason:
        pytest.skip(str(reason))
    for key, value in world.environment.items():
        monkeypatch.setenv(key, value)
    return arguments


def stages() -> set[Path]:
    return set(Path(os.environ["EDGEOPT_CACHE_DIR"]).glob("*/*/stage.json"))


def message_of(errors: str) -> str:
    """The error, after checking that it is the only thing on stderr beside progress."""
    lines = [line for line in errors.splitlines() if not PROGRESS.fullmatch(line)]
    if lines and lines[0].startswith("Usage: "):  # click shows how the command is called
        del lines[: next(i for i, line in enumerate(lines) if line.startswith("Error: "))]
    assert lines, errors
    assert lines[0].startswith("Error: "), errors
    assert sum(line.startswith("Error: ") for line in lines) == 1, errors
    assert not re.search(r"Traceback|Internal error|Warning|WARNING|^[WEI]\d{4} ", errors, re.MULTILINE), errors
    return "\n".join(lines).removeprefix("Error: ")


def temporary_files(folder: Path) -> list[str]:
    """Without the folder of locks, which runs share, and the one that torch makes when it is imported."""
    return [p.name for p in folder.iterdir() if not p.name.startswith(("edgeopt-locks-", "torchinductor_"))]


def nothing_is_left(case: Case, world: World) -> None:
    assert not world.marker.exists(), "code in the file was executed"
    left = made_beside(world)
    kept = [str(world.output), *(str(world.output / name) for name in case.kept)] if case.kept else []
    assert left == kept
    assert temporary_files(Path(tempfile.gettempdir())) == []
    cache = Path(os.environ["EDGEOPT_CACHE_DIR"])
    assert list(cache.glob("*/.partial-*")) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_clear_error(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = arguments_of(case, world, monkeypatch)
    before = stages()
    code = run(cli, arguments)
    captured = capfd.readouterr()
    message = message_of(captured.err)
    assert code == case.code, captured.err
    assert captured.out == ""
    for said in case.says:
        assert re.search(said, message, re.DOTALL), f"{said!r} is not in: {message}"
    nothing_is_left(case, world)
    if case.before_work:
        assert stages() == before

    code = run(cli, [*arguments, "--json"])  # the same again, for a machine to read
    captured = capfd.readouterr()
    assert code == case.code
    document = json.loads(captured.out)["error"]
    assert set(document) == {"type", "message", "what", "got", "fix"}
    assert document["message"] == message_of(captured.err)
    nothing_is_left(case, world)


SPOT_CHECKS = ["model: a pickle with code", "data: NaN in a sample", "recipe: unknown key", "usage: no target"]


@pytest.mark.parametrize("name", SPOT_CHECKS)
def test_a_process_of_its_own_says_the_same(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a fresh process shows: warnings at import and at exit, and the code that the shell sees."""
    case = next(case for case in CASES if case.name == name)
    arguments = arguments_of(case, world, monkeypatch)
    done = subprocess.run([*EDGEOPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == case.code
    message = message_of(done.stderr)
    assert all(re.search(said, message, re.DOTALL) for said in case.says)


def test_a_normal_compile_says_nothing_on_stderr_but_progress(world: World) -> None:
    done = subprocess.run([*EDGEOPT, *compiled(world, target="local")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)] == []


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def is_agent(process: psutil.Process) -> bool:
    try:
        return "edgeopt.agent" in process.cmdline()
    except psutil.Error:
        return False


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def old_bundle(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that a later run is to replace."""
    output = tmp_path_factory.mktemp("old") / "bundle"
    model, data = str(mlp / "mlp.pt2"), str(mlp / "mlp.npz")
    assert run(cli, ["compile", model, "-t", "openvino-cpu", "-d", data, "-o", str(output), *FAST]) == 0
    return output


def test_a_bundle_is_not_judged_on_data_that_does_not_fit(
    old_bundle: Path, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    data = world.npz(x=np.zeros((100, 21), np.float32))
    assert run(cli, ["eval", str(old_bundle), "--data", str(data)]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "samples of [21], where the model takes [20]" in message_of(captured.err)


@pytest.mark.long
@pytest.mark.parametrize("when", ["while the model is loaded", "while an agent measures"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_an_interrupted_run_leaves_the_old_bundle_and_no_agent(
    how: signal.Signals, when: str, world: World, old_bundle: Path
) -> None:
    manifest = (old_bundle / "manifest.json").read_bytes()
    scratch, cache = world.folder / "scratch", world.folder / "cache"
    scratch.mkdir()
    cache.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch), "EDGEOPT_CACHE_DIR": str(cache)}
    # Long enough that the signal finds the agent at work.
    more = ["-o", str(old_bundle), "--set", "measure.latency_samples=100000", "--set", "measure.roofline=false"]
    started = subprocess.Popen(
        [*EDGEOPT, *compiled(world, None, *more)],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process, agents = psutil.Process(started.pid), []

    def is_there() -> bool:
        if when == "while the model is loaded":
            return any(cache.glob("model/.partial-*"))
        agents[:] = [child for child in process.children() if is_agent(child)]
        return bool(agents)

    wait_for(is_there)
    started.send_signal(how)
    out, errors = started.communicate(timeout=60)
    wait_for(lambda: not any(alive(agent) for agent in agents), 20)
    assert out == ""
    assert (old_bundle / "manifest.json").read_bytes() == manifest
    assert verify_files(load_bundle(old_bundle)) == []
    assert [path.name for path in old_bundle.parent.iterdir()] == ["bundle"]
    if how == signal.SIGKILL:  # nobody is left to clean up; the next run does, and does not stumble over it
        assert started.returncode == -how
        return
    assert started.returncode == 130, errors
    said = [line for line in errors.splitlines() if line and not PROGRESS.fullmatch(line)]
    assert said == ["Interrupted. Nothing was left half written; the next run resumes from the cache."]
    assert temporary_files(scratch) == []
    assert list(cache.glob("*/.partial-*")) == []
