from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgeopt.agent
from edgeopt.agent.protocol import PROTOCOL_VERSION
from edgeopt.agent.runners import RUNNERS, UnknownRuntimeError, open_runner
from edgeopt.agent.server import serve

AGENT = Path(edgeopt.agent.__file__).parent
SOURCES = sorted(AGENT.rglob("*.py"))


@pytest.fixture
def entry(tmp_path):
    file = tmp_path / "entry.json"
    ports = {"inputs": {"x": ["float32", ["n", 3]]}, "outputs": {"y": ["float32", ["n", 2]]}}
    file.write_text(json.dumps(ports))
    return str(file)


@pytest.fixture
def seven(tmp_path):
    file = tmp_path / "seven.npz"
    np.savez(file, x=np.ones((7, 3), np.float32))
    return str(file)


@pytest.fixture
def talk():
    def talk(*requests):
        lines = [request if isinstance(request, str) else json.dumps(request) for request in requests]
        replies = io.StringIO()
        serve(io.StringIO("".join(line + "\n" for line in lines)), replies, RUNNERS)
        return [json.loads(line) for line in replies.getvalue().splitlines()]

    return talk


def test_hello_tells_the_protocol_and_the_machine(talk):
    (reply,) = talk({"do": "hello"})
    assert reply["protocol"] == PROTOCOL_VERSION
    assert set(reply["machine"]) == {"cpu", "arch", "flags", "cores", "memory_mib", "system", "conditions"}
    assert all(isinstance(text, str) for text in reply["machine"]["conditions"].values())


def test_a_whole_session_answers_each_request(talk, entry, seven, tmp_path):
    out = tmp_path / "out.npz"
    replies = talk(
        {"do": "load", "runtime": "null", "entry": entry, "options": {}, "threads": 1},
        {"do": "first", "inputs": seven},
        {"do": "inputs", "inputs": seven, "batch": 4},
        {"do": "warm", "n": 2},
        {"do": "time", "n": 5},
        {"do": "infer", "inputs": seven, "outputs": str(out), "batch": 4},
        {"do": "memory"},
        {"do": "bye"},
        {"do": "hello"},
    )
    load, first, inputs, warm, time, infer, memory, bye = replies  # nothing is answered after bye
    assert load["inputs"] == {"x": {"dtype": "float32", "shape": ["n", 3]}}
    assert first["cold_start_ms"] == first["load_ms"] + first["first_ms"]
    assert first["load_ms"] == load["load_ms"]
    assert (inputs, infer, bye) == ({"batch": 4}, {"samples": 7}, {})
    assert (warm["n"], warm["converged"]) == (2, None)
    assert len(time["latency_ns"]) == 5
    assert all(isinstance(ns, int) and ns > 0 for ns in time["latency_ns"])
    assert "unavailable" in memory or memory["run_peak_mib"] > 0
    assert np.load(out)["y"].shape == (7, 2)


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        ("{not json", "RequestError", "not JSON"),
        ("[1]", "RequestError", 'an object with a text "do"'),
        ({"do": 3}, "RequestError", 'an object with a text "do"'),
        ({"do": "dance"}, "RequestError", "no request 'dance'. Known: hello, load"),
        ({"do": "warm", "count": 3}, "RequestError", "'warm' has wrong arguments"),
        ({"do": "time", "n": 1}, "OrderError", "No engine is loaded"),
        (
            {"do": "load", "runtime": "nul", "entry": "x"},
            "UnknownRuntimeError",
            "no runtime 'nul'. Known: executorch, litert, null, onnx",
        ),
        ({"do": "load", "runtime": "null", "entry": "/nowhere"}, "FileNotFoundError", "/nowhere"),
    ],
)
def test_a_bad_request_is_answered_and_the_agent_goes_on(talk, request_, kind, message):
    error, after = talk(request_, {"do": "hello"})
    assert error["kind"] == kind
    assert message in error["error"]
    assert after["protocol"] == PROTOCOL_VERSION


def test_the_order_of_requests_is_held(talk, entry, seven):
    load = {"do": "load", "runtime": "null", "entry": entry}
    first = {"do": "first", "inputs": seven}
    _, early, again, _, second, _ = talk(load, {"do": "time", "n": 1}, load, first, first, {"do": "bye"})
    assert early["error"].startswith("No inputs were chosen")
    assert "has an engine already" in again["error"]
    assert "has been run already" in second["error"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.ones((2, 3), np.float32)}, "inputs are ['x']; received ['z']"),
        ({"x": np.ones((2, 3))}, "'x' is float32; received float64"),
        ({"x": np.ones((0, 3), np.float32)}, "the same number of samples, at least one"),
        ({"x": np.float32(1)}, "the same number of samples"),
        ({"x": np.ones((2, 3), np.float32)}, "2 samples, fewer than the batch of 3"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_nothing_is_converted(talk, entry, tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    load = {"do": "load", "runtime": "null", "entry": entry}
    _, reply = talk(load, {"do": "inputs", "inputs": str(tmp_path / "bad.npz"), "batch": 3})
    assert message in reply["error"]


def test_pickled_arrays_are_not_loaded(talk, entry, tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object))
    load = {"do": "load", "runtime": "null", "entry": entry}
    _, reply = talk(load, {"do": "first", "inputs": str(tmp_path / "evil.npz")})
    assert "allow_pickle=False" in reply["error"]


def test_a_host_that_no_longer_reads_ends_the_agent():
    class Closed(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    requests = io.StringIO('{"do": "hello"}\n{"do": "hello"}\n')
    serve(requests, Closed(), RUNNERS)
    assert requests.readline() == '{"do": "hello"}\n'  # the second was not taken


def test_a_plain_copy_of_the_folder_runs_without_edgeopt(tmp_path, entry, seven):
    shutil.copytree(AGENT, tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    requests = [
        {"do": "load", "runtime": "null", "entry": entry},
        {"do": "first", "inputs": seven},
        {"do": "load", "runtime": "edgeopt", "entry": entry},
    ]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "agent"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        check=True,
        timeout=60,
    )
    load, first, _ = [json.loads(line) for line in done.stdout.splitlines()]
    assert load["runtime_version"] == "0"
    assert first["cold_start_ms"] > 0


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(AGENT)))
def test_the_agent_is_written_for_python_3_8(file):
    ast.parse(file.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(AGENT)))
def test_the_agent_imports_nothing_of_edgeopt(file):
    # ExecuTorch's Python runtime takes and gives torch tensors, and brings torch: no other file of the agent has it.
    refused = {"edgeopt"} if file.name == "executorch.py" else {"edgeopt", "torch"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] in refused for name in node.names)
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.split(".")[0] not in refused


def test_starting_the_agent_imports_no_runtime_and_nothing_heavy():
    program = "import sys, edgeopt.agent.server; print([m for m in sys.modules if m.split('.')[0] in %r])"
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "scipy", "pydantic")
    done = subprocess.run(
        [sys.executable, "-c", program % (heavy,)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(AGENT.parent.parent)},
    )
    assert done.stdout.strip() == "[]"


def test_a_runner_opens_by_name(entry):
    with open_runner("null", Path(entry), {}, None) as runner:
        assert runner.infer({"x": np.ones((4, 3), np.float32)})["y"].shape == (4, 2)


def test_an_unknown_runtime_lists_the_known_ones():
    with pytest.raises(UnknownRuntimeError, match=r"no runtime 'onnx'. Known: executorch, litert, null, onnxruntime"):
        open_runner("onnx", Path("x"), {}, None)
