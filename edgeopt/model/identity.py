"""The hash that stands for a model: equal where, and only where, everything that determines the model is equal."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.core.errors import ModelError
from edgeopt.core.fingerprint import hash_bytes, hash_file, hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.model.sniff import sniff

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["file_identity", "identify", "program_sha256", "source_files"]

# Part of every identity: raise it when a loader starts to read the same file differently.
_VERSION = 1


def identify(
    path: Path,
    *,
    inputs: Sequence[TensorSpec] = (),
    factory: str | None = None,
    factory_args: Mapping[str, str] | None = None,
) -> str | None:
    """What `load_model` would give as ``identity``, without importing torch.

    Returns:
        None with a factory, and for a pickled module: only running them shows which source files they use.

    Raises:
        ModelError: The file is missing or none of the accepted forms; for ONNX also if its external data is not
            where it may be.
    """
    kind = sniff(path)
    if factory is not None or kind in ("state-dict", "pickle"):
        return None
    if kind == "onnx":
        from edgeopt.model.onnxfile import external_files  # noqa: PLC0415  onnx takes a while to import

        return file_identity(path, inputs=inputs, extra=external_files(path))
    return file_identity(path, inputs=inputs, factory=factory, factory_args=factory_args)


def file_identity(
    path: Path,
    *,
    inputs: Sequence[TensorSpec],
    factory: str | None = None,
    factory_args: Mapping[str, str] | None = None,
    extra: Mapping[str, Path] | None = None,
) -> str:
    """Hash a model file, what the user said about it, and further files by their names.

    Args:
        path: The model file; its name does not count.
        inputs: As the user gave them.
        factory: ``module:callable`` and its arguments, as given.
        factory_args: Likewise.
        extra: External data, or the sources behind the factory.
    """
    return hash_json(
        {
            "version": _VERSION,
            "file": hash_file(path),
            "inputs": [str(spec) for spec in inputs],
            "factory": factory,
            "factory_args": dict(factory_args or {}),
            "extra": {name: hash_file(file) for name, file in sorted((extra or {}).items())},
        }
    )


def source_files(module: str) -> dict[str, Path]:
    """The Python files behind a factory: its whole top-level package, or the modules loaded from its folder.

    Call it after the factory ran, when everything that it imports is imported.

    Args:
        module: The imported module that holds the factory.
    """
    top = sys.modules[module.partition(".")[0]]
    file = getattr(top, "__file__", None)
    folders = [Path(entry) for entry in getattr(top, "__path__", ())]
    if folders:
        files = [path for folder in folders for path in folder.rglob("*.py")]
        root = folders[0].parent
    elif file is None:
        return {}
    else:
        root = Path(file).parent
        libraries = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
        alone = root.resolve() in libraries
        files = [Path(file)] if alone else [path for path in _loaded_files() if path.is_relative_to(root)]
    return {str(path.relative_to(root)): path for path in files if path.is_file() and path.is_relative_to(root)}


def _loaded_files() -> list[Path]:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return [Path(file) for file in files if file and file.endswith(".py") and "site-packages" not in file]


def program_sha256(program: ExportedProgram) -> str:
    """Hash an in-memory program: its graph and every weight and constant."""
    import torch  # noqa: PLC0415  this module must not need torch for files

    def tensor_hash(value: Any) -> str:
        if not isinstance(value, torch.Tensor):
            raise ModelError("The model holds a constant that is not a tensor.", got=type(value).__name__)
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return hash_bytes(f"{value.dtype}{tuple(value.shape)}".encode() + flat.numpy().tobytes())

    tensors = {**program.state_dict, **program.constants}
    return hash_json(
        {
            "graph": str(program.graph),
            "signature": str(program.graph_signature),
            "ranges": str(program.range_constraints),
            "tensors": {name: tensor_hash(value) for name, value in sorted(tensors.items())},
        }
    )
