"""Every artifact as an edgeopt Engine, so that one runner with one set of options runs them all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeopt.agent.runners.openvino import import_openvino
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.engine import Engine
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.fingerprint import hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.pipeline.records import read_engine, write_engine
from edgeopt.targets.host import detect_host
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules
from peers.artifacts import Artifact, Own
from peers.environments import PEERS
from peers.nets import Net

__all__ = ["FP32", "RUNTIMES", "Entry", "list_entries"]

RUNTIMES = ("onnxruntime", "openvino")
FP32 = "FP32"
_BATCH = 1


@dataclass(kw_only=True)
class Entry:
    """One row of the table.

    Attributes:
        tool: ``FP32``, ``edgeopt RECIPE``, or a peer with its variant.
        own: Whether edgeopt made it.
        engine: None where there is none; ``error`` says why.
        artifact: The peer's; None for FP32 and edgeopt.
    """

    tool: str
    runtime: str
    own: bool
    engine: Engine | None
    artifact: Artifact | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        """Unique within a net."""
        return f"{self.tool} on {self.runtime}"


def list_entries(net: Net, owns: Mapping[str, Own], artifacts: list[Artifact], work: Path) -> list[Entry]:
    """FP32, edgeopt and the peers on each runtime that their files are for."""
    entries: list[Entry] = []
    for runtime in RUNTIMES:
        entries += _own(owns, runtime)
        for artifact in artifacts:
            if runtime in PEERS[artifact.peer].variants[artifact.variant].runtimes:
                entry = _peers(net, artifact, runtime, work)
                entries += [entry, *_in_bfloat16(entry)]
    return entries


def _own(owns: Mapping[str, Own], runtime: str) -> list[Entry]:
    entries = []
    for recipe, own in owns.items():
        for (where, precision), engine in own.engines.items():
            if where == runtime:
                is_reference = precision == "fp32"
                tool = FP32 if is_reference else f"edgeopt {recipe}"
                entries.append(Entry(tool=tool, runtime=runtime, own=not is_reference, engine=engine))
    unique = {entry.tool: entry for entry in entries}  # each recipe brings the same FP32 engine
    return sorted(unique.values(), key=lambda entry: entry.own)


def _peers(net: Net, artifact: Artifact, runtime: str, work: Path) -> Entry:
    entry = Entry(tool=artifact.title, runtime=runtime, own=False, engine=None, artifact=artifact, error=artifact.error)
    if artifact.file is None:
        return entry
    rules = next(rules for rules in find_target("local").runtimes if rules.name == runtime)
    version = BACKENDS[runtime].available().version
    key = hash_json([version, rules.model_dump(mode="json"), artifact.file.parent.name])
    folder = work / "engines" / f"{artifact.file.parent.name}-{runtime}-{key[:12]}"
    try:
        if not (folder / "engine.json").is_file():
            _build(net, artifact.file, rules, folder)
        entry.engine = read_engine(folder)
    except EdgeOptError as error:
        entry.error = " ".join(str(error).split())
    return entry


def _in_bfloat16(entry: Entry) -> list[Entry]:
    """A peer's file as OpenVINO runs it unasked where the CPU has bfloat16: what it leaves in float in that type."""
    if entry.engine is None or entry.runtime != "openvino" or "avx512_bf16" not in detect_host().features:
        return []
    properties = {**entry.engine.options["properties"], "INFERENCE_PRECISION_HINT": "bf16"}
    engine = replace(entry.engine, options={**entry.engine.options, "properties": properties})
    return [replace(entry, tool=f"{entry.tool}, bf16", engine=engine)]


def _build(net: Net, file: Path, rules: RuntimeRules, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    directory = folder / "engine"
    directory.mkdir(parents=True)
    if file.suffix == ".xml":
        write_engine(folder, _from_ir(net, file, directory))
    else:
        write_engine(folder, BACKENDS[rules.name].compile(file, find_target("local"), rules, directory, _BATCH))


def _from_ir(net: Net, file: Path, folder: Path) -> Engine:
    """A peer's OpenVINO IR at a static shape, with the options of edgeopt's own OpenVINO engines."""
    ov = import_openvino()
    model = ov.Core().read_model(str(file))
    model.reshape({name: [_BATCH, *list(model.input(name).get_partial_shape())[1:]] for name in net.input_names})
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    inputs = tuple(_spec(port, name) for port, name in zip(model.inputs, net.input_names, strict=True))
    outputs = tuple(_spec(port, min(port.get_names())) for port in model.outputs)
    return Engine(
        runtime="openvino",
        runtime_version=ov.get_version().split("-")[0],
        directory=folder,
        entry="model.xml",
        status="built",
        inputs=inputs,
        outputs=outputs,
        options={
            "device": "CPU",
            "properties": {"INFERENCE_PRECISION_HINT": "f32"},
            "inputs": [spec.name for spec in inputs],
            "outputs": [spec.name for spec in outputs],
            "dynamic_batch": [],
        },
    )


def _spec(port: object, name: str) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype=str(np.dtype(port.get_element_type().to_dtype())),  # type: ignore[attr-defined]
        shape=tuple(port.get_shape()),  # type: ignore[attr-defined]
    )
