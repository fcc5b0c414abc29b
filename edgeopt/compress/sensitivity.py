"""What each group of layers costs in accuracy: one calibration, then quantizers switched on and off in PyTorch.

A trial computes what the exported graph of that assignment would: the same ranges, scales and weights, and the plan
that ``find_layers`` makes of the assignment (what a float neighbour changes included). The techniques that make the
finished model more accurate (bias correction and the like) are left out.
"""

from __future__ import annotations

import copy
import glob
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.compress.base import StepContext
from edgeopt.compress.groups import find_groups
from edgeopt.compress.layers import Layer, find_layers
from edgeopt.compress.observers import ActivationObserver, WeightObserver, quantize_weight
from edgeopt.compress.outputs import absorbed
from edgeopt.compress.prepare import open_session, prepare
from edgeopt.compress.score import Judge, Score
from edgeopt.core.events import Progress
from edgeopt.data.contract import Split
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import LayerPrecision, Quantize

__all__ = ["Sensitivity", "Trials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One group in one precision.

    Attributes:
        alone: Only this group is quantized.
        without: Everything is quantized but this group; None where it was not asked for.
    """

    group: str
    precision: LayerPrecision
    alone: Score
    without: Score | None = None


class Trials:
    """A calibrated model whose groups can be in any precision.

    Args:
        model: Not changed.
        config: The quantization that all groups would get; what it leaves in float is in no group.
        split: What scores are taken on.
        samples: How many of it.
        classification: Whether the first output has one score per class on its last axis.

    Attributes:
        groups: In the graph's order.
        judge: Scores on the split; its reference is the float graph.
    """

    def __init__(
        self,
        model: TrainedModel,
        config: Quantize,
        context: StepContext,
        *,
        split: Split,
        samples: int,
        classification: bool,
    ) -> None:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            torch.manual_seed(context.seed)
            if config.observer == "best":  # it belongs to the finished model, as every other technique does
                config = config.model_copy(update={"observer": "histogram"})
            session = open_session(model, config, context)
            self._plain = copy.deepcopy(session.graph)
            self._prepared, self.calibration_samples = prepare(session)
        self._rules, self._config, self._context = session.rules, config, context
        self.groups = find_groups(self._plain, session.layers)
        self._weights: dict[tuple[str, int], torch.Tensor] = {}
        self.judge = Judge.on(self._run(()), session.feed, split, samples, classification=classification)
        self._scores: dict[tuple[tuple[str, LayerPrecision], ...], Score] = {}

    def assignment(self, chosen: Mapping[str, LayerPrecision]) -> dict[str, LayerPrecision]:
        """Group → precision as layer → precision, for ``Quantize.assign``; a group that is not named is float."""
        return {glob.escape(layer): chosen.get(group.name, "float") for group in self.groups for layer in group.layers}

    def score(self, chosen: Mapping[str, LayerPrecision]) -> Score:
        """The model with these groups quantized and every other one in float. Found again where asked twice."""
        key = tuple(sorted((name, p) for name, p in chosen.items() if p != "float"))
        if key not in self._scores:
            own = self._config.assign
            assign = {name: p for name, p in self.assignment(chosen).items() if name not in own}
            config = self._config.model_copy(update={"assign": {**own, **assign}})
            layers = find_layers(self._plain, self._rules, config)
            self._scores[key] = self.judge.score(self._run(layers))
        return self._scores[key]

    def measure(self, precisions: Sequence[LayerPrecision], *, complement: bool = False) -> Iterator[Sensitivity]:
        """Each group alone in each precision; with ``complement`` also everything but the group."""
        total, done = len(self.groups) * len(precisions), 0
        for precision in precisions:
            everything: dict[str, LayerPrecision] = {group.name: precision for group in self.groups}
            for group in self.groups:
                rest: dict[str, LayerPrecision] = {**everything, group.name: "float"}
                yield Sensitivity(
                    group=group.name,
                    precision=precision,
                    alone=self.score({group.name: precision}),
                    without=self.score(rest) if complement else None,
                )
                done += 1
                self._context.progress(Progress(stage="sensitivity", done=done, total=total))

    def _run(self, layers: Sequence[Layer]) -> Any:
        chosen = {layer.node: layer for layer in layers if layer.quantized}

        def run(inputs: Sequence[torch.Tensor]) -> Any:
            return _FakeQuantized(self._prepared, chosen, self._weights).run(*inputs, enable_io_processing=False)

        return run


class _FakeQuantized(Interpreter):
    """Runs the observed graph; observers pass on what they get, chosen layers read it through their grid."""

    def __init__(
        self, model: GraphModule, layers: Mapping[str, Layer], weights: dict[tuple[str, int], torch.Tensor]
    ) -> None:
        super().__init__(model)
        self._layers, self._weights = layers, weights
        self._observers = dict(model.named_modules(remove_duplicate=False))
        self._outputs = {
            absorbed(node).name
            for node in model.graph.nodes
            if node.name in layers and layers[node.name].quantize_output
        }

    def run_node(self, n: Node) -> Any:
        """One node, through the quantizers that are on."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        layer = self._layers.get(n.name)
        if layer is None:
            value = super().run_node(n)
        else:
            with self._set_current_node(n):
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                value = n.target(*self._through(n, layer, args), **kwargs)  # type: ignore[operator]
        if n.name in self._outputs and isinstance(value, torch.Tensor):
            observer = next((self._observer(user) for user in n.users if self._observer(user)), None)
            value = value if observer is None else observer.on_grid(value)
        return value

    def _observer(self, node: Any) -> ActivationObserver | None:
        found = self._observers.get(str(node.target)) if isinstance(node, Node) and node.op == "call_module" else None
        return found if isinstance(found, ActivationObserver) else None

    def _through(self, node: Node, layer: Layer, args: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(args)
        for position in layer.activations:
            observer = self._observer(node.args[position])
            if observer is not None:
                values[position] = observer.on_grid(values[position])
        if layer.weighted:
            values[1] = self._weight(node.args[1], layer.weight_bits)
        return tuple(values)

    def _weight(self, observed: Any, bits: int) -> torch.Tensor:
        key = (observed.name, bits)
        if key not in self._weights:
            observer, weight = self._observers[str(observed.target)], self.env[observed]
            if not isinstance(observer, WeightObserver):
                raise TypeError(f"{observed.name} watches no weight")
            stored, scale = quantize_weight(
                weight, observer.floor(weight), 2 ** (bits - 1) - 1, per_channel=observer.per_channel
            )
            shape = (-1, *[1] * (weight.ndim - 1)) if observer.per_channel else ()
            self._weights[key] = stored.float() * scale.reshape(shape)
        return self._weights[key]
