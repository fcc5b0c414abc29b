"""Convolutions that keep their BatchNorm while they are trained on a grid, and are folded at the end.

Source: R. Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 3.2.2 (and
B. Jacob et al. 2018, figure C.8): the weight that is quantized is the one that will be deployed, folded with the running
statistics, W·γ/σ; while batch statistics are used its output is corrected by σ/σ_B, and after they are frozen nothing is
left to correct. So there is one convolution per step, and its grid does not jitter with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute
from edgeopt.compress.normalize import BATCH_NORMS, CONVS
from edgeopt.compress.observers import WeightObserver
from edgeopt.compress.training.tape import operator_of

__all__ = ["LiveConv", "Norm", "find_norms", "fold_norms", "insert_norms"]

_VANISHED = 1e-6  # of γ/σ: what is smaller hides the statistics of what it multiplies


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A BatchNorm behind a convolution, and the convolution's own weights before they are folded: float32 tensors."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    gamma: torch.Tensor
    beta: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    momentum: float
    eps: float


class LiveConv(torch.nn.Module):
    """A convolution and its BatchNorm, weights on a grid.

    Attributes:
        live: Whether training uses (and moves) batch statistics.
    """

    mean: torch.Tensor
    var: torch.Tensor

    def __init__(self, norm: Norm, op: str, rest: tuple[Any, ...], grid: WeightObserver) -> None:
        super().__init__()
        self.weight, self.gamma = torch.nn.Parameter(norm.weight.clone()), torch.nn.Parameter(norm.gamma.clone())
        self.beta = torch.nn.Parameter(norm.beta.clone())
        offset = norm.bias if norm.bias is not None else torch.zeros_like(norm.mean)
        # A bias before a BatchNorm moves the mean and nothing else: it is folded into it.
        self.register_buffer("mean", norm.mean - offset)
        self.register_buffer("var", norm.var.clone())
        self.momentum, self.eps = norm.momentum, norm.eps
        self._op, self._rest, self.grid = op, rest, grid
        self.live = False

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that stands for both."""
        gain = self.gamma / (self.var + self.eps).sqrt()
        return self.weight * gain.reshape(-1, *[1] * (self.weight.ndim - 1)), self.beta - self.mean * gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, …] to [N, C', …]."""
        weight, bias = self.folded()
        conv = operator_of(self._op)
        quantized = self.grid(weight)
        if not (self.training and self.live):
            result: torch.Tensor = conv(x, quantized, bias, *self._rest)
            return result
        return self._normalized(conv(x, quantized, None, *self._rest))

    def _normalized(self, y: torch.Tensor) -> torch.Tensor:
        """``y`` is γ/σ times the convolution's output: normalize that by its own statistics, and move the running ones."""
        axes = [axis for axis in range(y.ndim) if axis != 1]
        shape = [1, -1] + [1] * (y.ndim - 2)
        sigma = (self.var + self.eps).sqrt()
        gain = self.gamma / sigma
        var, mean = torch.var_mean(y.float(), axes, correction=0)
        seen = gain.detach().abs() > _VANISHED
        safe = torch.where(seen, gain, torch.ones_like(gain))
        own_var = torch.where(seen, var / safe.square(), self.var.clone())
        correction = sigma / (own_var + self.eps).sqrt()
        with torch.no_grad():
            count = y.numel() // y.shape[1]
            self.mean.lerp_(torch.where(seen, mean / safe, self.mean), self.momentum)
            unbiased = own_var * (count / max(1, count - 1))
            self.var.lerp_(torch.where(seen, unbiased, self.var), self.momentum)
        return (y - mean.reshape(shape)) * correction.reshape(shape) + self.beta.reshape(shape)


def find_norms(graph: GraphModule) -> dict[str, Norm]:
    """The BatchNorms that ``prepare_pt2e`` folds, by the names of their convolutions; to be called before it does."""
    found = {}
    for node in graph.graph.nodes:
        conv = node.args[0] if node.target in BATCH_NORMS else None
        if not isinstance(conv, Node) or conv.target not in CONVS or len(conv.users) != 1:
            continue
        weight, bias = (_value(graph, conv, i) for i in (1, 2))
        gamma, beta, mean, var = (_value(graph, node, i) for i in (1, 2, 3, 4))
        if weight is None or mean is None or var is None:
            continue
        momentum, eps = node.args[6:8] if node.target == BATCH_NORMS[0] else node.args[5:7]
        found[conv.name] = Norm(
            weight=weight,
            bias=bias,
            gamma=torch.ones_like(mean) if gamma is None else gamma,
            beta=torch.zeros_like(mean) if beta is None else beta,
            mean=mean,
            var=var,
            momentum=float(momentum),
            eps=float(eps),
        )
    return found


def insert_norms(prepared: GraphModule, norms: Mapping[str, Norm]) -> dict[str, str]:
    """Let a ``LiveConv`` stand for each quantized convolution of ``norms``; the convolutions stay, unread.

    Returns:
        Names of the convolutions' nodes → of the modules that stand for them.
    """
    made = {}
    for node in list(prepared.graph.nodes):
        norm = norms.get(node.name)
        weight = node.args[1] if norm is not None else None
        if norm is None or not isinstance(weight, Node) or weight.op != "call_module":
            continue
        name = f"live_{node.name}"
        grid = prepared.get_submodule(str(weight.target))
        if not isinstance(grid, WeightObserver):
            continue
        prepared.add_module(name, LiveConv(norm, str(node.target), tuple(node.args[3:]), grid))
        with prepared.graph.inserting_after(node):
            stand_in = prepared.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(stand_in)
        made[node.name] = name
    return made


@torch.no_grad()
def fold_norms(prepared: GraphModule, names: Mapping[str, str]) -> None:
    """Undo ``insert_norms``: the convolutions read weights folded with what was trained."""
    for node in list(prepared.graph.nodes):
        if node.op != "call_module" or str(node.target) not in names.values():
            continue
        conv = next(n for n in prepared.graph.nodes if names.get(n.name) == str(node.target))
        live = prepared.get_submodule(str(node.target))
        if not isinstance(live, LiveConv):
            raise TypeError(f"{node.target} is no LiveConv")
        weight, bias = live.folded()
        attribute(prepared, str(conv.args[1].args[0].target)).copy_(weight)
        attribute(prepared, str(conv.args[2].target)).copy_(bias)
        node.replace_all_uses_with(conv)
        prepared.graph.erase_node(node)
        prepared.delete_submodule(str(node.target))
    prepared.recompile()


def _value(graph: GraphModule, node: Node, position: int) -> torch.Tensor | None:
    source = node.args[position] if len(node.args) > position else None
    if not isinstance(source, Node) or source.op != "get_attr":
        return None
    return attribute(graph, str(source.target)).detach().clone()
