"""A calibration set's manifest: where the data is, what it means, how it is split. One YAML file, checked whole."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.data.contract import Task

__all__ = ["Column", "Manifest", "Origin", "Preprocessing", "SplitPlan", "read_manifest"]

Side = Annotated[int, Field(ge=1)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$")]
Share = Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(gt=0, lt=1, strict=True)]
_RATIO = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Origin(_Frozen):
    """Exactly one of: an ``.npz`` file, a folder of class folders, ``package.module:callable``.

    Attributes:
        sha256: Of the ``.npz`` file; where given, another file is refused.
    """

    npz: str | None = None
    folder: str | None = None
    dataset: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Origin:
        if sum(value is not None for value in (self.npz, self.folder, self.dataset)) != 1:
            raise ValueError("say exactly one of npz, folder and dataset")
        if self.sha256 and not self.npz:
            raise ValueError("sha256 belongs to an npz")
        return self


class Preprocessing(_Frozen):
    """What is done to the stored data before the model sees it. Nothing is done that is not written here.

    Order: mode, resize, centre crop (images only), then (x · scale − mean) / std, then the layout.

    Attributes:
        layout: What the model takes: N batch, C channels, then the other dimensions.
        mode: Images: three channels or one.
        resize: Images: the shorter side's new length, or [height, width].
        interpolation: Images: Pillow's resampling filter; goes with ``resize``.
        crop: Images: the side of the centred square, or [height, width].
        scale: A number, or a ratio such as 1/255.
        mean: One value, or one per channel, in the units after ``scale``; ``std`` likewise, > 0.
        already_done: What was done before the data was stored, in words: whoever feeds the model must do it too.
    """

    layout: Literal["NC", "NCL", "NLC", "NCHW", "NHWC", "NCDHW", "NDHWC"] | None = None
    mode: Literal["RGB", "L"] | None = None
    resize: Side | tuple[Side, Side] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = None
    crop: Side | tuple[Side, Side] | None = None
    scale: float | str | None = None
    mean: tuple[float, ...] | None = Field(default=None, min_length=1)
    std: tuple[float, ...] | None = Field(default=None, min_length=1)
    already_done: str | None = None

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _consistent(self) -> Preprocessing:
        if (self.resize is None) != (self.interpolation is None):
            raise ValueError("resize and interpolation go together: no filter is assumed")
        if self.scale is not None and self.scale_ratio is None:
            raise ValueError(f"scale is a number above 0 or a ratio such as 1/255; received {self.scale!r}")
        if not all(math.isfinite(value) for value in (*(self.mean or ()), *(self.std or ()))):
            raise ValueError("mean and std hold finite numbers")
        if any(value <= 0 for value in self.std or ()):
            raise ValueError("std holds numbers above 0")
        return self

    @property
    def scale_ratio(self) -> Fraction | None:
        """``scale`` as a ratio > 0; None where it is absent or no such number."""
        if isinstance(self.scale, str):
            match = _RATIO.fullmatch(self.scale)
            return Fraction(int(match[1]), int(match[2])) or None if match and int(match[2]) else None
        if self.scale is None or not math.isfinite(self.scale) or self.scale <= 0:
            return None
        return Fraction(self.scale) if self.scale == int(self.scale) else Fraction(str(self.scale))

    @property
    def is_for_images(self) -> bool:
        """Whether it says what only image files need."""
        return any(value is not None for value in (self.mode, self.resize, self.crop))

    def sentence(self) -> str | None:
        """All of it in words, in the order it is done; None where there is nothing to say."""
        parts = [
            self.already_done,
            self.mode and f"convert to {self.mode}",
            self.resize and f"resize to {_size(self.resize)} ({self.interpolation})",
            self.crop and f"centre crop to {_size(self.crop)}",
            self.scale_ratio and self.scale_ratio != 1 and f"multiply by {self.scale}",
            self.mean and f"subtract {_numbers(self.mean)}",
            self.std and f"divide by {_numbers(self.std)}",
            self.layout and f"arrange as {self.layout}",
        ]
        return "; ".join(str(part) for part in parts if part) or None


class SplitPlan(_Frozen):
    """How much is split off where a split is not given as such: a fraction in (0, 1), or a number of samples; 0: none.

    Attributes:
        calibration: Default: a tenth, at most 1,024. ``tune``: a tenth, at most 2,048. ``train``: none.
        seed: Default: the run's seed. Here it pins the splits, whatever the run's seed is.
    """

    calibration: Share | None = None
    tune: Share | None = None
    train: Share | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @field_validator("calibration")
    @classmethod
    def _some(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("int8 needs calibration data: say a fraction or a number above 0")
        return value


class Column(_Frozen):
    """A property of the samples by which the test split is told apart.

    Attributes:
        bins: A property of many numbers: into so many bins of about as many samples each.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
    bins: Annotated[int, Field(ge=2, le=32, strict=True)] | None = None

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in ("x", "y", "file", "class") or value.startswith(("x_", "y_")):
            raise ValueError(f"{value!r} means something else here; call the column otherwise")
        return value


class Manifest(_Frozen):
    """A data set. Relative paths are resolved beside the manifest.

    Attributes:
        task: ``classification``, ``regression``, ``embedding``, ``segmentation``, ``detection``: what ``y`` holds
            (``data.targets.TargetRule``); ``unlabelled``: ``y`` is left alone.
        classes: Class names in label order.
        ignore_index: Segmentation: the number stored for pixels that are not counted, beside -1.
        decoder: Detection: ``package.module:callable`` that makes [N, K, 6], rows (x1, y1, x2, y2, score, class), of a
            batch's outputs by name. Without it the first output is that.
        metrics: What the outputs are judged by, the one whose drop decides first; none: the task's own.
        labels: Folders only: folder name → class index, where the model's classes are more than the folders.
        columns: What else is known of each sample (lighting, device, …): slices of the test split are told apart by it.
            A name, or ``{name: NAME, bins: N}``. In an ``.npz`` the array of that name, one value per sample of ``x``; of
            a data set the mapping ``columns``; of a folder a column of the file ``columns_from``.
        columns_from: Folders only: CSV with a head line, or JSON lines; the key ``file`` names the sample as seen from
            the folder.
        license: As SPDX spells it. ``provenance``: where the data comes from, how it was split, what is known of it.
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    title: str = ""
    task: Task
    source: Origin
    classes: tuple[str, ...] = ()
    labels: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    ignore_index: Annotated[int, Field(strict=True)] | None = None
    decoder: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    metrics: tuple[MetricName, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    splits: SplitPlan = SplitPlan()
    columns: tuple[Column, ...] = ()
    columns_from: str | None = None
    license: str | None = None
    provenance: str | None = None

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """YAML reads ``[0, 1]`` as numbers; as class names they are meant as text."""
        return [str(v) if type(v) is int else v for v in value] if isinstance(value, list) else value

    @field_validator("columns", mode="before")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        return [{"name": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _folders(cls, value: Any) -> Any:
        return {str(k) if type(k) is int else k: v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes holds a name twice")
        if self.labels and not self.source.folder:
            raise ValueError("labels maps the class folders of a folder source; other sources carry their labels")
        if self.ignore_index is not None and self.task != "segmentation":
            raise ValueError(f"ignore_index is for segmentation; the task is {self.task}")
        if self.decoder is not None and self.task != "detection":
            raise ValueError(f"decoder is for detection; the task is {self.task}")
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("columns holds a name twice")
        if bool(self.source.folder and self.columns) != bool(self.columns_from):
            raise ValueError(
                "columns of a folder come with columns_from, a .csv or .jsonl file; other sources have arrays"
            )
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics holds a name twice")
        if self.preprocessing.is_for_images and not self.source.folder:
            raise ValueError("mode, resize and crop are for folders of images; do them before storing an npz")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DataError: It cannot be read, is not YAML, or does not follow the schema; an unknown key gets the nearest one.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("The data's manifest cannot be read.", got=f"{path} ({error})") from error
    except yaml.YAMLError as error:
        raise DataError("The data's manifest is not YAML.", got=f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            "The data's manifest is not a mapping.",
            got=f"{path}, which holds {type(content).__name__}",
            fix="It starts with schema_version: 1, name, task and source.",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"The data's manifest {path.name} is not valid.", got=_explained(error)) from error


def _explained(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        if problem["type"] == "extra_forbidden":
            known = nearest_first(str(problem["loc"][-1]), _fields(problem["loc"][:-1]))
            lines.append(f"unknown key {place} (did you mean {known[0]}? Known: {', '.join(known)})")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(lines))


def _is_branch(part: int | str) -> bool:
    """Whether pydantic put it there to name the branch of a union, not the user."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "constrained-int"))


def _fields(place: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Manifest
    for part in place:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), model)
    return list(model.model_fields)


def _size(size: int | tuple[int, int]) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]} × {size[1]}"


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"
