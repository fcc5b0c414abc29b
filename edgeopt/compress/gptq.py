"""GPTQ: round a weight column by column, and let the columns not yet rounded take up each one's error.

Source: E. Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
algorithm 1 (with groups, in the weight's own column order). It lessens ‖(W − Ŵ) Xᵀ‖², X the layer's inputs on the
calibration data, of which it needs H = XᵀX alone: one matrix [K, K] per layer, whatever the number of samples.

The inputs are the float net's, so that one pass over the data serves all layers. (The paper feeds each layer what the
rounded ones before it give, one pass per layer.)

A weight that is zero stays zero, and others take up what that costs: it may be part of a pattern of zeros (E. Frantar and
D. Alistarh 2023, "SparseGPT", section 3.4, joint sparsification and quantization).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.attributes import attribute
from edgeopt.compress.grouped import GroupedWeightObserver, group_scales, quantize_groups
from edgeopt.compress.prepare import Session
from edgeopt.core.events import Progress

__all__ = ["gptq", "output_error", "round_by_gptq"]

_DAMPING = 0.01  # of H's mean diagonal, added to it: the paper's value


def round_by_gptq(session: Session, prepared: GraphModule) -> dict[str, str]:
    """Round every grouped weight of ``prepared`` by GPTQ, where that lessens its layer's error on the calibration data.

    Args:
        session: Whose calibration samples are run.
        prepared: As ``prepare`` returns it; the observers at grouped weights are given what to store.

    Returns:
        What it gained each layer, in words, by the name of its node.
    """
    observers = dict(prepared.named_modules(remove_duplicate=False))
    found: dict[str, tuple[GroupedWeightObserver, torch.Tensor]] = {}
    for node in prepared.graph.nodes:
        weight = node.args[1] if node.op == "call_function" and len(node.args) > 1 else None
        observer = observers.get(str(weight.target)) if isinstance(weight, Node) else None
        if isinstance(weight, Node) and isinstance(observer, GroupedWeightObserver):
            source = weight.args[0]
            found[node.name] = observer, attribute(prepared, str(source.target))  # type: ignore[union-attr]
    hessians = _hessians(session, prepared, {name: weight.shape[1] for name, (_, weight) in found.items()})
    gained: dict[str, str] = {}
    for done, (name, (observer, weight)) in enumerate(found.items(), 1):
        group, limit = observer.group_size, observer.quant_max
        nearest = quantize_groups(weight, group, limit)
        rounded = gptq(weight, hessians[name], group, limit)
        before, after = (output_error(weight, *pair, hessians[name]) for pair in (nearest, rounded))
        better = after < before
        observer.stored = rounded if better else nearest
        gain = f"{10 * math.log10(before / after):.1f} dB less output error" if better and after else "not better"
        gained[name] = f"GPTQ: {gain} than the nearest points"
        session.context.progress(Progress(stage="GPTQ", done=done, total=len(found)))
    return gained


def gptq(
    weight: torch.Tensor, hessian: torch.Tensor, group_size: int, quant_max: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round one weight.

    Args:
        weight: float32 [N, K]; K is a multiple of ``group_size``.
        hessian: float64 [K, K], XᵀX of the layer's inputs; only its proportions matter.
        group_size: Weights per scale; a group's scale is that of its weights as they stand when their turn comes.
        quant_max: The grid's largest integer; the smallest is its negative.

    Returns:
        int8 [N, K]; scales float32 [N, K / group_size].
    """
    w = weight.detach().double().clone()
    zero = w == 0
    values, scales = torch.empty_like(weight, dtype=torch.int8), []
    factor = _inverse_factor(hessian)
    for start in range(0, w.shape[1], group_size):
        end = start + group_size
        scale = group_scales(w[:, start:end].masked_fill(zero[:, start:end], 0.0), group_size, quant_max)
        scales.append(scale)
        step = scale.double()[:, 0]
        errors = torch.empty(len(w), group_size, dtype=torch.float64)
        for j in range(start, end):
            integer = (w[:, j] / step).round().clamp(-quant_max, quant_max).masked_fill(zero[:, j], 0.0)
            values[:, j] = integer.to(torch.int8)
            errors[:, j - start] = (w[:, j] - integer * step) / factor[j, j]
            w[:, j + 1 : end] -= errors[:, j - start, None] * factor[j, None, j + 1 : end]
        w[:, end:] -= errors @ factor[start:end, end:]
    return values, torch.cat(scales, 1)


def output_error(weight: torch.Tensor, values: torch.Tensor, scales: torch.Tensor, hessian: torch.Tensor) -> float:
    """‖(W − Ŵ) Xᵀ‖², summed over outputs and samples: tr((W − Ŵ) H (W − Ŵ)ᵀ)."""
    steps = scales.double().repeat_interleave(values.shape[1] // scales.shape[1], dim=1)
    off = weight.detach().double() - values.double() * steps
    return float(((off @ hessian) * off).sum())


def _inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Upper U with UᵀU = (H + damping)⁻¹: row j holds what rounding column j asks of the columns after it."""
    h = hessian.clone()
    diagonal = h.diagonal()
    mean = float(diagonal.mean())
    # An input that is always zero says nothing; any positive value lets its weights be rounded to the nearest.
    diagonal[diagonal == 0] = mean or 1.0
    diagonal += _DAMPING * (mean or 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _hessians(session: Session, prepared: GraphModule, sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """XᵀX, float64 [K, K], of the inputs of the layers in ``sizes`` (node name → K) over the calibration samples."""
    sums = {name: torch.zeros(size, size, dtype=torch.float64) for name, size in sizes.items()}

    class Watch(Interpreter):
        count = rows = 0

        def run_node(self, n: Node) -> Any:
            if n.name in sums:
                x = self.env[n.args[0]]  # type: ignore[index]
                if self.count < self.rows and len(x) % self.rows == 0:  # rows that only fill a static batch
                    x = x[: len(x) // self.rows * self.count]
                x = x.reshape(-1, x.shape[-1])
                # Products of a batch in float32, which is many times faster; over batches in float64.
                sums[n.name] += (x.T @ x).double()
            return super().run_node(n)

    watch = Watch(prepared)
    done = 0
    for inputs, count in session.feed.batches():
        watch.count, watch.rows = count, len(inputs[0])
        watch.run(*inputs, enable_io_processing=False)
        done += count
        session.context.progress(Progress(stage="GPTQ inputs", done=done, total=session.feed.samples))
    return sums
