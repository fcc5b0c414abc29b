"""What a model file is, decided by its content. The standard library only: no torch, no onnx."""

from __future__ import annotations

import io
from pathlib import Path

from edgeopt.core.errors import ModelError
from edgeopt.model.archive import Archive, open_archive
from edgeopt.model.pickles import is_plain, legacy_globals, pickle_globals
from edgeopt.model.protobuf import looks_like_onnx
from edgeopt.model.trained import ModelFormat

__all__ = ["sniff"]

ACCEPTED = (
    "edgeopt reads a torch.export archive (.pt2), a state dict with --factory, a TorchScript archive, "
    "a pickled module with --trust-model, and an ONNX file."
)

# First bytes of files that people try, and the way from there to one that works.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "Fetch it with `git lfs pull`."),
    (b"\x89HDF\r\n", "an HDF5 (Keras) file", "Export the model to ONNX and pass that file."),
    (b"GGUF", "a GGUF file", ACCEPTED),
    (b"%PDF", "a PDF", ACCEPTED),
    (b"<", "an HTML or XML page", "Was a web page saved in place of the model? " + ACCEPTED),
)


def sniff(path: Path) -> ModelFormat:
    """Say which of the accepted forms ``path`` has, whatever its suffix.

    Raises:
        ModelError: The file is missing, a folder, empty, cut short, or none of the accepted forms.
        UnsafeModelError: It is a zip whose directory was tampered with.
    """
    head = _head(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with open_archive(path) as archive:
            return _zip_format(archive)
    if head.startswith(b"\x80") and len(head) > 1 and head[1] in range(2, 6):
        return _pickle_format(path)
    if head[4:8] == b"TFL3":
        raise _foreign(path, "a TensorFlow Lite file", "Export the model to ONNX and pass that file.")
    if head[8:10] == b'{"' and len(head) > 16:
        raise _foreign(
            path,
            "a safetensors file",
            "Turn it into a state dict with `torch.save(safetensors.torch.load_file(path), 'model.pt')`.",
        )
    for magic, what, fix in _FOREIGN:
        if head.startswith(magic):
            raise _foreign(path, what, fix)
    if looks_like_onnx(path):
        return "onnx"
    raise ModelError("This is not a model file that edgeopt knows, or it is cut short.", got=str(path), fix=ACCEPTED)


def _head(path: Path) -> bytes:
    if not path.exists():
        raise ModelError("The model file does not exist.", got=str(path), fix="Check the path.")
    if not path.is_file():
        raise ModelError("The model is a folder, not a file.", got=str(path), fix=ACCEPTED)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"The model file cannot be read: {error.strerror}.", got=str(path)) from error
    if not head:
        raise ModelError("The model file is empty.", got=str(path), fix="Save it again.")
    return head


def _zip_format(archive: Archive) -> ModelFormat:
    names = archive.members
    if "archive_format" in names or "models/model.json" in names:
        return "pt2"
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        content = archive.read("data.pkl")
        try:
            return "state-dict" if is_plain(pickle_globals(io.BytesIO(content))) else "pickle"
        except ValueError as error:
            raise ModelError(
                f"The archive's member 'data.pkl' is no pickle: {error}.", got=str(archive.path), fix="Save it again."
            ) from error
    if "serialized_exported_program.json" in {i.filename for i in archive.file.infolist()}:
        raise _foreign(
            archive.path,
            "a torch.export archive of torch 2.7 or older",
            "Load it with that torch, and save it again with a newer one.",
        )
    raise _foreign(archive.path, "a zip archive that torch did not write", ACCEPTED)


def _pickle_format(path: Path) -> ModelFormat:
    with path.open("rb") as file:
        try:
            names = legacy_globals(file)
        except ValueError as error:
            raise ModelError(
                f"The file begins like a pickle but cannot be read as one: {error}.",
                got=str(path),
                fix="It is probably cut short: copy or save it again.",
            ) from error
    return "state-dict" if is_plain(names) else "pickle"


def _foreign(path: Path, what: str, fix: str) -> ModelError:
    return ModelError(f"This is {what}.", got=str(path), fix=fix)
