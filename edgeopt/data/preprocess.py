"""From stored numbers or image files to what the model takes, exactly as a manifest says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from edgeopt.core.errors import DataError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.manifest import Preprocessing

__all__ = ["Affine", "ImageReader", "affine", "image_reader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """(x · scale − mean) / std, in float32 (float64 for a float64 input), then the input's dtype.

    Attributes:
        dtype: The input's.
        scale: A ratio, so that 1/255 divides by 255 as torchvision's ``ToTensor`` does.
        mean: Broadcast against a batch [N, …]; None where nothing is subtracted. ``std`` likewise, > 0.
    """

    dtype: np.dtype
    scale: Fraction
    mean: np.ndarray | None
    std: np.ndarray | None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Map real numbers [N, …] to the input's dtype."""
        kind = np.dtype(np.float64 if self.dtype == np.float64 else np.float32)
        values = batch.astype(kind)
        if self.scale.numerator != 1:
            np.multiply(values, kind.type(self.scale.numerator), out=values)
        if self.scale.denominator != 1:
            np.divide(values, kind.type(self.scale.denominator), out=values)
        if self.mean is not None:
            np.subtract(values, self.mean.astype(kind), out=values)
        if self.std is not None:
            np.divide(values, self.std.astype(kind), out=values)
        return values.astype(self.dtype, copy=False)


def affine(how: Preprocessing, spec: TensorSpec) -> Affine | None:
    """What ``how`` does to the values of an input; None where it leaves them alone.

    Raises:
        DataError: The input is not a float type, or mean and std do not fit its channels.
    """
    if how.scale is None and how.mean is None and how.std is None:
        return None
    if not spec.dtype.startswith("float"):
        raise DataError(
            "The manifest scales or normalizes, but the model's input is not a float type.",
            got=str(spec),
            fix="Remove scale, mean and std from the manifest's preprocessing.",
        )
    return Affine(
        dtype=np.dtype(spec.dtype),
        scale=how.scale_ratio or Fraction(1),
        mean=_per_channel(how.mean, "mean", how.layout, spec),
        std=_per_channel(how.std, "std", how.layout, spec),
    )


def _per_channel(values: Sequence[float] | None, what: str, layout: str | None, spec: TensorSpec) -> np.ndarray | None:
    if values is None:
        return None
    if len(values) == 1:
        return np.array(values[0])
    if layout is None:
        raise DataError(
            f"The manifest has a {what} per channel, but does not say which dimension holds the channels.",
            got=f"{what}: {list(values)}",
            fix="Add the layout that the model takes, for example preprocessing: {layout: NCHW}.",
        )
    axis = layout.index("C")
    channels = spec.shape[axis] if axis < len(spec.shape) else None
    if len(layout) != len(spec.shape) or (isinstance(channels, int) and channels != len(values)):
        raise DataError(
            f"The manifest's {what} does not fit the model's input {spec.name!r}.",
            got=f"{len(values)} values and layout {layout} for {spec}",
            fix="Give one value, or one per channel of the model's input.",
        )
    shape = [1] * len(layout)
    shape[axis] = len(values)
    return np.array(values).reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReader:
    """Decodes one image file as a manifest says. EXIF rotation is not applied, as torchvision does not either."""

    how: Preprocessing
    values: Affine | None
    layout: str

    def __call__(self, path: Path) -> np.ndarray:
        """Read ``path``: [C, H, W] or [H, W, C], in the input's dtype.

        Raises:
            DataError: The file is no readable image, or smaller than the crop.
        """
        with opened(path) as image:
            try:
                picture = image.convert(self.how.mode)
            except (OSError, SyntaxError, ValueError) as error:
                raise unreadable(path, error) from error
        if self.how.resize is not None:
            picture = picture.resize(_resized(picture.size, self.how.resize), Image.Resampling[self._filter])
        if self.how.crop is not None:
            picture = picture.crop(_centre(picture.size, self.how.crop, path))
        pixels = np.asarray(picture)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels if self.values is None else self.values(pixels[None])[0])

    @property
    def _filter(self) -> str:
        return (self.how.interpolation or "").upper()


def image_reader(how: Preprocessing, spec: TensorSpec) -> ImageReader:
    """The reader of a folder of images for one input.

    Raises:
        DataError: The manifest leaves open how the images become the model's numbers: nothing is assumed.
    """
    needed: dict[str, object] = {"mode": how.mode, "layout": how.layout}
    if spec.dtype.startswith("float"):
        needed["scale"] = how.scale
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise DataError(
            f"A folder of images needs {', '.join(missing)} in its manifest's preprocessing: edgeopt guesses none.",
            got=f"preprocessing: {how.model_dump(exclude_none=True)}",
            fix="For example preprocessing: {mode: RGB, layout: NCHW, scale: 1/255, resize: 256, "
            "interpolation: bilinear, crop: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}.",
        )
    if how.layout not in ("NCHW", "NHWC"):
        raise DataError("Images have the layout NCHW or NHWC.", got=f"layout: {how.layout}")
    values = affine(how, spec)
    if values is None and spec.dtype != "uint8":
        raise DataError(
            "Images are uint8; the model's input is of another integer type.",
            got=str(spec),
            fix="Give the data as an .npz of the model's own type.",
        )
    return ImageReader(how=how, values=values, layout=how.layout)


def opened(path: Path) -> Image.Image:
    """Open an image file, header only.

    Raises:
        DataError: It is no image that Pillow reads, or its pixels have more than 8 bits.
    """
    try:
        image = Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image.close()
        raise DataError(
            "The image has more than 8 bits per channel, which Pillow would clip.",
            got=f"{path} in mode {image.mode}",
            fix="Convert it to 8 bits as the model's training did, or give the data as an .npz.",
        )
    return image


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that Pillow cannot read."""
    return DataError(
        "An image cannot be read.", got=f"{path} ({str(error) or type(error).__name__})", fix="Replace or remove it."
    )


def _resized(size: tuple[int, int], to: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height; an integer is the shorter side's new length, rounded down as torchvision's ``Resize`` does."""
    if not isinstance(to, int):
        return to[1], to[0]
    width, height = size
    if width <= height:
        return to, int(to * height / width)
    return int(to * width / height), to


def _centre(size: tuple[int, int], crop: int | tuple[int, int], path: Path) -> tuple[int, int, int, int]:
    """The middle box, rounded as torchvision's ``CenterCrop`` does."""
    height, width = (crop, crop) if isinstance(crop, int) else crop
    if width > size[0] or height > size[1]:
        raise DataError(
            "An image is smaller than the manifest's crop.",
            got=f"{path} of {size[0]} × {size[1]} for a crop of {width} × {height}",
            fix="Add a resize to the manifest's preprocessing; edgeopt does not pad.",
        )
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height
