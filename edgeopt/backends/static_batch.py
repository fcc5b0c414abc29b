"""An ONNX file with its batch fixed, for what takes static shapes only."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeopt.agent.runners.onnxruntime import import_onnxruntime
from edgeopt.backends.graphs import Graph, read_graph

__all__ = ["fix_batch"]


def fix_batch(graph: Graph, path: Path, batch: int, who: str) -> Graph:
    """Write ``path``, a copy of the graph's file, anew with its dynamic batch at ``batch``; what it computes is unchanged.

    Args:
        who: What needs it, for the error.

    Raises:
        BackendError: An input varies beyond its batch.
    """
    import onnx  # noqa: PLC0415

    graph.require_batch_only(who)
    import_onnxruntime()
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed  # noqa: PLC0415

    model = onnx.load(path, load_external_data=False)
    for spec in graph.inputs:
        if spec.has_dynamic_batch:
            make_input_shape_fixed(model.graph, spec.name, list(spec.with_batch(batch).shape))
    # Not onnxruntime's fix_output_shapes: it checks the model, which fails where the weights are in a file of their own.
    inferred = onnx.shape_inference.infer_shapes(model)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        shape = known.type.tensor_type.shape
        if all(dim.HasField("dim_value") for dim in shape.dim):
            output.type.tensor_type.shape.CopyFrom(shape)
    onnx.save(model, path)
    fixed = read_graph(path)
    return dataclasses.replace(graph, inputs=fixed.inputs, outputs=fixed.outputs)
