"""The peers: what each needs installed, how it can be asked to quantize, and which runtimes its files are for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PEERS", "Peer", "Variant", "make_environment", "python_of"]

_ONNX = ("onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to use a peer.

    Attributes:
        runtimes: What its file is run on.
        suffix: Of the file that it writes.
        timed: Whether its time is compared with edgeopt's: then it is taken anew in each run.
    """

    runtimes: tuple[str, ...] = _ONNX
    suffix: str = ".onnx"
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool in an environment of its own.

    Attributes:
        title: As the table names it.
        script: In ``tools/``; run by the environment's Python.
        requirements: For pip, pinned. Where one pulls torch in, torch is pinned to a version whose wheel is for CPUs.
        variants: By name: its defaults, and its best known settings.
    """

    title: str
    script: str
    requirements: tuple[str, ...]
    variants: Mapping[str, Variant] = field(default_factory=dict)


_IR = {"runtimes": ("openvino",), "suffix": ".xml"}
_COMMON = ("onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6")

PEERS: Mapping[str, Peer] = {
    "nncf": Peer(
        title="NNCF",
        script="run_nncf.py",
        requirements=("nncf==3.4.0", "openvino==2026.4.1", *_COMMON),
        variants={
            "onnx-default": Variant(timed=True),
            "onnx-mixed": Variant(),
            "onnx-accurate": Variant(),
            "openvino-default": Variant(timed=True, **_IR),
            "openvino-mixed": Variant(**_IR),
            "openvino-accurate": Variant(**_IR),
        },
    ),
    "onnxruntime": Peer(
        title="ONNX Runtime",
        script="run_onnxruntime.py",
        requirements=(*_COMMON, "sympy==1.14.0"),
        variants={"default": Variant(), "u8s8-per-channel": Variant(), "s8s8-per-channel": Variant()},
    ),
    "modelopt": Peer(
        title="Model-Optimizer",
        script="run_modelopt.py",
        # Its extra [onnx] wants onnxruntime-gpu and CuPy; what it needs of that list on a CPU:
        requirements=(
            "nvidia-modelopt==0.47.0",
            "torch==2.13.0",
            "onnx==1.21.0",
            "onnxruntime==1.24.4",
            "onnx-graphsurgeon==0.6.1",
            "onnxconverter-common==1.16.0",
            "onnxscript==0.7.2",
            "onnxslim==0.1.98",
            "polygraphy==0.53.6",
            "lief==1.0.0",
            "ml_dtypes==0.6.0",
            "cppimport==26.4.17",
            "numpy==2.4.6",
        ),
        variants={"default": Variant(), "max": Variant()},
    ),
    "neural-compressor": Peer(
        title="Neural Compressor",
        script="run_neural_compressor.py",
        requirements=(
            "neural-compressor==2.6",  # 3.x has no ONNX
            "onnx==1.16.2",
            "onnxruntime==1.19.2",
            "numpy==1.26.4",
            "setuptools==79.0.1",  # it imports pkg_resources
            "six==1.17.0",  # and this, undeclared
        ),
        # By default it writes operators on integers (QLinearConv), which OpenVINO does not have.
        variants={"default": Variant(runtimes=("onnxruntime",)), "qdq": Variant()},
    ),
    "aimet": Peer(
        title="AIMET",
        script="run_aimet.py",
        requirements=("aimet-onnx==2.42.0", "torch==2.13.0", *_COMMON),
        variants={"default": Variant(), "per-channel-equalized": Variant()},
    ),
}


def python_of(name: str, work: Path) -> Path:
    """The Python of a peer's environment, ``work/NAME/venv``; made where it is missing or was made for other pins.

    Raises:
        RuntimeError: pip could not install the peer; its last words are in the message.
    """
    return make_environment(PEERS[name].title, PEERS[name].requirements, work / name)


def make_environment(title: str, requirements: tuple[str, ...], folder: Path) -> Path:
    """The Python of ``folder/venv``; made where it is missing or was made for other pins.

    Raises:
        RuntimeError: pip could not install it; its last words are in the message.
    """
    python, stamp, wanted = folder / "venv/bin/python", folder / "installed.txt", "\n".join(requirements)
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing {title} into {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip cannot install {title}: {' '.join(done.stderr.split())[-400:]}")
    stamp.write_text(wanted)
    return python
