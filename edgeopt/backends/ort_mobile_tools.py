"""ONNX Runtime's own tools for phones, each in a process of its own: the converter and the usability check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeopt.agent.runners.contract import first_useful_line
from edgeopt.core.errors import BackendError

__all__ = ["Conversion", "ProviderUse", "check_usability", "convert", "parse_usability"]

Style = Literal["runtime", "fixed"]
Platform = Literal["arm", "amd64"]
_TIMEOUT_S = 1800
# The converter writes its tables in the order of a hash that is seeded with an address: without this, two runs give
# two files. Where the system forbids it (some containers, macOS), the files differ in that order and in nothing else.
_FIXED_ADDRESSES = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).personality(0x0040000)
except (AttributeError, OSError):
    pass
os.execv(sys.executable, [sys.executable, "-P", *sys.argv[1:]])
"""
# ONNX Runtime's own warnings go to stderr; only what the check says comes out.
_USABILITY = """
import logging, runpy, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
sys.argv = ["check", "model.onnx"]
runpy.run_module("onnxruntime.tools.check_onnx_model_mobile_usability", run_name="__main__")
"""
_SECTION = re.compile(r"^Checking (?P<provider>NNAPI|CoreML \w+)$")
_PARTS = re.compile(r"^(?P<parts>\d+) partitions with a total of (?P<taken>\d+)/(?P<nodes>\d+) nodes")
_VERDICT = re.compile(
    r"^Model should perform well with [\w ]+? (?:as is|if modified [\w ]+): (?P<verdict>YES|MAYBE|NO)$"
)
_UNSUPPORTED = re.compile(r"^\s*Unsupported ops: (?P<ops>.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What the converter wrote.

    Attributes:
        model: The ``.ort`` file.
        operators: The operators and types that a reduced build of ONNX Runtime needs, without its comments.
    """

    model: Path
    operators: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderUse:
    """What the usability check says of one provider of phones, for the graph as it is or at fixed sizes.

    Attributes:
        provider: ``NNAPI``, ``CoreML NeuralNetwork``, ``CoreML MLProgram``.
        fixed_sizes: The figures are for the graph with its dynamic sizes fixed.
        parts: Pieces that the provider would take; more than two mean copies that cost more than they win.
        taken: Nodes in these pieces, of ``nodes``.
        verdict: ``YES``, ``MAYBE`` or ``NO``, by ONNX Runtime's own rule.
        unsupported: Operators that the provider does not have.
    """

    provider: str
    fixed_sizes: bool
    parts: int
    taken: int
    nodes: int
    verdict: str
    unsupported: tuple[str, ...]

    def sentence(self) -> str:
        """As an event says it."""
        at = " once its sizes are fixed" if self.fixed_sizes else ""
        lacks = f"; it lacks {', '.join(self.unsupported)}" if self.unsupported else ""
        return (
            f"{self.provider} would take {self.taken} of {self.nodes} nodes in {self.parts} "
            f"part{'' if self.parts == 1 else 's'}{at} (worth a try: {self.verdict}{lacks}); "
            "read from ONNX Runtime's usability check, not run on a phone."
        )


def convert(source: Path, made: Path, *, style: Style, platform: Platform, blocked: bool) -> Conversion:
    """Run the converter on ``source/model.onnx``.

    Args:
        source: A folder with the graph alone (the converter takes every graph that it finds).
        made: An empty folder.
        blocked: Let it write the blocked layout of this machine's CPU (x86-64, Fixed style only).

    Raises:
        BackendError: It failed, wrote nothing, or took longer than half an hour.
    """
    # --optimization_style takes all words up to the next flag: it must not stand before the folder.
    arguments = ["--optimization_style", style.capitalize()]
    # Told nothing, it leaves out the blocked layout, whose width is that of this machine's vectors, and int8 activations.
    if platform == "arm" or blocked:
        arguments += ["--target_platform", platform]
    arguments += ["--enable_type_reduction", "--output_dir", str(made), str(source)]
    _run(
        ["-c", _FIXED_ADDRESSES, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", *arguments],
        "ONNX Runtime cannot convert the graph to the .ort format.",
        source,
    )
    ending = ".with_runtime_opt" if style == "runtime" else ""
    model, operators = made / f"model{ending}.ort", made / f"required_operators_and_types{ending}.config"
    for path in (model, operators):
        if not path.is_file():
            raise BackendError("ONNX Runtime's converter ended well and wrote no such file.", got=path.name)
    # Its comments name the files that it was made from, by their paths on this machine.
    lines = [line for line in operators.read_text().splitlines() if not line.startswith("#")]
    return Conversion(model=model, operators="\n".join(lines) + "\n")


def check_usability(source: Path) -> str:
    """What ONNX Runtime's usability check says of ``source/model.onnx``.

    Raises:
        BackendError: It failed.
    """
    what = "ONNX Runtime's usability check for phones failed."
    return _run(["-c", _USABILITY], what, source).rstrip() + "\n"


def parse_usability(text: str) -> tuple[ProviderUse, ...]:
    r"""The check's last word on each provider: as the graph is, or at fixed sizes where it was asked again.

    >>> said = "Checking NNAPI\n1 partitions with a total of 3/4 nodes can be handled by the NNAPI EP.\n"
    >>> parse_usability(said + "Model should perform well with NNAPI as is: YES\n")[0].taken
    3
    """
    found: dict[str, ProviderUse] = {}
    provider, parts, fixed = "", None, False
    unsupported: tuple[str, ...] = ()
    for line in text.splitlines():
        if section := _SECTION.match(line):
            provider, parts, unsupported, fixed = section["provider"], None, (), False
        elif counted := _PARTS.match(line):
            parts, unsupported = counted, ()
        elif missing := _UNSUPPORTED.match(line):
            unsupported = tuple(op.removeprefix("ai.onnx:") for op in missing["ops"].split(","))
        elif line.startswith("Partition information if the model was updated"):
            fixed = True
        elif (verdict := _VERDICT.match(line)) and parts is not None and provider:
            found[provider] = ProviderUse(
                provider=provider,
                fixed_sizes=fixed,
                parts=int(parts["parts"]),
                taken=int(parts["taken"]),
                nodes=int(parts["nodes"]),
                verdict=verdict["verdict"],
                unsupported=unsupported,
            )
    return tuple(found.values())


def _run(arguments: list[str], what: str, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORT_CONVERT_")}
    # Sets of names are printed in the order of their hashes.
    environment |= {"ORT_DISABLE_TELEMETRY": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{what.rstrip('.')}: it did not end within half an hour.") from error
    if done.returncode != 0:
        # The exception is the last line; the lines above it are the traceback.
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise BackendError(what, got=first_useful_line(said))
    return done.stdout
