"""The way into every quantization: the normalized graph with an observer at each tensor that is to be quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

from edgeopt.compress.attributes import attribute, source_name
from edgeopt.compress.base import StepContext
from edgeopt.compress.calibrate import Feed, Watch, calibrate
from edgeopt.compress.encodings import allow_uint8
from edgeopt.compress.layers import Layer, find_layers
from edgeopt.compress.macs import multiplications
from edgeopt.compress.normalize import normalize
from edgeopt.compress.observers import ActivationObserver, WeightObserver
from edgeopt.compress.quantizer import EdgeQuantizer
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.core.events import Progress
from edgeopt.data.contract import Dataset
from edgeopt.model.batches import samples_that_fit
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.schema import QuantizationRules

__all__ = ["Session", "allow_int32_biases", "channel_axes", "fix_ranges", "open_session", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What one quantization works on; the model that came in is never changed.

    Attributes:
        graph: The normalized float graph, BatchNorms as they came. ``prepare`` turns it into the observed one, in place.
        layers: Every layer that was judged, in the graph's order.
        feed: The calibration samples.
        multiplications: Of each layer, per sample, by node name; what has unknown shapes is left out.
        sparse: Node name of each layer with a sparse weight → the weight's name in ``model.sparse``.
    """

    model: TrainedModel
    program: ExportedProgram
    data: Dataset
    rules: QuantizationRules
    config: Quantize
    context: StepContext
    graph: GraphModule
    layers: tuple[Layer, ...]
    feed: Feed
    multiplications: Mapping[str, int]
    sparse: Mapping[str, str]


def open_session(model: TrainedModel, config: Quantize, context: StepContext) -> Session:
    """Normalize the program and judge its layers; ``QuantizeStep.run`` has checked that there are data and rules.

    Raises:
        RecipeError: A pattern of ``config`` matches no layer, or no layer is left to quantize.
    """
    program, rules, data = model.program, context.target.quantization, context.data
    if program is None or rules is None or data is None:
        raise TypeError("QuantizeStep.run passes a program, rules and data")
    graph = normalize(program, split_attention="matmul" in rules.quantized_ops)
    layers = find_layers(graph, rules, config)
    if not any(layer.quantized for layer in layers):
        raise RecipeError(
            "There is no layer that could be quantized.",
            got="; ".join(f"{layer.name}: {layer.reason}" for layer in layers[:5]) or "a model without weighted layers",
            fix=f"Use recipe {context.target.float_recipe!r}.",
        )
    # No range but a moving average depends on how many samples come at a time.
    size = (
        config.batch_size
        if config.observer == "moving_average"
        else min(config.batch_size, samples_that_fit(graph.graph))
    )
    return Session(
        model=model,
        program=program,
        data=data,
        rules=rules,
        config=config,
        context=context,
        graph=graph,
        layers=layers,
        feed=Feed.of(model, program, data.splits["calibration"], config.calibration_samples, size),
        multiplications=multiplications(graph),
        sparse={layer.node: name for layer, name in _weights(graph, layers) if name in model.sparse},
    )


def _weights(graph: GraphModule, layers: tuple[Layer, ...]) -> Iterator[tuple[Layer, str]]:
    """Each weighted layer and the parameter that its weight is, or was made of."""
    nodes = {node.name: node for node in graph.graph.nodes}
    for layer in layers:
        weight = nodes[layer.node].args[1] if layer.weighted else None
        if isinstance(weight, Node) and weight.op == "get_attr":
            yield layer, source_name(weight)


def prepare(session: Session, watch: Watch | None = None) -> tuple[GraphModule, int]:
    """Put observers in place, run the calibration samples through them, choose every range.

    Args:
        watch: Sees each batch of calibration, with its float outputs.

    Returns:
        The observed graph, BatchNorms folded, ready for ``convert_pt2e``; and how many samples it saw.

    Raises:
        DataError: The data does not fit the model, or makes it produce NaN or infinity.
    """
    prepared: GraphModule = prepare_pt2e(session.graph, EdgeQuantizer(session.layers, session.rules, session.config))
    if session.rules.asymmetric_activations:
        allow_uint8(prepared, symmetric_products=session.rules.symmetric_products)
    samples = calibrate(prepared, session.feed, session.context.progress, watch)
    if samples == 0:
        raise DataError("The calibration split is empty.", got=session.data.name, fix="Give data to calibrate on.")
    fix_ranges(prepared, session.context)
    return prepared, samples


def fix_ranges(prepared: GraphModule, context: StepContext) -> None:
    """End calibration: choose every range, and keep biases representable beside them."""
    watching = [m for m in prepared.modules() if isinstance(m, ActivationObserver)]
    for done, observer in enumerate(watching, 1):
        observer.fix()
        context.progress(Progress(stage="choose ranges", done=done, total=len(watching)))
    allow_int32_biases(prepared)


def allow_int32_biases(prepared: GraphModule) -> None:
    """Raise the weight scales beside which an int32 bias could not be written; again after biases changed."""
    observers = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op != "call_function" or len(node.args) < 3 or not isinstance(node.args[2], Node):
            continue
        observed = [observers.get(str(a.target)) if isinstance(a, Node) else None for a in node.args[:2]]
        bias = node.args[2]
        if (
            isinstance(observed[0], ActivationObserver)
            and isinstance(observed[1], WeightObserver)
            and bias.op == "get_attr"
        ):
            observed[1].allow_int32_bias(attribute(prepared, str(bias.target)), observed[0].scale)


def channel_axes(model: GraphModule, layers: tuple[Layer, ...]) -> dict[str, int]:
    """The output's channel axis of every quantized conv and linear whose bias can be changed."""
    quantized = {layer.node: layer.op for layer in layers if layer.quantized and layer.weighted}
    axes: dict[str, int] = {}
    for node in model.graph.nodes:
        op = quantized.get(node.name)
        bias = node.args[2] if op and len(node.args) > 2 else None
        if op is None or (isinstance(bias, Node) and bias.op != "get_attr"):
            continue
        # A conv without a batch dimension has its channels on axis 0; linear always on the last.
        spatial = {"conv1d": 1, "conv2d": 2, "conv_transpose1d": 1, "conv_transpose2d": 2}
        axes[node.name] = -1 if op == "linear" else -1 - spatial[str(node.target).split(".")[1]]
    return axes
