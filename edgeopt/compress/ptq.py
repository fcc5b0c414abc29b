"""Post-training quantization, start to end: calibrate, convert, correct biases, export again."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgeopt.compress.attributes import attribute
from edgeopt.compress.base import LayerDecision, StepContext, StepResult
from edgeopt.compress.bias import correct_biases
from edgeopt.compress.calibrate import Feed, calibrate
from edgeopt.compress.layers import Layer, find_layers
from edgeopt.compress.normalize import BATCH_NORMS, CONVS, normalize
from edgeopt.compress.observers import RANGE_KEY, ActivationObserver, WeightObserver
from edgeopt.compress.quantizer import EdgeQuantizer
from edgeopt.compress.reexport import export_again, match_nodes
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.core.events import Event, Progress
from edgeopt.core.fingerprint import hash_json
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize

__all__ = ["quantize_program"]

_UNWEIGHTED = ("add", "embedding", "pool")  # no layers that a reader counts


def quantize_program(model: TrainedModel, config: Quantize, context: StepContext) -> StepResult:
    """Quantize a program; ``QuantizeStep.run`` has checked that there is one, with data and rules.

    Raises:
        RecipeError: A ``skip`` pattern matches no layer, or no layer is left to quantize.
        DataError: The data does not fit the model, or makes it produce NaN or infinity.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # torch's own, while it copies its graphs
        torch.manual_seed(context.seed)
        return _quantize(model, config, context)


def _quantize(model: TrainedModel, config: Quantize, context: StepContext) -> StepResult:
    program, rules, data = model.program, context.target.quantization, context.data
    if program is None or rules is None or data is None:
        raise TypeError("QuantizeStep.run passes a program, rules and data")
    split = data.splits["calibration"]
    feed = Feed.of(model, program, split, config.calibration_samples, config.batch_size)

    float_model = normalize(program, split_attention="matmul" in rules.quantized_ops)
    layers = find_layers(float_model, rules, config.skip)
    if not any(layer.quantized for layer in layers):
        raise RecipeError(
            "There is no layer that could be quantized.",
            got="; ".join(f"{layer.name}: {layer.reason}" for layer in layers[:5]) or "a model without weighted layers",
            fix=f"Use recipe {context.target.float_recipe!r}.",
        )
    prepared = prepare_pt2e(float_model, EdgeQuantizer(layers, rules, config))
    samples = calibrate(prepared, feed, context.progress)
    if samples == 0:
        raise DataError("The calibration split is empty.", got=data.name, fix="Give data to calibrate on.")
    _fix_ranges(prepared, context)
    reference = copy.deepcopy(prepared) if config.bias_correction else None
    converted = convert_pt2e(prepared, fold_quantize=False)
    if reference is not None:
        correct_biases(reference, converted, _channel_axes(converted, layers), feed, context.progress)
    quantized = export_again(converted, program, model.inputs)
    names = match_nodes(converted, quantized)
    ranges = {names[n.name]: n.meta[RANGE_KEY] for n in converted.graph.nodes if RANGE_KEY in n.meta}
    return StepResult(
        model=dataclasses.replace(
            model,
            program=quantized,
            identity=hash_json(
                {
                    "model": model.identity,
                    "step": config.model_dump(mode="json"),
                    "rules": rules.model_dump(mode="json"),
                    "data": split.fingerprint,
                    "seed": context.seed,
                }
            ),
        ),
        decisions=tuple(
            LayerDecision(
                name=layer.name,
                op=layer.op,
                precision="int8" if layer.quantized else "float",
                reason=layer.reason,
                node=names.get(layer.node),
            )
            for layer in layers
        ),
        ranges=ranges,
        events=_events(layers, converted, samples, config),
        stats=_stats(program, quantized, layers, samples, config),
    )


def _fix_ranges(prepared: GraphModule, context: StepContext) -> None:
    """End calibration: choose every range, and keep biases representable beside them."""
    observers = dict(prepared.named_modules(remove_duplicate=False))
    watching = [m for m in prepared.modules() if isinstance(m, ActivationObserver)]
    for done, observer in enumerate(watching, 1):
        observer.fix()
        context.progress(Progress(stage="choose ranges", done=done, total=len(watching)))
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


def _channel_axes(model: GraphModule, layers: Sequence[Layer]) -> dict[str, int]:
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


def _events(layers: Sequence[Layer], converted: GraphModule, samples: int, config: Quantize) -> tuple[Event, ...]:
    left: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        if not layer.quantized and layer.op not in _UNWEIGHTED:
            left.setdefault((layer.op, layer.reason), []).append(layer)
    events = [
        Event(
            kind="note" if reason.startswith("skipped") else "fallback",
            stage="quantize",
            message=f"{_list([x.name for x in same])} ({op}) in float: {reason}.",
            node=same[0].node if len(same) == 1 else None,
        )
        for (op, reason), same in left.items()
    ]
    events += [
        Event(
            kind="warning",
            stage="quantize",
            message=f"The BatchNorm {node.name} after a convolution could not be folded into it.",
            node=node.name,
        )
        for node in converted.graph.nodes
        if node.target in BATCH_NORMS and isinstance(node.args[0], Node) and node.args[0].target in CONVS
    ]
    if samples < config.calibration_samples:
        events.append(
            Event(
                kind="note",
                stage="quantize",
                message=f"Calibrated on {samples} samples: the calibration split has no more"
                f" ({config.calibration_samples} were asked for).",
            )
        )
    return tuple(events)


def _list(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _stats(
    before: ExportedProgram, after: ExportedProgram, layers: Sequence[Layer], samples: int, config: Quantize
) -> Mapping[str, float | int | str]:
    judged = [layer for layer in layers if layer.op not in _UNWEIGHTED]
    return {
        "observer": config.observer,
        "calibration_samples": samples,
        "layers": len(judged),
        "layers_int8": sum(layer.quantized for layer in judged),
        "additions_int8": sum(layer.quantized for layer in layers if layer.op == "add"),
        "weights_before_mib": _mebibytes(before),
        "weights_after_mib": _mebibytes(after),
    }


def _mebibytes(program: ExportedProgram) -> float:
    tensors = [*program.state_dict.values(), *(c for c in program.constants.values() if isinstance(c, torch.Tensor))]
    unique = {(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}
    return float(sum(unique.values())) / 2**20
