"""A loaded model on disk: its facts readable without torch, its program loaded on demand."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.core.errors import ModelError
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_file
from edgeopt.core.sparsity import SparseWeight
from edgeopt.core.spec import TensorSpec
from edgeopt.model.quiet import quiet
from edgeopt.model.trained import TrainedModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from typing_extensions import Buffer

__all__ = ["load_program", "load_stored", "save_model"]

_FACTS, _PROGRAM, _ONNX = "model.json", "program.pt2", "onnx"
_VERSION = 1
_MOST_KEPT = 256 * 2**20  # bytes of a program that is kept in memory
_RECENT: dict[str, ExportedProgram] = {}  # the last one, by the hash of its file


def save_model(model: TrainedModel, directory: Path) -> None:
    """Write the model's facts and its program (or its ONNX file, with external data) into an empty ``directory``.

    ``model.json`` is written last: a folder without it is not a stored model. Example inputs are not stored.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if model.program is not None:
        files.append(_save_program(model.program, directory / _PROGRAM))
    if model.onnx_path is not None:
        files += _copy_onnx(model.onnx_path, directory / _ONNX)
    facts: dict[str, Any] = {
        "version": _VERSION,
        "name": model.name,
        "inputs": [_spec_json(spec) for spec in model.inputs],
        "outputs": [_spec_json(spec) for spec in model.outputs],
        "source": str(model.source) if model.source else None,
        "format": model.format,
        "sha256": model.sha256,
        "identity": model.identity,
        "parameters": model.parameters,
        "events": [dataclasses.asdict(event) for event in model.events],
        "sparse": {name: dataclasses.asdict(one) for name, one in model.sparse.items()},
        "onnx": model.onnx_path.name if model.onnx_path else None,
        "files": {str(file.relative_to(directory)): hash_file(file) for file in files},
    }
    (directory / _FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")


def load_stored(directory: Path, *, with_program: bool) -> TrainedModel:
    """Read what `save_model` wrote.

    Args:
        directory: Where it wrote.
        with_program: Whether to load the program, which imports torch. Without it ``program`` is None, for every
            format: `load_program` brings it later.

    Raises:
        ModelError: The folder is not a stored model, or a file in it changed.
    """
    facts = _facts(directory)
    return TrainedModel(
        name=facts["name"],
        program=load_program(directory) if with_program and facts["onnx"] is None else None,
        onnx_path=directory / _ONNX / facts["onnx"] if facts["onnx"] else None,
        inputs=tuple(_spec(item) for item in facts["inputs"]),
        outputs=tuple(_spec(item) for item in facts["outputs"]),
        source=Path(facts["source"]) if facts["source"] else None,
        format=facts["format"],
        sha256=facts["sha256"],
        identity=facts["identity"],
        parameters=facts["parameters"],
        events=tuple(Event(**item) for item in facts["events"]),
        sparse={name: _sparse(item) for name, item in facts.get("sparse", {}).items()},
    )


def load_program(directory: Path) -> ExportedProgram:
    """Load the program that `save_model` wrote.

    It is edgeopt's own file: its hash is compared, it is not scanned as a user's file is. The last one is kept in memory, as
    stage after stage wants it; each caller gets a program and weights of its own.

    Raises:
        ModelError: The folder holds no program, or the file changed since.
    """
    import torch  # noqa: PLC0415  the facts are read without it

    from edgeopt.model.copies import copied_program  # noqa: PLC0415  likewise

    files = _facts(directory)["files"]
    path = directory / _PROGRAM
    if _PROGRAM not in files or not path.is_file() or hash_file(path) != files[_PROGRAM]:
        raise ModelError(
            "The stored program is missing or was changed.",
            got=str(path),
            fix="Remove the folder, and load the model again.",
        )
    if files[_PROGRAM] not in _RECENT:
        with quiet():
            program = torch.export.load(path)
        if path.stat().st_size > _MOST_KEPT or any(node.op == "get_attr" for node in program.graph.nodes):
            return program
        _RECENT.clear()
        _RECENT[files[_PROGRAM]] = program
    return copied_program(_RECENT[files[_PROGRAM]])


def _save_program(program: ExportedProgram, path: Path) -> Path:
    import torch  # noqa: PLC0415  only who stores a program has it

    examples = program.example_inputs
    # torch stores the example inputs with their whole storage: perhaps the user's data set.
    program.example_inputs = None
    try:
        with _Careful(path, "w") as file:
            torch.export.save(program, file)
        if file.error is not None:
            raise file.error
    finally:
        program.example_inputs = examples
    return path


class _Careful(io.FileIO):
    """A file for torch to write to. An error is kept for later: raised inside torch's writer, it aborts the process."""

    error: OSError | None = None

    def write(self, content: Buffer) -> int:
        """Write all of it, or, after the first error, pretend to."""
        view, done = memoryview(content).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)


def _copy_onnx(source: Path, folder: Path) -> list[Path]:
    from edgeopt.model.onnxfile import external_files  # noqa: PLC0415  onnx takes a while to import

    pairs = [(source, folder / source.name)]
    pairs += [(file, folder / name) for name, file in external_files(source).items()]
    for file, copy in pairs:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return [copy for _, copy in pairs]


def _facts(directory: Path) -> dict[str, Any]:
    try:
        facts = json.loads((directory / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            "The folder is not a stored model.", got=str(directory), fix="Load the model again."
        ) from error
    if not isinstance(facts, dict) or facts.get("version") != _VERSION:
        raise ModelError(
            "The stored model was written by another version of edgeopt.",
            got=str(directory),
            fix="Load the model again.",
        )
    return facts


def _sparse(item: dict[str, Any]) -> SparseWeight:
    return SparseWeight(pattern=item["pattern"], axis=item["axis"], nodes=tuple(item["nodes"]))


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _spec(item: dict[str, Any]) -> TensorSpec:
    return TensorSpec(name=item["name"], dtype=item["dtype"], shape=tuple(item["shape"]))
