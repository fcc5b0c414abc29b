"""A TorchScript archive, converted to an exported program.

What makes reading one acceptable without `trust`: its pickles are read by a C++ unpickler that knows TorchScript's own
types and imports no Python, and its code is TorchScript, which can call registered operators only. Two things are
left, and looked for in the archive's source before it is loaded: operators that touch files (`torch.save`,
`torch.from_file`), which a `__setstate__` could run while loading, and classes or operators of other libraries.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.core.spec import TensorSpec
from edgeopt.model.archive import Archive, open_archive
from edgeopt.model.examples import example_inputs
from edgeopt.model.failures import first_line
from edgeopt.model.quiet import quiet

__all__ = ["convert_script", "load_script"]

_FILES = re.compile(r"\b(?:torch|ops\.aten|aten)\s*\.\s*(save|load|from_file)\b")
_FOREIGN = re.compile(
    r"\bops\s*\.\s*(?!(?:aten|prim|prims|quantized|quantized_decomposed|torchvision|torchaudio|_caffe2)\b)(\w+)"
    r"|\b(__torch__\.torch\.classes\.[\w.]+)"
)
_FALLBACK = (
    "Export the module that it was made from, with torch.export.export or torch.onnx.export, and pass that file."
)


def load_script(path: Path, *, trust: bool) -> torch.jit.ScriptModule:
    """Read the archive onto the CPU, in eval mode.

    Raises:
        UnsafeModelError: Its code reaches for files or for other libraries, and ``trust`` is not given.
        ModelError: torch cannot read it.
    """
    source: str | io.BytesIO = str(path)
    if not trust:
        with open_archive(path) as archive:
            _refuse_reaching_code(archive)
            # Two zip readers can see two archives in one file: load what was read here.
            source = archive.copy()
    try:
        with quiet():
            script = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(
            f"The TorchScript archive cannot be read ({type(error).__name__}: {first_line(error)}).",
            got=str(path),
            fix=_FALLBACK,
        ) from error
    if not isinstance(script, torch.jit.ScriptModule):
        raise ModelError("The TorchScript archive holds no module.", got=type(script).__name__, fix=_FALLBACK)
    script.eval()
    return script


def convert_script(
    script: torch.jit.ScriptModule, specs: Sequence[TensorSpec], *, batch: int, sharing: Sequence[int]
) -> fx.GraphModule:
    """Convert a script for inputs of ``batch`` rows into a graph module, with the script's parameters as its own.

    Raises:
        ModelError: The script fails on such inputs, or holds what the converter cannot take.
    """
    # Private: torch has no public way. It is guarded here, and its result is compared with the script itself.
    from torch._export.converter import TS2EPConverter  # noqa: PLC0415

    inputs = example_inputs(specs, batch=batch, sharing=sharing)
    try:
        with torch.no_grad():
            script(*inputs)
    except Exception as error:
        raise ModelError(
            f"The TorchScript model itself fails on such inputs ({_last_line(error)}).",
            got=", ".join(f"{spec.name} of shape {tuple(i.shape)}" for spec, i in zip(specs, inputs, strict=True)),
            fix="Check --input: number and order of the inputs, their dtypes and shapes.",
        ) from error
    try:
        with quiet(), torch.no_grad():
            program = TS2EPConverter(script, inputs).convert()
    except Exception as error:
        raise ModelError(
            f"The TorchScript model cannot be converted to an exported program ({type(error).__name__}: "
            f"{first_line(error)}).",
            fix=_FALLBACK,
        ) from error
    module = program.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise TypeError(type(module).__name__)
    _restore_parameters(module, {name for name, _ in script.named_parameters()})
    return module


def _restore_parameters(module: fx.GraphModule, names: set[str]) -> None:
    """The converter makes a buffer of every tensor; what the script trained becomes a parameter again."""
    for name, tensor in list(module.named_buffers()):
        if name in names:
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            delattr(owner, attribute)
            owner.register_parameter(attribute, torch.nn.Parameter(tensor))


def _refuse_reaching_code(archive: Archive) -> None:
    for name in sorted(archive.members):
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        source = archive.read(name).decode("utf-8", "replace")
        for pattern, what in ((_FILES, "reads or writes files"), (_FOREIGN, "needs another library's code")):
            match = pattern.search(source)
            if match:
                line = source.count("\n", 0, match.start()) + 1
                raise UnsafeModelError(
                    f"The TorchScript archive {archive.path.name} {what}: {name}, line {line}: {match[0]}.",
                    fix="Nothing was loaded. Pass --trust-model (trust=True in Python) if you trust who made it.",
                )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
