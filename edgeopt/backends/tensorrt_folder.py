"""The folder that builds a TensorRT engine on its device: the graph, the scripts, their settings."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import engine_passport, tensorrt_execution
from edgeopt.backends.dla import DlaPlan, plan_dla
from edgeopt.backends.graphs import Graph, copy_graph
from edgeopt.backends.support import check_options
from edgeopt.core.errors import BackendError
from edgeopt.core.sparsity import Pattern
from edgeopt.targets.releases import names_by_l4t
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["ENGINE_SCRIPT", "FOLDER_FILES", "OPTIONS", "PLAN", "build_flags", "dla_plan", "settings_of", "write_folder"]

PLAN = "model.plan"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "workspace_mib": int,
    "min_batch": int,
    "opt_batch": int,
    "max_batch": int,
    "dla": int,
}
_SCRIPTS = Path(__file__).with_name("on_device")
ENGINE_SCRIPT = _SCRIPTS / "build_engine.py"
FOLDER_FILES = (
    ENGINE_SCRIPT,
    *(_SCRIPTS / f"engine_{name}.py" for name in ("config", "failures", "place", "verify")),
    Path(engine_passport.__file__),
    Path(tensorrt_execution.__file__),
)
"""What lies beside the graph: ``build_engine.py`` and what it needs, each as it is."""


def settings_of(graph: Graph, target: Target, rules: RuntimeRules, batch: int) -> dict[str, Any]:
    """What ``build.json`` holds.

    Raises:
        BackendError: An option is unknown, of another type, or asks for what cannot be: batches out of order, a DLA
            that the target has not, a DLA for a graph with Q/DQ.
    """
    given = check_options(rules, OPTIONS)
    dla = _dla(given.get("dla"), graph, target)
    batches = _batches(given, batch, fixed=dla is not None)
    return {
        "onnx": "model.onnx",
        **batches,
        "workspace_mib": given.get("workspace_mib", 1024),
        "sparse_weights": _is_sparse(graph, target),
        "dla": dla,
        "made_for": {
            "target": target.name,
            "arch": target.isa.arch,
            "compute_capability": target.compute_capability,
            "versions": rules.versions,
            "release": target.release.model_dump(mode="json") if target.release else None,
            "releases": names_by_l4t(target),
        },
    }


def write_folder(graph: Graph, settings: Mapping[str, Any], directory: Path) -> Path:
    """Write everything but the engine; returns the ONNX file."""
    model = copy_graph(graph, directory)
    for file in FOLDER_FILES:
        shutil.copyfile(file, directory / file.name)
    (directory / "build.json").write_text(json.dumps(settings, indent=2) + "\n")
    (directory / "trtexec.sh").write_text(_trtexec(graph, settings))
    (directory / "trtexec.sh").chmod(0o755)
    return model


def build_flags(settings: Mapping[str, Any]) -> list[str]:
    """The settings as arguments of ``build_engine.py``; a DLA is the device's affair."""
    names = ("min_batch", "opt_batch", "max_batch", "workspace_mib")
    flags = [part for name in names for part in ("--" + name.replace("_", "-"), str(settings[name]))]
    return [*flags, *(["--sparse-weights"] if settings["sparse_weights"] else [])]


def dla_plan(graph: Graph, settings: Mapping[str, Any]) -> DlaPlan | None:
    """Where each node would run; None where no DLA is asked for."""
    return None if settings["dla"] is None else plan_dla(graph, settings["opt_batch"])


def _batches(given: Mapping[str, Any], batch: int, *, fixed: bool) -> dict[str, int]:
    usual = {"min_batch": batch, "opt_batch": batch, "max_batch": batch}
    if not fixed:
        usual |= {"min_batch": 1, "max_batch": max(batch, 8)}
    chosen = {name: given.get(name, value) for name, value in usual.items()}
    low, best, high = chosen.values()
    if not 1 <= low <= best <= high or not low <= batch <= high:
        raise BackendError(
            "The batches of the TensorRT profile are not in order.",
            got=f"min_batch {low}, opt_batch {best}, max_batch {high}, compiled for batch {batch}",
            fix="They must be 1 <= min_batch <= opt_batch <= max_batch, and hold export.batch.",
        )
    if fixed and low != high:
        raise BackendError(
            "A DLA takes no dynamic shapes.",
            got=f"min_batch {low}, max_batch {high}",
            fix="Leave min_batch and max_batch out, and set export.batch.",
        )
    return chosen


def _dla(core: int | None, graph: Graph, target: Target) -> int | None:
    """The core to build for; None for the float32 reference, which no DLA computes in."""
    if core is None:
        return None
    if not 0 <= core < target.dla_cores:
        raise BackendError(
            f"{target.name} has {target.dla_cores or 'no'} DLA that its TensorRT builds for.",
            got=f"dla: {core}",
            fix="See edgeopt targets show jetson-orin-nx and jetson-agx-orin, and their releases, or leave dla out.",
        )
    if graph.quantized:
        raise BackendError(
            "A DLA takes no QuantizeLinear and DequantizeLinear: its int8 is TensorRT 8's implicit quantization.",
            got=f"{len(graph.quantized)} quantized layers",
            fix="Compile with --recipe fp16 for the DLA, or leave dla out.",
        )
    return core if _has_float16(graph) else None


def _has_float16(graph: Graph) -> bool:
    from onnx import TensorProto  # noqa: PLC0415

    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.model.graph.initializer)


def _is_sparse(graph: Graph, target: Target) -> bool:
    """Whether TensorRT is to look for sparse kernels: it takes them where they are faster, and only where weights allow."""
    return target.has_sparse_tensor_cores and any(Pattern.read(p).is_two_of_four for p in graph.sparse)


def _trtexec(graph: Graph, settings: Mapping[str, Any]) -> str:
    """The same build with trtexec, as a script: it ships with JetPack and with TensorRT's archive, not with pip."""
    arguments = [
        "--onnx=model.onnx",
        "--stronglyTyped",
        f"--saveEngine={PLAN}",
        "--timingCacheFile=timing.cache",
        f"--memPoolSize=workspace:{settings['workspace_mib']}M",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
        *(["--sparsity=enable"] if settings["sparse_weights"] else []),
        *([f"--useDLACore={settings['dla']}", "--allowGPUFallback"] if settings["dla"] is not None else []),
    ]
    if graph.dynamic_batch:
        for flag, batch in (("min", "min_batch"), ("opt", "opt_batch"), ("max", "max_batch")):
            # Every input is named, also those of fixed shape: trtexec takes an input that it does not find for static.
            shapes = [
                f"{spec.name}:{'x'.join(str(dim) for dim in spec.with_batch(settings[batch]).shape)}"
                for spec in graph.inputs
                if spec.has_dynamic_batch
            ]
            arguments.append(f"--{flag}Shapes={','.join(shapes)}")
    line = " ".join(shlex.quote(argument) for argument in arguments)
    return (
        "#!/bin/sh\n# The same build as build_engine.py, with NVIDIA's own tool. Run it on the device.\n"
        'set -e\ncd "$(dirname "$0")"\n'
        f'"${{TRTEXEC:-/usr/src/tensorrt/bin/trtexec}}" {line}\n'
    )
