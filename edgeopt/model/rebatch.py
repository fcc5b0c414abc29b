"""Trace a statically exported program again, with the sizes that it fixed following the batch.

`torch.export` without dynamic shapes writes `x.view(x.size(0), -1)` down as `view(x, [4, -1])`. Re-exporting that
graph with a dynamic batch keeps the 4. This interpreter runs the graph, during the new export, with those literals
replaced. It guesses, by rules that hold for row-major reshapes; the caller verifies the result against the original.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["STRATEGIES", "Rebatched", "Strategy", "name_inputs"]

_aten = torch.ops.aten
_RESHAPES: tuple[Any, ...] = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)  # noqa: SLF001
_SIZED: tuple[Any, ...] = (
    _aten.zeros.default, _aten.ones.default, _aten.empty.memory_format, _aten.full.default,
    _aten.rand.default, _aten.randn.default,
)  # fmt: skip
_SIZED_LIKE: tuple[Any, ...] = (
    _aten.new_zeros.default, _aten.new_ones.default, _aten.new_full.default, _aten.new_empty.default,
    _aten.expand.default, _aten.repeat.default,
)  # fmt: skip
_RECURRENT: tuple[Any, ...] = (
    _aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input,
)  # fmt: skip
_SPREAD: tuple[Any, ...] = (_aten.expand.default, _aten.repeat.default)

# Whether the literal at `axis` of a tensor of `rank` dimensions is the batch; `made`: of a tensor made anew, rather
# than one expanded or repeated.
Strategy = Callable[[bool, int, int], bool]


def _everywhere(made: bool, axis: int, rank: int) -> bool:  # noqa: ARG001
    return True


def _nowhere(made: bool, axis: int, rank: int) -> bool:  # noqa: ARG001
    return False


def _first(made: bool, axis: int, rank: int) -> bool:  # noqa: ARG001
    return axis == 0


def _recurrent(made: bool, axis: int, rank: int) -> bool:
    return axis == (1 if made and rank == 3 else 0)


# With a batch of 4 every literal 4 may be it, or only those in the usual places. With a batch of 1 nearly every literal is a 1: try, in this order,
# none, the first dimension (a class token), and the second of three (a recurrent layer's initial state).
STRATEGIES: dict[bool, tuple[Strategy, ...]] = {False: (_everywhere, _recurrent), True: (_nowhere, _first, _recurrent)}


class Rebatched(torch.nn.Module):
    """A program's module that computes with whatever batch it is given.

    It has the same parameters and submodules under the same names.

    Args:
        module: The unlifted program, traced with a batch of ``batch``.
        batch: The first size that it was traced with.
        names: What the inputs are called.
        position: An input that has the batch first.
        is_batch: Which literals of newly made tensors are the batch.
    """

    def __init__(
        self, module: fx.GraphModule, *, batch: int, names: Sequence[str], position: int, is_batch: Strategy
    ) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

        def forward(*inputs: torch.Tensor) -> Any:
            size = inputs[position].shape[0]
            return _Interpreter(module, self, batch, size, is_batch).run(*inputs)

        # In a closure, so that the parameters of `module` are not registered a second time.
        name_inputs(self, forward, names)


def name_inputs(module: torch.nn.Module, forward: Callable[..., Any], names: Sequence[str]) -> None:
    """Make ``forward``, a function of any tensors, that of ``module``, with these argument names.

    torch.export reads the names of a program's inputs from there.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    vars(forward)["__signature__"] = signature
    vars(module)["forward"] = forward


class _Interpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, root: torch.nn.Module, old: int, new: Any, is_batch: Strategy) -> None:
        super().__init__(module)
        self._root, self._old, self._new, self._is_batch = root, old, new, is_batch
        self._node: fx.Node | None = None
        self._blocks: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        self._node = n
        self._blocks[n] = self._inherited(n)
        return super().run_node(n)

    def fetch_attr(self, target: str) -> Any:
        # torch.export swaps the root's parameters for fake ones: they must be looked up there.
        value: Any = self._root
        for name in target.split("."):
            value = getattr(value, name) if hasattr(value, name) else super().fetch_attr(target)
        return value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _RESHAPES and all(type(size) is int for size in args[1]):
            args = (args[0], self._reshaped(args[0]), *args[2:])
        elif target in _SIZED:
            args = (self._sized(args[0], made=True), *args[1:])
        elif target in _SIZED_LIKE:
            args = (args[0], self._sized(args[1], made=target not in _SPREAD), *args[2:])
        elif target in _RECURRENT:
            _refuse_other_state(args)
        return super().call_function(target, args, kwargs)

    def _reshaped(self, tensor: torch.Tensor) -> list[Any]:
        """The traced output shape, its batch where the tensor's own batch now lies in memory."""
        node = self._node
        if node is None or not isinstance(source := node.args[0], fx.Node):
            raise TypeError("a reshape without a tensor")
        before, after = _traced_shape(source), _traced_shape(node)
        changed = [axis for axis, now in enumerate(tensor.shape) if not (isinstance(now, int) and now == before[axis])]
        if len(changed) != 1:
            return list(after)
        blocks = math.prod(before[: changed[0]]) * self._inherited(node)
        place = _place(after, blocks, self._old)
        if place is None:
            return list(after)
        self._blocks[node] = blocks // math.prod(after[:place])
        return [size // self._old * self._new if at == place else size for at, size in enumerate(after)]

    def _inherited(self, node: fx.Node) -> int:
        """How many blocks precede the batch within the axis that it shares, e.g. T where that axis is T × batch."""
        return max((self._blocks.get(source, 1) for source in node.all_input_nodes), default=1)

    def _sized(self, sizes: Sequence[Any], *, made: bool) -> list[Any]:
        rank = len(sizes)
        return [
            self._new if isinstance(size, int) and size == self._old and self._is_batch(made, axis, rank) else size
            for axis, size in enumerate(sizes)
        ]


def _refuse_other_state(args: tuple[Any, ...]) -> None:
    """Raise where a recurrent layer's initial state has another batch than its input.

    torch checks that in no export, and crashes the process when it runs such a layer.
    """
    inputs, state, batch_first = args[0], args[1], args[-1]
    batch = inputs.shape[0 if batch_first else 1]
    for tensor in state if isinstance(state, list | tuple) else [state]:
        layers = tensor.shape[0]
        if not isinstance(layers, int) or not statically_known_true(tensor.shape[1] == batch):
            raise ValueError("the initial state of a recurrent layer does not follow the batch")


def _place(shape: Sequence[int], blocks: int, batch: int) -> int | None:
    """Which axis of a traced ``shape`` holds the batch, given how many blocks precede it in row-major memory.

    With a traced batch of 1 several could: one of its own is likelier than one that it shares with what follows, that
    likelier than with what precedes, and least likely is the last axis, which usually holds features.
    """
    ranked: list[tuple[int, int]] = []
    start = 1
    for axis, size in enumerate(shape):
        if blocks % start == 0 and start * size >= blocks * batch and size % batch == 0:
            alone, last = start == blocks and size == batch, axis == len(shape) - 1
            if start <= blocks:
                ranked.append((0 if alone else 3 if last and start == blocks else 1 if start == blocks else 2, axis))
        start *= size
    return min(ranked)[1] if ranked else None


def _traced_shape(node: fx.Node) -> list[int]:
    return [int(size) for size in node.meta["val"].shape]
