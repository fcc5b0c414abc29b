"""Empirical bias correction: what quantization adds to a layer's mean output is taken out of its bias.

Source: M. Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and
appendix D (empirical bias correction): b ← b − (E[ỹ] − E[y]) per output channel, y the float layer's output and ỹ the
quantized one's, each layer after those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.attributes import attribute, constant
from edgeopt.compress.calibrate import Feed
from edgeopt.core.events import Progress, ProgressListener

__all__ = ["QuantizedMeans", "channel_mean", "correct_biases", "float_means", "mean_errors"]

_Q = torch.ops.quantized_decomposed


@dataclass(slots=True)
class _MeanError:
    """A running mean over samples: float64 [C]."""

    value: torch.Tensor | float = 0.0
    samples: int = 0

    def add(self, mean: torch.Tensor, samples: int) -> None:
        self.samples += samples
        self.value = self.value + (mean - self.value) * (samples / self.samples)


class _Means(Interpreter):
    """Runs a graph and takes the mean per output channel of chosen layers, over the first ``count`` samples."""

    def __init__(self, model: GraphModule, axes: Mapping[str, int]) -> None:
        super().__init__(model)
        self.axes = axes
        self.means: dict[str, torch.Tensor] = {}
        self.count = self.rows = 0

    def collect(self, inputs: Sequence[torch.Tensor], count: int) -> dict[str, torch.Tensor]:
        """Mean output float64 [C] of each layer."""
        self.means, self.count, self.rows = {}, count, len(inputs[0])
        self.run(*inputs, enable_io_processing=False)
        return self.means

    def run_node(self, n: Node) -> Any:
        """Run one node; note and perhaps shift a layer's output."""
        result = super().run_node(n)
        return self.layer(n.name, result) if n.name in self.axes else result

    def layer(self, name: str, output: torch.Tensor) -> torch.Tensor:
        """Called with a layer's output; returns what the graph goes on with."""
        self.means[name] = self._mean(output, self.axes[name])
        return output

    def _mean(self, output: torch.Tensor, axis: int) -> torch.Tensor:
        return channel_mean(output, axis, self.count, self.rows)


def channel_mean(output: torch.Tensor, axis: int, count: int, rows: int) -> torch.Tensor:
    """Mean of ``output`` over everything but ``axis``: float64 [C]. Of ``rows`` samples the first ``count`` are real."""
    if count < rows and len(output) % rows == 0:  # rows that only fill a static batch
        output = output[: len(output) // rows * count]
    axis %= output.ndim
    inner = [i for i in range(1, output.ndim) if i != axis]
    if inner and axis:  # within a sample in float32, which is many times faster; over samples in float64
        output, axis = output.mean(inner), 1
    others = [i for i in range(output.ndim) if i != axis]
    return output.mean(others, dtype=torch.float64) if others else output.double()


def float_means(
    model: GraphModule, axes: Mapping[str, int], inputs: Sequence[torch.Tensor], count: int, *, squares: bool = False
) -> dict[str, torch.Tensor]:
    """Mean output per channel of chosen layers on one batch: float64 [C], or [2, C] with the mean of the squares."""
    return (_Squares if squares else _Means)(model, axes).collect(inputs, count)


class _Squares(_Means):
    def layer(self, name: str, output: torch.Tensor) -> torch.Tensor:
        """Note the mean and the mean of the squares."""
        axis = self.axes[name]
        self.means[name] = torch.stack([self._mean(output, axis), self._mean(output.square(), axis)])
        return output


class QuantizedMeans(_Means):
    """Runs a converted graph: a Q and its DQs as torch's one fused op on the same grid, several times faster."""

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        if n.target == _Q.quantize_per_tensor.default:
            x, scale, zero_point, low, high = self.fetch_args_kwargs_from_env(n)[0][:5]
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
        source = n.args[0] if n.args else None
        if isinstance(source, Node) and source.target == _Q.quantize_per_tensor.default:
            return self.env[source]
        return super().run_node(n)


class _Corrected(QuantizedMeans):
    """The quantized graph, each layer shifted by the correction known so far.

    After the first batch the corrections are those of a sequential pass over that batch; each further batch refines
    them, and later layers see earlier ones corrected. One pass, constant memory.
    """

    def __init__(self, model: GraphModule, axes: Mapping[str, int]) -> None:
        super().__init__(model, axes)
        self.reference: dict[str, torch.Tensor] = {}
        self.errors = {name: _MeanError() for name in axes}

    def layer(self, name: str, output: torch.Tensor) -> torch.Tensor:
        """Update the layer's mean error and take it out of the output."""
        error, axis = self.errors[name], self.axes[name]
        error.add(self._mean(output, axis) - self.reference[name], self.count)
        shape = [1] * output.ndim
        shape[axis] = -1
        return output.sub_(torch.as_tensor(error.value, dtype=output.dtype).reshape(shape))


def correct_biases(
    reference: GraphModule, quantized: GraphModule, axes: Mapping[str, int], feed: Feed, progress: ProgressListener
) -> dict[str, torch.Tensor]:
    """Correct the biases of ``quantized`` in place; a layer without a bias gets one.

    Args:
        reference: The float graph; same node names.
        quantized: The converted graph; mutated.
        axes: The channel axis of the output of each quantized conv and linear, by node name.
        feed: Calibration samples.
        progress: Told about each batch.

    Returns:
        What was subtracted, float64 [C] by node name.
    """
    float_run, int8_run = _Means(reference, axes), _Corrected(quantized, axes)
    done = 0
    for inputs, count in feed.batches():
        int8_run.reference = float_run.collect(inputs, count)
        int8_run.collect(inputs, count)
        done += count
        progress(Progress(stage="correct biases", done=done, total=feed.samples))
    shifts: dict[str, torch.Tensor] = {}
    for node in list(quantized.graph.nodes):
        if node.name in axes:
            shifts[node.name] = torch.as_tensor(int8_run.errors[node.name].value)
            _shift_bias(quantized, node, shifts[node.name])
    quantized.recompile()
    return shifts


def mean_errors(
    reference: GraphModule, quantized: GraphModule, axes: Mapping[str, int], feed: Feed
) -> dict[str, torch.Tensor]:
    """E[ỹ] − E[y] per output channel of each layer, as the graphs stand: float64 [C] by node name."""
    float_run, int8_run = _Means(reference, axes), _Means(quantized, axes)
    errors = {name: _MeanError() for name in axes}
    for inputs, count in feed.batches():
        expected, got = float_run.collect(inputs, count), int8_run.collect(inputs, count)
        for name, error in errors.items():
            error.add(got[name] - expected[name], count)
    return {name: torch.as_tensor(error.value) for name, error in errors.items()}


def _shift_bias(model: GraphModule, node: Node, shift: torch.Tensor) -> None:
    """Subtract ``shift`` from the bias at argument 2, in a constant of its own: another layer may share the old one."""
    old = node.args[2] if len(node.args) > 2 else None
    bias = attribute(model, str(old.target)).detach().double() if isinstance(old, Node) else 0.0
    with model.graph.inserting_before(node):
        new = constant(model, f"{node.name}_bias", (bias - shift).float())
    node.args = (*node.args[:2], new, *node.args[3:])
    if isinstance(old, Node) and not old.users:
        model.graph.erase_node(old)
