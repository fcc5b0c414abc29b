"""Does the data fit the model? Dtype, shape, labels: each misfit is one clear error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.core.spec import Dim, TensorSpec

__all__ = ["check_dtype", "check_labels", "check_shape", "class_count", "shown"]


def check_dtype(dtype: np.dtype, spec: TensorSpec, where: str, *, converts: bool) -> None:
    """Refuse a dtype that is not the input's; nothing is cast in silence.

    Args:
        dtype: Of the data.
        where: How an error names the data, e.g. ``x of digits.npz``.
        converts: Whether a manifest's preprocessing turns real numbers into the input's float type.

    Raises:
        DataError: The dtype differs.
    """
    wanted = np.dtype(spec.dtype)
    if dtype == wanted or (converts and wanted.kind == "f" and dtype.kind in "iuf"):
        return
    if dtype.newbyteorder("=") == wanted:
        fix = f"It has the other byte order: save it with .astype(np.{wanted.name})."
    elif wanted.kind == "f" and dtype.kind in "iu":
        fix = "Save it as the model was trained on it, or say in a manifest: preprocessing: {scale: 1/255}."
    else:
        fix = f"Save it with .astype(np.{wanted.name}) if that is what the model was trained on."
    raise DataError(
        f"The dtype of {where} is not that of the model's input {spec.name!r}.",
        got=f"{dtype.name}, where the model takes {wanted.name}",
        fix=fix,
    )


def check_shape(row: tuple[int, ...], spec: TensorSpec, where: str) -> None:
    """Refuse samples of another shape than the input's.

    Args:
        row: The shape of one sample, without the batch dimension.

    Raises:
        DataError: The shapes differ; the message shows both, and guesses how it came about.
    """
    if not spec.shape:
        raise DataError(f"The model's input {spec.name!r} has no batch dimension.", got=str(spec))
    wanted = spec.shape[1:]
    if len(row) == len(wanted) and _fits(row, wanted) and 0 not in row:
        return
    raise DataError(
        f"The shape of {where} does not fit the model's input {spec.name!r}.",
        got=f"samples of {shown(row)}, where the model takes {shown(wanted)}",
        fix=_how_it_came(row, wanted),
    )


def class_count(outputs: Sequence[TensorSpec], names: Sequence[str]) -> int | None:
    """How many classes there are: the last dimension of an output [N, classes], else the number of names, else None.

    Raises:
        DataError: The model is no classifier, or has another number of classes than there are names.
    """
    if outputs and len(outputs[0].shape) != 2:
        raise DataError(
            "Class labels need a model whose first output is [N, classes].",
            got=f"an output {outputs[0]}",
            fix="Leave the labels out, or say in a manifest: task: unlabelled; then the accuracy is not measured.",
        )
    last = outputs[0].shape[1] if outputs else None
    if not isinstance(last, int):
        return len(names) or None
    if last == 1:
        raise DataError(
            "Class labels need a model with one output per class.",
            got=f"an output {outputs[0]}: one value per sample",
            fix="Give the model two outputs, or leave the labels out; then the accuracy is not measured.",
        )
    if names and len(names) != last:
        raise DataError(
            "The manifest names another number of classes than the model has.",
            got=f"{len(names)} names for {last} outputs",
            fix="List one name per output of the model, in the order of its outputs.",
        )
    return last


def check_labels(labels: np.ndarray, classes: int | None, where: str, first: int = 0) -> None:
    """Refuse labels that are not indices in [0, classes).

    Args:
        labels: Integers [N].
        first: The index of ``labels[0]`` in its source, for the message.

    Raises:
        DataError: A label is outside; the first one is named.
    """
    outside = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if outside.any():
        at = int(np.argmax(outside))
        limits = f"0 to {classes - 1}" if classes is not None else "0 and up"
        raise DataError(
            f"A label of {where} is outside the model's classes.",
            got=f"label {labels[at]} at sample {first + at}; the model's classes are {limits}",
            fix="Labels are class indices that start at 0.",
        )


def shown(shape: Sequence[Dim]) -> str:
    """A shape as errors write it: ``[3, 224, 224]``."""
    return f"[{', '.join(str(dim) for dim in shape)}]"


def _fits(row: Sequence[int], wanted: Sequence[Dim]) -> bool:
    return len(row) == len(wanted) and all(isinstance(w, str) or w == r for r, w in zip(row, wanted, strict=True))


def _how_it_came(row: tuple[int, ...], wanted: tuple[Dim, ...]) -> str:
    if len(row) == 3 and _fits((row[2], row[0], row[1]), wanted):
        return "The data looks like NHWC and the model like NCHW: save x.transpose(0, 3, 1, 2)."
    if len(row) == 3 and _fits((row[1], row[2], row[0]), wanted):
        return "The data looks like NCHW and the model like NHWC: save x.transpose(0, 2, 3, 1)."
    sizes = [dim for dim in wanted if isinstance(dim, int)]
    if len(sizes) == len(wanted) and np.prod(row) == np.prod(sizes):
        return f"The number of values is right: save x.reshape(-1, {', '.join(map(str, sizes))})."
    if len(row) > len(wanted) and row[-len(wanted) :] and _fits(row[-len(wanted) :], wanted):
        return "There is one dimension too many in front: save one sample per row."
    return "Save the samples in the shape that the model was trained on, one per row."
