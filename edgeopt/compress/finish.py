"""The way out of every quantization: the converted graph as an exported program, with what was decided on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.bundle.document import TrialRow
from edgeopt.compress.base import LayerDecision, StepResult
from edgeopt.compress.layers import Layer
from edgeopt.compress.lift import lift
from edgeopt.compress.normalize import BATCH_NORMS, CONVS
from edgeopt.compress.observers import CHANNELS_KEY, RANGE_KEY
from edgeopt.compress.prepare import Session
from edgeopt.compress.reexport import export_again, match_nodes
from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_json
from edgeopt.core.sparsity import SparseWeight
from edgeopt.recipes.schema import Quantize, step_name

__all__ = ["finish"]

_UNWEIGHTED = ("add", "concat", "embedding", "pool")  # no layers that a reader counts


def finish(
    session: Session,
    converted: GraphModule,
    samples: int,
    *,
    events: Sequence[Event] = (),
    stats: Mapping[str, float | int | str] | None = None,
    trials: Sequence[TrialRow] = (),
) -> StepResult:
    """Export ``converted`` again and say what became of each layer.

    Args:
        session: What the quantization worked on.
        converted: As ``convert_pt2e`` returns it: Q/DQ nodes, int8 weights.
        samples: How many calibration samples were seen.
        events: What else a reader of the report must know.
        stats: Further figures for the report.
        trials: What each technique brought.
    """
    model, context, config, layers = session.model, session.context, session.config, session.layers
    converted.graph.eliminate_dead_code()
    quantized = lift(converted, session.program, model.inputs)
    if quantized is None:
        quantized = export_again(converted, session.program, model.inputs)
    names = match_nodes(converted, quantized)
    return StepResult(
        model=dataclasses.replace(
            model,
            program=quantized,
            sparse=_sparse(session, names),
            identity=hash_json(
                {
                    "model": model.identity,
                    "step": {step_name(config): config.model_dump(mode="json")},
                    "rules": session.rules.model_dump(mode="json"),
                    "data": {name: split.fingerprint for name, split in session.data.splits.items() if name != "test"},
                    "seed": context.seed,
                }
            ),
        ),
        decisions=tuple(
            LayerDecision(
                name=layer.name,
                op=layer.op,
                precision=layer.precision,
                reason=layer.reason + _sparse_words(session, layer),
                node=names.get(layer.node),
            )
            for layer in layers
        ),
        ranges={names[n.name]: n.meta[RANGE_KEY] for n in converted.graph.nodes if RANGE_KEY in n.meta},
        events=(*_events(session, converted, samples), *events),
        trials=tuple(trials),
        stats={
            **_stats(session.program, quantized, layers, samples, config),
            **_pairs(session, converted),
            **(stats or {}),
        },
    )


def _sparse(session: Session, names: Mapping[str, str]) -> dict[str, SparseWeight]:
    """The model's sparse weights, each with the nodes of the new program that read it."""
    return {
        name: dataclasses.replace(one, nodes=tuple(names[n] for n, source in session.sparse.items() if source == name))
        for name, one in session.model.sparse.items()
    }


def _sparse_words(session: Session, layer: Layer) -> str:
    source = session.sparse.get(layer.node)
    return "" if source is None else f"; weight {session.model.sparse[source].pattern} sparse"


def _events(session: Session, converted: GraphModule, samples: int) -> tuple[Event, ...]:
    config, left = session.config, dict[tuple[str, str], list[Layer]]()
    for layer in session.layers:
        if not layer.quantized and layer.op not in _UNWEIGHTED:
            left.setdefault((layer.op, layer.reason), []).append(layer)
    events = [
        Event(
            kind="note" if reason.startswith(("skipped", "smaller")) else "fallback",
            stage="quantize",
            message=f"{_list([x.name for x in same])} ({op}) in float: {reason}{_share(same, session)}.",
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
    if pairs := _pairs(session, converted):
        events.append(
            Event(
                kind="note",
                stage="quantize",
                message=f"{pairs['channels_repaired']} of {pairs['channels']} output channels could overflow where products"
                " are summed in 16 bits; each got a weight step just wide enough that they cannot.",
            )
        )
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


def _share(layers: Sequence[Layer], session: Session) -> str:
    """How much of the model's multiplications these layers do; nothing where it is not known."""
    counts = session.multiplications
    own = sum(counts.get(layer.node, 0) for layer in layers)
    return f" ({100 * own / sum(counts.values()):.1f} % of the model's multiplications)" if own else ""


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


def _pairs(session: Session, converted: GraphModule) -> dict[str, int]:
    """Output channels of the weighted layers in int8, and how many of them sums in 16 bits gave a wider step."""
    if session.rules.saturation == "none":
        return {}
    counts = [n.meta[CHANNELS_KEY] for n in converted.graph.nodes if CHANNELS_KEY in n.meta]
    return {"channels": sum(all_ for all_, _ in counts), "channels_repaired": sum(wider for _, wider in counts)}


def _mebibytes(program: ExportedProgram) -> float:
    tensors = [*program.state_dict.values(), *(c for c in program.constants.values() if isinstance(c, torch.Tensor))]
    unique = {(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}
    return float(sum(unique.values())) / 2**20
