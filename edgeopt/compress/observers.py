"""The modules that torchao's pt2e puts at every quantized tensor: they watch, then write their own Q/DQ nodes."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverBase

from edgeopt.compress.attributes import attribute, constant
from edgeopt.compress.pair_sums import pair_floor, settle
from edgeopt.compress.ranges import (
    CLIPPED,
    INT8_MAX,
    INT8_MIN,
    SCALE_FLOOR,
    UINT8_MAX,
    Histogram,
    Observer,
    choose_range,
    grid_step,
    shifted_ends,
)
from edgeopt.recipes.schema import ObserverName

__all__ = [
    "CHANNELS_KEY",
    "RANGE_KEY",
    "ActivationObserver",
    "NonFiniteError",
    "WeightObserver",
    "quantize_weight",
]

RANGE_KEY = "edgeopt_range"  # node.meta of a quantize_per_tensor: the (low, high) it was calibrated to
CHANNELS_KEY = "edgeopt_channels"  # node.meta of a weight's dequantize: how many channels, how many on a wider step
_Q = torch.ops.quantized_decomposed
_SHARES = 51
_COUNTED = 2**15  # values of one sample that a histogram counts at most: of a few hundred samples, millions
WeightRange = Literal["max", "mse"]


class NonFiniteError(Exception):
    """An observed activation holds NaN or infinity. Caught where the batch is known."""


class ActivationObserver(ObserverBase):  # type: ignore[misc]
    """Watches one activation, float32 of any shape; passes it on unchanged.

    The smallest and the largest of all values are known; of a sample that has very many the histogram counts some,
    evenly spread, in each sample others.

    Attributes:
        rows: How many samples were watched.
        enabled: Whether it still watches; False once the range is fixed.
        calibrated: The (low, high) that ``fix`` chose.
        quant_min: The grid's smallest integer, ``quant_max`` the largest, zero being the integer 0: −128 and 127 of a
            symmetric grid; of uint8 the zero point's negative, and 255 less it.
        top: What the watched values never exceed, by what the graph computes.
        shifts: Whether ``fix`` may take a uint8 grid with a zero point, where a symmetric one would be used half.
    """

    def __init__(
        self,
        *,
        observer: ObserverName,
        percentile: float,
        momentum: float = 0.1,
        clipped: float = CLIPPED,
        dtype: torch.dtype = torch.int8,
        **_: Any,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.observer, self.percentile, self.momentum, self.clipped = observer, percentile, momentum, clipped
        self.average: tuple[float, float] | None = None
        self.qscheme, self.ch_axis = torch.per_tensor_symmetric, -1
        self.quant_min, self.quant_max = INT8_MIN, INT8_MAX
        self.top = math.inf
        self.shifts = False
        self.histogram = Histogram()
        self.rows = 0
        self.enabled = True
        self.calibrated: tuple[float, float] | None = None

    def start_at_zero(self, top: float) -> None:
        """Take the grid of uint8: what is watched is never negative, and never exceeds ``top``."""
        self.quant_min, self.quant_max, self.top = 0, UINT8_MAX, top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Count ``x``.

        Raises:
            NonFiniteError: ``x`` holds NaN or infinity; nothing of it was counted.
        """
        if self.enabled and x.numel():
            self._watch(x.detach())
        return x

    def _watch(self, x: torch.Tensor) -> None:
        values = _as_it_lies(x)
        smallest, largest = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise NonFiniteError
        self.histogram.widen(smallest, largest)
        if self.observer == "moving_average":
            low, high = self.average or (smallest, largest)
            self.average = (low + self.momentum * (smallest - low), high + self.momentum * (largest - high))
        elif self.observer != "minmax":
            self.histogram.add(self._some(values).numpy())
        self.rows += len(values)

    def _some(self, values: torch.Tensor) -> torch.Tensor:
        """Those of the values [N, …] that are counted, flat: all of small samples."""
        size = values[0].numel()
        if size <= _COUNTED:
            return values.reshape(-1)
        step = -(-size // _COUNTED)
        while math.gcd(step, size) > 1:  # or it would meet the same few columns or channels again and again
            step += 1
        return torch.cat([row[(self.rows + i) % step :: step] for i, row in enumerate(values)])

    def fix(self) -> tuple[float, float]:
        """Choose the range from what was seen, and stop watching."""
        if self.calibrated is None:
            if np.isnan(self.histogram.low):  # a branch that no sample took
                self.histogram.widen(0.0, 0.0)
            if self.observer == "moving_average":
                self._take(self.average or (0.0, 0.0))
            else:
                self.choose("histogram" if self.observer == "best" else self.observer)
        self.enabled = False
        return self.calibrated  # type: ignore[return-value]  # just taken

    def choose(self, observer: Observer) -> None:
        """Read the range anew from what was seen, as ``observer`` does; only where the histogram was kept."""
        unsigned = self.quant_min == 0
        self._take(choose_range(self.histogram, observer, self.percentile, self.clipped, unsigned=unsigned))

    def _take(self, calibrated: tuple[float, float]) -> None:
        """Settle on a range, and on the grid that it asks for."""
        self.calibrated = calibrated
        if self.shifts:
            self.quant_min, self.quant_max = shifted_ends(*calibrated)

    @property
    def scale(self) -> float:
        """The grid's step; float32, > 0."""
        low, high = self.fix()
        return grid_step(low, high, (self.quant_min, self.quant_max))

    def on_grid(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` on the grid, float32, as its Q and DQ will have it."""
        self.fix()
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, self.quant_min, self.quant_max)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Not used: ``convert`` writes the nodes."""
        raise NotImplementedError

    def convert(self, model: GraphModule, observed: Node) -> None:
        """Replace this observer's node by quantize and dequantize; called by torchao's ``convert_pt2e``."""
        scale = self.scale  # fixes the ends, too
        signed = self.quant_min == INT8_MIN
        dtype, zero_point = (torch.int8, 0) if signed else (torch.uint8, -self.quant_min)
        arguments = (scale, zero_point, zero_point + self.quant_min, zero_point + self.quant_max, dtype)
        with model.graph.inserting_before(observed):
            quantized = model.graph.call_function(_Q.quantize_per_tensor.default, (observed.args[0], *arguments))
            restored = model.graph.call_function(_Q.dequantize_per_tensor.default, (quantized, *arguments))
        quantized.meta[RANGE_KEY] = self.fix()
        observed.replace_all_uses_with(restored)
        model.graph.erase_node(observed)


def _as_it_lies(x: torch.Tensor) -> torch.Tensor:
    """The values of each sample in the order that they have in memory, [N, …]: without a copy if they are dense."""
    strides = x.stride()
    axes = sorted(range(1, x.ndim), key=lambda axis: -strides[axis])
    return x.permute(0, *axes).flatten(1) if axes else x.reshape(-1)


class WeightObserver(ObserverBase):  # type: ignore[misc]
    """Stands at one weight; at conversion the weight is stored as int8.

    Attributes:
        scale_floor: Smallest scale allowed, float32, scalar or [C]; raised by ``allow_int32_bias``.
        rounded: The integers that a method chose in place of the nearest ones, int8, the weight's shape; None: nearest.
        pairs: Whether scales are at least so large that no sum of two products leaves 16 bits (``pair_floor``).
    """

    def __init__(
        self,
        *,
        bits: int,
        per_channel: bool,
        weight_range: WeightRange = "max",
        pairs: bool = False,
        dtype: torch.dtype = torch.int8,
        **_: Any,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.weight_range, self.pairs = weight_range, pairs
        self.rounded: torch.Tensor | None = None
        self.per_channel, self.ch_axis = per_channel, 0
        self.qscheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
        self.quant_max = 2 ** (bits - 1) - 1
        self.quant_min = -self.quant_max
        self.scale_floor = torch.tensor(SCALE_FLOOR)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, unchanged: it is read once, at conversion."""
        return weight

    def allow_int32_bias(self, bias: torch.Tensor, input_scale: float) -> None:
        """Keep ``bias / (input_scale · weight_scale)`` inside int32, with a factor of four to spare.

        Runtimes store the bias that way when they fuse a layer. A dead channel (all weights near zero, as BatchNorm
        folding leaves them) with a live bias would wrap around there, silently. A dialect may halve the input's scale
        (127 steps for a tensor that is never negative become 255), which takes a little more than two of the four.

        Args:
            bias: float32 [C].
            input_scale: Of the layer's input.
        """
        floor = bias.detach().abs().double() * 4.0 / (input_scale * (2.0**31 - 1))
        floor = floor if self.per_channel else floor.max()
        self.scale_floor = torch.maximum(self.scale_floor, floor.float())

    def forget_biases(self) -> None:
        """Take back what ``allow_int32_bias`` raised."""
        self.scale_floor = torch.tensor(SCALE_FLOOR)

    def floor(self, weight: torch.Tensor) -> torch.Tensor:
        """The smallest scale for ``weight``: float32, scalar or [C]."""
        if not self.pairs:
            return self.scale_floor
        return torch.maximum(self.scale_floor, pair_floor(weight, per_channel=self.per_channel))

    def on_wider_step(self, weight: torch.Tensor) -> int:
        """How many channels have a scale that their pairs' sums asked for, and that would be smaller else."""
        if not self.pairs:
            return 0
        _, scale = self.encode(weight)
        _, free = quantize_weight(
            weight, self.scale_floor, self.quant_max, per_channel=self.per_channel, weight_range=self.weight_range
        )
        wider = (scale > free) & (scale <= pair_floor(weight, per_channel=self.per_channel))
        return int(wider.sum()) if self.per_channel else len(weight) * int(wider)

    def encode(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The integers that ``convert`` stores, int8, and their scale, float32 [C] or scalar."""
        floor = self.floor(weight)
        stored, scale = quantize_weight(
            weight, floor, self.quant_max, per_channel=self.per_channel, weight_range=self.weight_range
        )
        if self.rounded is not None:
            stored = settle(self.rounded, stored) if self.pairs else self.rounded
        return stored, scale

    def restored(self, weight: torch.Tensor) -> torch.Tensor:
        """What the converted graph computes with: float32, the weight's shape."""
        stored, scale = self.encode(weight)
        return stored.float() * (scale.reshape(-1, *[1] * (weight.ndim - 1)) if self.per_channel else scale)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Not used: ``convert`` writes the nodes."""
        raise NotImplementedError

    def convert(self, model: GraphModule, observed: Node) -> None:
        """Store the weight as int8 and dequantize it in the graph; called by torchao's ``convert_pt2e``."""
        source = observed.args[0]
        if not isinstance(source, Node) or source.op != "get_attr":
            raise TypeError(f"a quantized weight must be a constant, not {source!r}")
        weight = attribute(model, str(source.target))
        stored, scale = self.encode(weight)
        name = str(source.target).replace(".", "_")
        graph = model.graph
        with graph.inserting_before(observed):
            values = constant(model, f"{name}_int8", stored)
            if self.per_channel:
                scales = constant(model, f"{name}_scale", scale)
                zeros = constant(model, f"{name}_zero_point", torch.zeros(len(scale), dtype=torch.int64))
                arguments: tuple[Any, ...] = (scales, zeros, 0, self.quant_min, self.quant_max, torch.int8)
                restored = graph.call_function(_Q.dequantize_per_channel.default, (values, *arguments))
            else:
                arguments = (float(scale), 0, self.quant_min, self.quant_max, torch.int8)
                restored = graph.call_function(_Q.dequantize_per_tensor.default, (values, *arguments))
        restored.meta[CHANNELS_KEY] = (len(weight), self.on_wider_step(weight))
        observed.replace_all_uses_with(restored)
        graph.erase_node(observed)
        if not source.users:
            graph.erase_node(source)


def quantize_weight(
    weight: torch.Tensor,
    scale_floor: torch.Tensor,
    quant_max: int,
    *,
    per_channel: bool,
    weight_range: WeightRange = "max",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight to a symmetric grid.

    Args:
        weight: float32 [C, …].
        scale_floor: float32, scalar or [C], > 0.
        quant_max: The grid's largest integer; the smallest is its negative.
        per_channel: One scale per index of axis 0, else one for all.
        weight_range: ``max``: the largest weight is the largest integer; ``mse``: the scale, up to that, with the least
            squared error.

    Returns:
        int8, the shape of ``weight``; scale float32 [C] or scalar: scale = max|w| / quant_max, at least its floor.
    """
    weight = weight.detach().double()
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    largest = rows.abs().amax(1)
    if weight_range == "mse":
        largest = largest * _best_share(rows, largest, quant_max)
    scale = torch.maximum((largest / quant_max).float().reshape(-1 if per_channel else ()), scale_floor)
    step = scale.double().reshape(-1, *[1] * (weight.ndim - 1)) if per_channel else scale.double()
    return (weight / step).round().clamp(-quant_max, quant_max).to(torch.int8), scale


def _best_share(rows: torch.Tensor, largest: torch.Tensor, quant_max: int) -> torch.Tensor:
    """Per row of ``rows``, float64 [C, N]: the share of its ``largest`` whose grid has the least squared error.

    Shares from 1 down to one half: for a normal distribution the best one at 4 bits is about 0.75, at 8 about 0.97.
    """
    best = torch.ones_like(largest)
    least = torch.full_like(largest, torch.inf)
    for share in torch.linspace(1.0, 0.5, _SHARES, dtype=rows.dtype):
        step = (largest * share / quant_max).clamp_min(SCALE_FLOOR)[:, None]
        error = ((rows / step).round().clamp(-quant_max, quant_max) * step - rows).square().sum(1)
        better = error < least
        best, least = torch.where(better, share, best), torch.where(better, error, least)
    return best
