"""The costs of an ONNX graph's nodes add up to what the whole graph is known to cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeopt.graph.costs import node_costs
from edgeopt.graph.facts import graph_facts


@pytest.mark.parametrize("net", ["mlp", "pooled", "vit", "resnet"])
def test_nodes_add_up_to_the_graph(case, net):
    path = case(net).float_path
    costs = node_costs(path)
    assert sum(cost.macs or 0 for cost in costs) == graph_facts(path).macs
    assert sum(cost.parameters for cost in costs) == graph_facts(path).parameters


def test_each_node_has_its_name_its_shape_and_its_bytes(case):
    costs = {cost.op: cost for cost in reversed(node_costs(case("pooled").float_path))}
    conv = costs["Conv"]
    assert (conv.output_shape, conv.macs, conv.weight_bytes) == ((1, 8, 8, 8), 8 * 8 * 8 * 9, 8 * 10 * 4)
    assert conv.output_bytes == 8 * 8 * 8 * 4
    assert conv.name
    assert "Reshape" not in costs


def test_a_recurrent_layer_multiplies_at_every_step(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(6, 8, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    path = tmp_path / "gru.onnx"
    program = torch.onnx.export(Net().eval(), (torch.zeros(1, 5, 6),), dynamo=True)
    program.save(path)
    total = sum(cost.macs or 0 for cost in node_costs(path))
    assert total == 5 * 2 * 3 * 8 * (6 + 8)
