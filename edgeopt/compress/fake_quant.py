"""Quantizers that training goes through: each rounds to the grid that it will write at conversion, no other.

A torchao fake-quant computes its scale in another way than its own conversion, and loses there what was learned. Here
one float32 step is used in both: ``forward`` divides, rounds half to even and clips as ONNX's QuantizeLinear does, and
``convert`` (inherited) writes that step.

Source of the learned steps: S. Esser et al. 2020, "Learned Step Size Quantization". One change: the step is
start · exp(θ), θ trained, with the gradient that moves it, relative to its size, as theirs does. So it stays positive,
and an optimizer that ignores the gradient's size (Adam) moves small steps and large ones alike (S. Jain et al. 2020,
"Trained Quantization Thresholds", section 3 and appendix B, on why in the log domain).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule

from edgeopt.compress.attributes import attribute
from edgeopt.compress.observers import ActivationObserver, NonFiniteError, WeightObserver
from edgeopt.compress.ranges import INT8_MAX, SCALE_FLOOR, grid_step
from edgeopt.recipes.schema import Qat

__all__ = [
    "LearnedActivation",
    "LearnedWeight",
    "ObservedActivation",
    "ObservedWeight",
    "insert_fake_quants",
    "round_to_grid",
]

_MOMENTUM = 0.01  # of a moving range, per batch (B. Jacob et al. 2018, section 3.1: "smoothing close to 1")
_CANDIDATES = 64  # steps that a weight's start is chosen from


class _OnGrid(torch.autograd.Function):
    """x on the grid of step s; the gradient passes inside the grid's reach and stops outside (Esser et al., eq. 2, 3)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """Args: x float32 [C, …]; step float32 [1], or [C] for one per index of axis 0; the grid's ends."""
        ctx.save_for_backward(x, step)
        ctx.ends = low, high
        spread = _spread(step, x)
        return (x / spread).round_().clamp_(low, high).mul_(spread)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Gradients of x and step; torch's own kernels for a learnable fake-quant, which read x once."""
        x, step = ctx.saved_tensors
        low, high = ctx.ends
        zero = torch.zeros_like(step)
        aten = torch.ops.aten
        if len(step) == 1:
            of_x, of_step, _ = aten._fake_quantize_learnable_per_tensor_affine_backward(  # noqa: SLF001
                grad, x, step, zero, low, high, 1.0
            )
        else:
            of_x, of_step, _ = aten._fake_quantize_learnable_per_channel_affine_backward(  # noqa: SLF001
                grad, x, step, zero, 0, low, high, 1.0
            )
        return of_x, of_step, None, None


class _Step(torch.autograd.Function):
    """start · exp(θ). Its θ takes a gradient of gain · dL/ds / s: the relative move that LSQ's own step makes."""

    @staticmethod
    def forward(ctx: Any, theta: torch.Tensor, start: torch.Tensor, gain: float) -> torch.Tensor:
        step = start * theta.exp()
        ctx.save_for_backward(step)
        ctx.gain = gain
        return step

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (step,) = ctx.saved_tensors
        return grad * ctx.gain / step, None, None


def round_to_grid(x: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """``x`` on the points low·step … high·step, float32; see ``_OnGrid``."""
    rounded: torch.Tensor = _OnGrid.apply(x.float(), step, low, high)  # type: ignore[no-untyped-call]
    return rounded


class _FixedActivation(ActivationObserver):
    """What both kinds share: a step that ``convert`` writes, and a range that says which points it stands for."""

    def __init__(self, calibrated: ActivationObserver) -> None:
        super().__init__(observer=calibrated.observer, percentile=calibrated.percentile)
        calibrated.fix()
        self.quant_min, self.quant_max, self.top = calibrated.quant_min, calibrated.quant_max, calibrated.top
        self.enabled = False

    def step(self) -> torch.Tensor:
        """The grid's step, float32 [1]."""
        raise NotImplementedError

    def fix(self) -> tuple[float, float]:
        """The range of the grid's points, so that whoever re-encodes them keeps them."""
        scale = self.scale
        return max(self.quant_min, -INT8_MAX) * scale, self.quant_max * scale

    @property
    def scale(self) -> float:
        """The step as a number; float32, > 0."""
        return float(self.step().detach())


class LearnedActivation(_FixedActivation):
    """An activation on a grid whose step is trained; starts at the calibrated one."""

    start: torch.Tensor

    def __init__(self, calibrated: ActivationObserver) -> None:
        super().__init__(calibrated)
        self.register_buffer("start", torch.tensor([calibrated.scale]))
        self.theta = torch.nn.Parameter(torch.zeros(1))
        self.widest = (
            grid_step(0.0, self.top, (self.quant_min, self.quant_max)) if math.isfinite(self.top) else math.inf
        )

    def step(self, features: int = 1) -> torch.Tensor:
        """float32 [1]; ``features``: of the activation, per sample, for the gradient's gain 1/√(N·Qp)."""
        gain = 1.0 / math.sqrt(max(1, features) * self.quant_max)
        step: torch.Tensor = _Step.apply(self.theta, self.start, gain)  # type: ignore[no-untyped-call]
        return step.clamp(SCALE_FLOOR, self.widest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` on the grid."""
        return round_to_grid(x, self.step(x[0].numel() if len(x) else 1), self.quant_min, self.quant_max)


class ObservedActivation(_FixedActivation):
    """An activation on a grid that covers a moving average of each batch's range; starts at the calibrated one.

    Attributes:
        moving: Whether the range moves while training.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, calibrated: ActivationObserver) -> None:
        super().__init__(calibrated)
        for name, value in zip(("low", "high"), calibrated.fix(), strict=True):
            self.register_buffer(name, torch.tensor(value))
        self.moving = True

    def step(self) -> torch.Tensor:
        """float32 [1]."""
        ends = self.quant_min, self.quant_max
        return torch.tensor([grid_step(float(self.low), float(self.high), ends)], device=self.low.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` on the grid; while training, the range first moves towards the batch's.

        Raises:
            NonFiniteError: ``x`` holds NaN or infinity, which would stay in the range for ever.
        """
        if self.training and self.moving and x.numel():
            low, high = torch.aminmax(x.detach())
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise NonFiniteError
            self.low.lerp_(low.float(), _MOMENTUM)
            self.high.lerp_(high.float(), _MOMENTUM)
        return round_to_grid(x, self.step(), self.quant_min, self.quant_max)


class _TrainedWeight(WeightObserver):
    """What both kinds share: the floor of the steps as state, and an encoding with the very step of ``forward``."""

    scale_floor: torch.Tensor

    def __init__(self, observer: WeightObserver, weight: torch.Tensor) -> None:
        super().__init__(
            bits=(observer.quant_max + 1).bit_length(), per_channel=observer.per_channel, pairs=observer.pairs
        )
        floor = observer.scale_floor.expand(len(weight) if observer.per_channel else 1).clone()
        del self.scale_floor
        self.register_buffer("scale_floor", floor)

    def step(self, weight: torch.Tensor) -> torch.Tensor:
        """The grid's steps, float32 [C], or [1] for one of the whole weight."""
        raise NotImplementedError

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """``weight`` on the grid."""
        return round_to_grid(weight, self.step(weight), self.quant_min, self.quant_max)

    def encode(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is stored: int8, and float32 [C] or a scalar."""
        weight = weight.detach()
        step = self.step(weight).detach()
        steps = (weight / _spread(step, weight)).round().clamp(self.quant_min, self.quant_max)
        return steps.to(torch.int8), step if self.per_channel else step[0]


class LearnedWeight(_TrainedWeight):
    """A weight on a grid whose steps are trained; they start where its squared error is least."""

    start: torch.Tensor

    def __init__(self, observer: WeightObserver, weight: torch.Tensor) -> None:
        super().__init__(observer, weight)
        self.register_buffer("start", best_steps(weight.detach(), self.quant_max, per_channel=self.per_channel))
        self.theta = torch.nn.Parameter(torch.zeros(len(self.start)))

    def step(self, weight: torch.Tensor) -> torch.Tensor:
        """float32 [C] or [1]."""
        gain = 1.0 / math.sqrt(weight.numel() // len(self.start) * self.quant_max)
        step: torch.Tensor = _Step.apply(self.theta, self.start, gain)  # type: ignore[no-untyped-call]
        return torch.maximum(step, self.floor(weight))


class ObservedWeight(_TrainedWeight):
    """A weight on the grid that covers its largest magnitude, as it is at the time."""

    def step(self, weight: torch.Tensor) -> torch.Tensor:
        """float32 [C] or [1]; as the post-training observer has it."""
        magnitude = weight.detach().abs()
        largest = magnitude.flatten(1).amax(1) if self.per_channel else magnitude.max().reshape(1)
        return torch.maximum((largest.double() / self.quant_max).float(), self.floor(weight))


def insert_fake_quants(prepared: GraphModule, config: Qat) -> None:
    """Put a fake-quant in the place of every observer of a calibrated graph."""
    learned = config.scales == "learned"
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer = prepared.get_submodule(str(node.target))
        made: torch.nn.Module
        if isinstance(observer, ActivationObserver):
            made = LearnedActivation(observer) if learned else ObservedActivation(observer)
        elif isinstance(observer, WeightObserver):
            weight = attribute(prepared, str(node.args[0].target))
            made = LearnedWeight(observer, weight) if learned else ObservedWeight(observer, weight)
        else:
            continue
        prepared.set_submodule(str(node.target), made)


def best_steps(weight: torch.Tensor, quant_max: int, *, per_channel: bool) -> torch.Tensor:
    """Per channel the step with the least squared error of rounding, float32 [C] (or [1] for one of all), > 0."""
    rows = (weight.flatten(1) if per_channel else weight.reshape(1, -1)).double()
    widest = (rows.abs().amax(1) / quant_max).clamp_min(SCALE_FLOOR)
    best, least = widest, torch.full_like(widest, math.inf)
    # a grid of three points covers Gaussian weights best at 0.61 of their largest magnitude or less
    for share in torch.linspace(1.0, 0.1 if quant_max < 8 else 0.5, _CANDIDATES).tolist():
        step = (widest * share)[:, None]
        error = ((rows / step).round().clamp(-quant_max, quant_max) * step - rows).square().sum(1)
        better = error < least
        best, least = torch.where(better, widest * share, best), torch.where(better, error, least)
    return best.float().clamp_min(SCALE_FLOOR)


def _spread(step: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``step`` [1] or [C] in a shape that multiplies ``like`` [C, …] along axis 0."""
    return step.reshape(-1, *[1] * (like.ndim - 1)) if like.ndim else step.reshape(())
