"""Remove what the exporter wrote for its own developers: stack traces with paths, doc strings, module scopes.

Equal models must be equal files, whoever exported them and where.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["Strip"]

_OURS = "edgeopt."


class Strip(ir.passes.InPlacePass):
    """Keep ``edgeopt.*`` metadata, drop all other metadata, doc strings and the producer's version."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Strip the model, its graphs, nodes and values."""
        model.producer_name, model.producer_version = "edgeopt", None
        model.doc_string, model.domain = None, None
        model.graph.name = "edgeopt"
        _strip_metadata(model)
        for graph in model.graphs():
            graph.doc_string = None
            _strip_metadata(graph)
            for value in (*graph.inputs, *graph.initializers.values()):
                _strip_value(value)
            for node in graph:
                node.doc_string = None
                _strip_metadata(node)
                for value in node.outputs:
                    _strip_value(value)
        return ir.passes.PassResult(model, modified=True)


def _strip_value(value: ir.Value) -> None:
    value.doc_string = None
    _strip_metadata(value)
    if value.const_value is not None:
        value.const_value.doc_string = None
        value.const_value.metadata_props.clear()


def _strip_metadata(thing: ir.Model | ir.Graph | ir.Node | ir.Value) -> None:
    for key in [key for key in thing.metadata_props if not key.startswith(_OURS)]:
        del thing.metadata_props[key]
