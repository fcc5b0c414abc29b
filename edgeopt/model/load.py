"""From any accepted form of a model to a `TrainedModel`."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import ExportedProgram

from edgeopt.core.errors import ModelError
from edgeopt.core.fingerprint import hash_file, hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.model.contract import check_given, name_dimensions, order_like_forward
from edgeopt.model.export import Exported, export_module, export_script, refine_program
from edgeopt.model.failures import first_line
from edgeopt.model.identity import file_identity, program_sha256, source_files
from edgeopt.model.pickled import load_pickled_module
from edgeopt.model.quiet import quiet
from edgeopt.model.scan import scanned_copy
from edgeopt.model.signature import program_inputs, program_outputs
from edgeopt.model.sniff import sniff
from edgeopt.model.statedict import build_module, load_state_dict
from edgeopt.model.torchscript import load_script
from edgeopt.model.trained import ModelFormat, TrainedModel, count_parameters

__all__ = ["load_model"]

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_log = logging.getLogger(__name__)


def load_model(
    source: Path | torch.nn.Module | ExportedProgram,
    *,
    inputs: Sequence[TensorSpec] = (),
    factory: str | None = None,
    factory_args: Mapping[str, str] | None = None,
    trust: bool = False,
) -> TrainedModel:
    """Load a model, in eval mode and with a dynamic batch wherever it allows one.

    Args:
        source: A file in any accepted form, whatever its suffix; or a module or exported program in memory. A module
            is copied, not changed.
        inputs: What the model takes, where it does not say so itself; where it does, they are compared.
        factory: ``package.module:callable`` that makes the module of a state dict.
        factory_args: Its keyword arguments, as text.
        trust: Load also what would execute code that the file carries.

    Raises:
        UnsafeModelError: Loading would execute code, and ``trust`` is not given.
        ModelError: The file is none of the accepted forms or damaged, does not match its factory or ``inputs``, or
            torch.export cannot take it.
    """
    if isinstance(source, ExportedProgram):
        return _in_memory("program", refine_program(source), inputs, "pt2")
    if isinstance(source, torch.nn.Module):
        module = _copied(source)
        specs = order_like_forward(module, inputs)
        return _in_memory(type(source).__name__, export_module(module, specs), specs, "module")
    path = Path(source)
    kind = sniff(path)
    if factory is not None and kind != "state-dict":
        raise ModelError(
            "A factory goes with a state dict only.", got=f"{path}, which is a {kind} file", fix="Leave --factory out."
        )
    match kind:
        case "onnx":
            model = _onnx(path, inputs)
        case "state-dict":
            model = _state_dict(path, inputs, factory, factory_args or {})
        case "pickle":
            model = _pickle(path, inputs, trust=trust)
        case "torchscript":
            script = load_script(path, trust=trust)
            specs = order_like_forward(script, inputs)
            model = _from_file(path, kind, export_script(script, specs), specs, file_identity(path, inputs=inputs))
        case _:
            exported = refine_program(_archive(path, trust=trust))
            model = _from_file(path, kind, exported, (), file_identity(path, inputs=inputs))
            check_given(model.inputs, inputs)
    return model


def _pickle(path: Path, inputs: Sequence[TensorSpec], *, trust: bool) -> TrainedModel:
    module = load_pickled_module(path, trust=trust)
    specs = order_like_forward(module, inputs)
    sources = _sources(type(part).__module__ for part in module.modules())
    identity = file_identity(path, inputs=inputs, extra=sources)
    return _from_file(path, "pickle", export_module(module, specs), specs, identity)


def _archive(path: Path, *, trust: bool) -> ExportedProgram:
    try:
        with quiet():
            if trust:
                with path.open("rb") as file:
                    return torch.export.load(file)
            with _weights_only():
                return torch.export.load(scanned_copy(path))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"torch cannot read the exported program ({type(error).__name__}: {first_line(error)}).",
            got=str(path),
            fix=f"Save it again with torch.export.save, with a torch that this one ({torch.__version__}) can read.",
        ) from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """The second belt: even a pickle that the scan overlooked could bring tensors only."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def _state_dict(
    path: Path, inputs: Sequence[TensorSpec], factory: str | None, arguments: Mapping[str, str]
) -> TrainedModel:
    if factory is None:
        raise ModelError(
            "The file holds weights only (a state dict), not the model that they belong to.",
            got=str(path),
            fix="Pass --factory package.module:callable, which makes the module, and --input for its inputs.",
        )
    module = build_module(factory, arguments)
    events = load_state_dict(path, module)
    specs = order_like_forward(module, inputs)
    program, more = export_module(module, specs)
    identity = file_identity(
        path,
        inputs=inputs,
        factory=factory,
        factory_args=arguments,
        extra=_sources([factory.partition(":")[0], *(type(part).__module__ for part in module.modules())]),
    )
    return _from_file(path, "state-dict", (program, (*events, *more)), specs, identity)


def _onnx(path: Path, inputs: Sequence[TensorSpec]) -> TrainedModel:
    from edgeopt.model.onnxfile import describe_onnx, external_files  # noqa: PLC0415  torch's users need no onnx

    own, outputs, parameters = describe_onnx(path)
    check_given(own, inputs)
    return TrainedModel(
        name=path.stem,
        program=None,
        onnx_path=path,
        inputs=own,
        outputs=outputs,
        source=path,
        format="onnx",
        sha256=hash_file(path),
        identity=file_identity(path, inputs=inputs, extra=external_files(path)),
        parameters=parameters,
    )


def _from_file(
    path: Path, kind: ModelFormat, exported: Exported, specs: Sequence[TensorSpec], identity: str
) -> TrainedModel:
    return _trained(path.stem, exported, specs, source=path, kind=kind, sha256=hash_file(path), identity=identity)


def _in_memory(name: str, exported: Exported, specs: Sequence[TensorSpec], kind: ModelFormat) -> TrainedModel:
    sha256 = program_sha256(exported[0])
    identity = hash_json({"program": sha256, "inputs": [str(spec) for spec in specs]})
    model = _trained(name, exported, () if kind == "pt2" else specs, source=None, kind=kind, sha256=sha256,
                     identity=identity)  # fmt: skip
    check_given(model.inputs, specs if kind == "pt2" else ())
    return model


def _trained(
    name: str,
    exported: Exported,
    specs: Sequence[TensorSpec],
    *,
    source: Path | None,
    kind: ModelFormat,
    sha256: str,
    identity: str,
) -> TrainedModel:
    program, events = exported
    if source is not None:
        # With examples, program.module() refuses every other shape; and they may be the user's data.
        program.example_inputs = None
    own = program_inputs(program, [spec.name for spec in specs] if specs else None)
    inputs, outputs = name_dimensions(own, program_outputs(program), specs)
    _log.debug("%s: %s -> %s", name, ", ".join(map(str, inputs)), ", ".join(map(str, outputs)))
    return TrainedModel(
        name=name,
        program=program,
        onnx_path=None,
        inputs=inputs,
        outputs=outputs,
        source=source,
        format=kind,
        sha256=sha256,
        identity=identity,
        parameters=count_parameters(program),
        events=tuple(dict.fromkeys(events)),
    )


def _copied(module: torch.nn.Module) -> torch.nn.Module:
    try:
        module = copy.deepcopy(module)
    except Exception as error:
        raise ModelError(
            f"The module cannot be copied ({type(error).__name__}: {first_line(error)}).",
            got=type(module).__name__,
            fix="Load a fresh one from its state dict, without tensors that are part of a gradient's graph.",
        ) from error
    return module.cpu()


def _sources(modules: Iterable[str]) -> dict[str, Path]:
    own = {name for name in modules if name.partition(".")[0] not in ("torch", "builtins", "__main__")}
    return {key: file for name in sorted(own) for key, file in source_files(name).items()}
