"""What is right for a sample, task by task: its form as stored, as the tasks' losses and metrics take it, its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.core.spec import Dim, TensorSpec
from edgeopt.data.contract import Task
from edgeopt.data.fit import check_labels, class_count, shown

__all__ = ["TargetRule", "stack_boxes", "target_classes"]

_INT32 = np.iinfo(np.int32)
_BOX = 5  # class, x1, y1, x2, y2
_DETECTION = 6  # x1, y1, x2, y2, score, class
_PADDING = -1
_LEFT_OUT = "or leave y out: then the accuracy is not measured."
_DECLARE = "say what they are in a manifest: task: regression (or embedding, segmentation, detection);"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """What a task's targets must be, and how they are read.

    ======================  ===============================  =========================================================
    task                    stored for one sample            as read, for N samples
    ======================  ===============================  =========================================================
    classification          integer                          int64 [N]
    regression, embedding   number, numbers [D]              float32 (float64 where stored so) [N] or [N, D]
    segmentation            integers [H, W]                  int32 [N, H, W]; -1: the pixel is not counted
    detection               numbers [M, 5]                   float32 [N, M, 5]: class, x1, y1, x2, y2; class -1: padding
    ======================  ===============================  =========================================================

    Attributes:
        task: ``unlabelled``: targets are left alone.
        output: The model's first output; None where it is not known.
        ignore_index: Segmentation: the number stored for pixels that are not counted, where it is not -1.
        decoded: Detection: whether a decoder makes the detections, so that the output's form is its own matter.
        declared: Whether a manifest says the task. Where none does, labels are class indices.
    """

    task: Task = "classification"
    output: TensorSpec | None = None
    ignore_index: int | None = None
    decoded: bool = False
    declared: bool = False

    def check_form(self, dtype: np.dtype, row: tuple[int, ...], where: str) -> None:
        """Refuse targets of another type or shape than the task's, or that do not fit the model's first output.

        Args:
            dtype: As stored.
            row: The shape of one sample's target.
            where: How an error names the targets: ``y of digits.npz``.

        Raises:
            DataError: The first misfit.
        """
        check = _FORMS.get(self.task)
        if check is not None:
            check(self, dtype, row, where)

    def ready(self, stored: np.ndarray) -> np.ndarray:
        """Targets as read, from targets as stored [N, …]: a new array, or ``stored`` where nothing changes."""
        if self.task == "classification":
            return stored.astype(np.int64)
        if self.task == "segmentation":
            # Wider integers are clipped, not wrapped: what is outside stays outside, and is refused.
            wide = not np.can_cast(stored.dtype, np.int32)
            low = max(_INT32.min, np.iinfo(stored.dtype).min)
            pixels = (np.clip(stored, low, _INT32.max) if wide else stored).astype(np.int32)
            if self.ignore_index is not None:
                pixels[stored == self.ignore_index] = _PADDING
            return pixels
        if self.task == "detection":
            return stored.astype(np.float32)
        exact = stored.dtype.kind != "f" or stored.dtype.itemsize > np.dtype(np.float32).itemsize
        return stored.astype(np.float64 if exact else np.float32)

    def check(self, targets: np.ndarray, classes: int | None, where: str, first: int = 0) -> None:
        """Refuse values that cannot be right.

        Args:
            targets: As ``ready`` gives them.
            classes: How many there are; None where unknown.
            first: The index of ``targets[0]`` in its source, for the message.

        Raises:
            DataError: NaN or infinity, a class outside the model's, a box whose corners are swapped; the sample is named.
        """
        if self.task == "classification":
            check_labels(targets, classes, where, first)
            return
        if targets.dtype.kind == "f":
            bad = ~np.isfinite(targets)
            if bad.any():
                place = np.argwhere(bad)[0]
                raise DataError(
                    f"A target of {where} is not finite.",
                    got=f"{targets[tuple(place)]} at sample {first + place[0]}",
                    fix="Repair or leave out that sample; a NaN makes every error NaN.",
                )
        if self.task == "segmentation":
            _check_pixels(targets, classes, where, first)
        elif self.task == "detection":
            _check_boxes(targets, classes, where, first)

    def content(self, target: np.ndarray) -> bytes:
        """One sample's target as the fingerprint takes it: without padding, whose length depends on the batch."""
        kept = target[target[:, 0] != _PADDING] if self.task == "detection" else target
        return f"{kept.dtype.name}{kept.shape}".encode() + np.ascontiguousarray(kept).tobytes()


def stack_boxes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of several samples, [M, 5] each (or of several batches, [N, M, 5]), padded to one width with class -1."""
    widest = max((part.shape[-2] for part in parts), default=0)
    padded = []
    for part in parts:
        room = np.zeros((*part.shape[:-2], widest - part.shape[-2], _BOX), np.float32)
        room[..., 0] = _PADDING
        padded.append(np.concatenate([part.astype(np.float32), room], axis=-2))
    return np.stack(padded) if parts[0].ndim == 2 else np.concatenate(padded)


def target_classes(task: Task, outputs: Sequence[TensorSpec], names: Sequence[str]) -> int | None:
    """How many classes targets may name: of the model's output, else of the names; None where the task has none.

    Raises:
        DataError: The model's first output is not what the task needs, or there is another number of names.
    """
    if task == "classification":
        return class_count(outputs, names)
    if task == "detection":
        return len(names) or None
    if task != "segmentation":
        return None
    count = _score_maps(outputs[0]).shape[1] if outputs else len(names) or None
    if not isinstance(count, int):
        return len(names) or None
    if names and len(names) != count:
        raise DataError(
            "The manifest names another number of classes than the model has.",
            got=f"{len(names)} names for {count} score maps",
            fix="List one name per channel of the model's output, in its order.",
        )
    return count


def _score_maps(output: TensorSpec) -> TensorSpec:
    if len(output.shape) != 4 or output.shape[1] == 1:
        raise DataError(
            "Segmentation needs a model whose first output is [N, classes, H, W].",
            got=f"an output {output}",
            fix="Give the model one map of scores per class, two at least, and leave the arg-max to whoever uses it.",
        )
    return output


def _class_index(rule: TargetRule, dtype: np.dtype, row: tuple[int, ...], where: str) -> None:
    if dtype.kind not in "iu":
        raise DataError(
            f"The labels of {where} are not integers.",
            got=f"{dtype}{list(row)}" if row else str(dtype),
            fix=f"Save class indices, y.astype(np.int64); {_otherwise(rule)}",
        )
    if row:
        one_hot = len(row) == 1 and row[0] > 1
        raise DataError(
            f"The labels of {where} are not one number per sample.",
            got=f"samples of {shown(row)}",
            fix=f"Save class indices [N]: {'y.argmax(axis=1)' if one_hot else 'y.reshape(-1)'}; {_otherwise(rule)}",
        )


def _otherwise(rule: TargetRule) -> str:
    return _LEFT_OUT if rule.declared else f"{_DECLARE} {_LEFT_OUT}"


def _number(rule: TargetRule, dtype: np.dtype, row: tuple[int, ...], where: str) -> None:
    embedding = rule.task == "embedding"
    if dtype.kind not in ("f" if embedding else "iuf") or len(row) > 1 or (embedding and not row) or 0 in row:
        raise DataError(
            f"The targets of {where} are no {'embeddings' if embedding else 'numbers to predict'}.",
            got=f"{dtype} samples of {shown(row)}",
            fix="Save float32 [N, D]: the embedding wanted of each sample, a teacher's, say."
            if embedding
            else "Save float32 [N], or [N, D] for D numbers per sample.",
        )
    wanted = rule.output.shape[1:] if rule.output is not None else ()
    known = rule.output is not None and all(isinstance(dim, int) for dim in wanted)
    if known and _without_ones(row) != _without_ones(wanted):
        raise DataError(
            f"The targets of {where} have another shape than the model's first output.",
            got=f"samples of {shown(row)}, where the model gives {shown(wanted)}",
            fix="Save one number per value of the output, in its order.",
        )


def _mask(rule: TargetRule, dtype: np.dtype, row: tuple[int, ...], where: str) -> None:
    if dtype.kind not in "iu" or len(row) != 2 or 0 in row:
        raise DataError(
            f"The targets of {where} are no masks.",
            got=f"{dtype} samples of {shown(row)}",
            fix="Save the class of each pixel, integers [N, H, W]; -1 (or the manifest's ignore_index) is not counted.",
        )
    if rule.output is not None and not _fits(row, _score_maps(rule.output).shape[2:]):
        raise DataError(
            f"The masks of {where} have another size than the model's output.",
            got=f"{shown(row)}, where the model gives {shown(rule.output.shape[2:])}",
            fix="Resize the masks to the output (nearest neighbour), or have the model resize its scores.",
        )


def _boxes(rule: TargetRule, dtype: np.dtype, row: tuple[int, ...], where: str) -> None:
    if dtype.kind not in "iuf" or len(row) != 2 or row[1] != _BOX:
        raise DataError(
            f"The targets of {where} are no boxes.",
            got=f"{dtype} samples of {shown(row)}",
            fix="Save float32 [N, M, 5]: rows (class, x1, y1, x2, y2), those that a sample has not with class -1.",
        )
    wanted = rule.output.shape if rule.output is not None and not rule.decoded else None
    if wanted is not None and (len(wanted) != 3 or (isinstance(wanted[2], int) and wanted[2] != _DETECTION)):
        raise DataError(
            "Detection needs a model whose first output is [N, K, 6]: rows (x1, y1, x2, y2, score, class).",
            got=f"an output {rule.output}",
            fix="Name in the manifest what makes such rows of the model's outputs: decoder: package.module:callable.",
        )


_FORMS: dict[str, Callable[[TargetRule, np.dtype, tuple[int, ...], str], None]] = {
    "classification": _class_index,
    "regression": _number,
    "embedding": _number,
    "segmentation": _mask,
    "detection": _boxes,
}


def _check_pixels(masks: np.ndarray, classes: int | None, where: str, first: int) -> None:
    outside = (masks < _PADDING) | ((masks >= classes) if classes is not None else np.False_)
    if outside.any():
        place = np.argwhere(outside)[0]
        limits = f"0 to {classes - 1}" if classes is not None else "0 and up"
        raise DataError(
            f"A pixel of {where} is outside the model's classes.",
            got=f"class {masks[tuple(place)]} at sample {first + place[0]}, row {place[1]}, column {place[2]}; "
            f"the classes are {limits}",
            fix="Save class indices that start at 0; name the number of pixels not counted in the manifest: ignore_index.",
        )


def _check_boxes(boxes: np.ndarray, classes: int | None, where: str, first: int) -> None:
    kinds = boxes[..., 0]
    real = kinds != _PADDING
    outside = real & ((kinds < 0) | (kinds != np.floor(kinds)) | ((kinds >= classes) if classes else np.False_))
    if outside.any():
        sample, row = (int(i) for i in np.argwhere(outside)[0])
        limits = f"0 to {classes - 1}" if classes else "0 and up"
        raise DataError(
            f"A box of {where} is of no class.",
            got=f"class {kinds[sample, row]:g} in row {row} of sample {first + sample}; the classes are {limits}",
            fix="A row is (class, x1, y1, x2, y2); a row that is only padding has class -1.",
        )
    swapped = real & ((boxes[..., 3] < boxes[..., 1]) | (boxes[..., 4] < boxes[..., 2]))
    if swapped.any():
        sample, row = (int(i) for i in np.argwhere(swapped)[0])
        corners = ", ".join(f"{value:g}" for value in boxes[sample, row, 1:])
        raise DataError(
            f"A box of {where} ends before it starts.",
            got=f"({corners}) in row {row} of sample {first + sample}",
            fix="A row is (class, x1, y1, x2, y2), corners and no width and height: x2 >= x1 and y2 >= y1.",
        )


def _without_ones(row: Sequence[Dim]) -> tuple[Dim, ...]:
    """[N] and [N, 1] are the same numbers."""
    return tuple(dim for dim in row if dim != 1)


def _fits(row: Sequence[Dim], wanted: Sequence[Dim]) -> bool:
    return len(row) == len(wanted) and all(isinstance(w, str) or w == r for r, w in zip(row, wanted, strict=True))
