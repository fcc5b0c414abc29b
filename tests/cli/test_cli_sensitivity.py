"""`edgeopt sensitivity` as a user runs it: the table, and no word of a library about itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parents[2] / "examples" / "digits" / "model.pt2"


def test_it_prints_the_groups_and_nothing_that_torchao_says_of_its_cuda_libraries() -> None:
    command = [sys.executable, "-m", "edgeopt", "sensitivity", str(MODEL), "--data", "digits", "--no-cache", "--json"]
    short = ["--set", "steps.mixed.tune_samples=64"]
    done = subprocess.run([*command, *short], capture_output=True, text=True, timeout=300, check=True)
    assert "torchao" not in done.stderr
    assert "KernelPreference" not in done.stderr
    assert len(json.loads(done.stdout)["groups"]) > 1
