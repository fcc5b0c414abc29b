"""ExecuTorch's QNN delegate: a float graph lowered for a Snapdragon's Hexagon, in a process of its own.

The delegate loads Qualcomm's libraries, which end the process where something is wrong, and finds them only on a library
path that stood before the process began. They are those of the package onnxruntime-qnn, of the one version that this
ExecuTorch's delegate speaks to.

    python -m edgeopt.backends.executorch_qnn GRAPH.onnx BATCH SOC OUT.pte
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeopt.backends.executorch_delegates import ELSEWHERE, Lowered, read_lowered, refuse_nothing_taken
from edgeopt.backends.support import installed_version
from edgeopt.core.errors import BackendError, nearest_first

__all__ = ["SOC", "lower_to_qnn"]

SOC = "SM8550"
"""Snapdragon 8 Gen 2, where a target says no other."""
_LIBRARIES = "2.5."
_LONGEST_S = 1800


def lower_to_qnn(graph: Path, batch: int, soc: str) -> Lowered:
    """Lower a float ONNX file; the Hexagon computes it in float16.

    Args:
        soc: As ExecuTorch calls it: ``SM8550`` is Snapdragon 8 Gen 2.

    Raises:
        BackendError: The libraries are absent or of another version; the delegate refused the graph, or took nothing.
    """
    path = os.pathsep.join(filter(None, (str(_libraries()), os.environ.get("LD_LIBRARY_PATH"))))
    # An empty root says that the libraries are on the path: else ExecuTorch would fetch Qualcomm's SDK from the network.
    environment = os.environ | {"LD_LIBRARY_PATH": path, "QNN_SDK_ROOT": ""}
    with tempfile.TemporaryDirectory(prefix="edgeopt-qnn-") as scratch:
        made = Path(scratch) / "model.pte"
        command = [sys.executable, "-m", __spec__.name, str(graph.absolute()), str(batch), soc, str(made)]
        try:
            done = subprocess.run(
                command, env=environment, cwd=scratch, capture_output=True, text=True, timeout=_LONGEST_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError("ExecuTorch's QNN delegate did not end.", got=f"{error.timeout:.0f} s") from error
        report = made.with_suffix(".json")
        if done.returncode or not report.is_file():
            words = (
                report.read_text(encoding="utf-8")
                if report.is_file()
                else _last_words(done.stdout + done.stderr, done.returncode)
            )
            raise BackendError("ExecuTorch cannot lower the graph to QNN.", got=words)
        told = json.loads(report.read_text(encoding="utf-8"))
        lowered = Lowered(data=made.read_bytes(), **{**told, "outside": tuple(told["outside"])})
    refuse_nothing_taken(lowered, ELSEWHERE["qnn"])
    return lowered


def _libraries() -> Path:
    """The folder of Qualcomm's libraries.

    Raises:
        BackendError: They are absent or of another version.
    """
    found = installed_version("onnxruntime-qnn")
    spec = find_spec("onnxruntime_qnn") if found is not None and found.startswith(_LIBRARIES) else None
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            f"ExecuTorch's QNN delegate needs the libraries of onnxruntime-qnn {_LIBRARIES}x.",
            got="none installed" if found is None else f"onnxruntime-qnn {found}",
            fix=f"{ELSEWHERE['qnn'].extra}, in an environment without the extra qnn.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _chip(soc: str, known: Any) -> Any:
    if soc not in known.__members__:
        near = ", ".join(nearest_first(soc, known.__members__))
        raise BackendError("ExecuTorch's QNN delegate knows no such chip.", got=f"soc: {soc}", fix=f"Known: {near}.")
    return known[soc]


def _last_words(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    return lines[-1] if lines else f"it ended with {code}"


def _main(graph: str, batch: str, soc: str, out: str) -> int:
    """In the process of its own: the program, and a report beside it; where that fails, the words."""
    from edgeopt.backends.torch_program.build import build_program  # noqa: PLC0415

    report = Path(out).with_suffix(".json")
    try:
        from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset  # noqa: PLC0415
        from executorch.backends.qualcomm.utils import utils  # noqa: PLC0415

        chip = _chip(soc, QcomChipset)
        program = build_program(Path(graph), int(batch), "ExecuTorch")
        options = utils.generate_htp_compiler_spec(use_fp16=True)
        specs = utils.generate_qnn_executorch_compiler_spec(soc_model=chip, backend_options=options)
        edge = utils.to_edge_transform_and_lower_to_qnn(program.exported.module(), program.example, specs)
        found = read_lowered(edge.exported_program().graph_module, program)
        Path(out).write_bytes(edge.to_executorch().buffer)
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller says it
        report.write_text(" ".join(str(error).split())[:600] or type(error).__name__, encoding="utf-8")
        return 1
    told = {key: value for key, value in dataclasses.asdict(found).items() if key != "data"}
    report.write_text(json.dumps(told), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # Qualcomm's libraries abort where the interpreter takes them down


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
