"""What planning costs: the script runs on a shallow net of the same shapes, and a missed limit is its exit code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/pruning_plan.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pruning_plan", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_plans_in_a_process_of_its_own_and_says_what_that_took():
    command = [sys.executable, str(SCRIPT), "--blocks", "1", "1", "1", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"^planning: \d+\.\d s, at most 20: ", done.stdout, re.MULTILINE), done.stderr
    assert re.search(r"^peak memory: \d+\.\d MiB, at most 2000: holds$", done.stdout, re.MULTILINE)
    left, whole = map(float, re.search(r"(\d\.\d\d) of (\d\.\d\d) G", done.stdout).groups())
    assert 0.4 < left / whole <= 0.5


def test_the_net_has_the_parameters_of_resnet_50(script):
    assert sum(parameter.numel() for parameter in script.resnet(script.BLOCKS).parameters()) == 25_557_032


@pytest.mark.parametrize(("seconds", "mib", "code"), [(20.0, 2000.0, 0), (20.1, 500.0, 1), (5.0, 2000.1, 1)])
def test_a_missed_limit_is_the_exit_code(script, capsys, seconds, mib, code):
    assert script.verdict(seconds, mib) == code
    assert ("MISSED" in capsys.readouterr().out) is bool(code)
