"""What lies beside a Core ML package: the script that proves it on a Mac, and what it needs to know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeopt.backends.coreml import PACKAGE, SCRIPT, SETTINGS
from edgeopt.backends.coreml_names import PORT_TYPES
from edgeopt.backends.torch_program.build import TorchProgram
from edgeopt.bundle.tolerance import TOLERANCES
from edgeopt.core.spec import TensorSpec

__all__ = ["write_script"]


def write_script(directory: Path, program: TorchProgram, features: Mapping[str, str], minimum: str) -> None:
    """Write ``verify_coreml.py`` and ``coreml.json``.

    Whoever ships the folder adds ``reference_inputs.npz`` and ``reference_outputs.npz``, names as in the graph.
    """
    plan = program.plan
    settings = {
        "package": PACKAGE,
        "minimum_deployment_target": minimum,
        "inputs": _ports(plan.inputs, features),
        "outputs": _ports(program.outputs, features),
        "tolerance": TOLERANCES[_precision(program)][0],
    }
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(SCRIPT, directory / SCRIPT.name)


def _ports(specs: Sequence[TensorSpec], features: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "feature": features[spec.name],
            "dtype": PORT_TYPES[spec.dtype],
            "shape": list(spec.shape),
        }
        for spec in specs
    ]


def _precision(program: TorchProgram) -> str:
    """By what the graph holds, for the tolerance."""
    if program.plan.graph.quantized:
        return "int8"
    constants = program.plan.constants.values()
    return "fp16" if any(array.dtype.name == "float16" for array in constants) else "fp32"
