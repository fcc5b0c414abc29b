from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import edgeopt


def test_the_names_of_devices_cost_no_heavy_import():
    program = (
        "import sys, edgeopt.devices as d; list(d.DEVICES); print({'pydantic', 'numpy', 'torch'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(edgeopt.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "set()"
