"""The memory of a graph is that of a naive simulation that runs it and looks at who needs what, step by step."""

from __future__ import annotations

import operator

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, GraphModule, Interpreter
from torch.utils import _pytree as pytree

from edgeopt.compress.liveness import find_buffers, memory_of
from edgeopt.compress.walk import walk

A = torch.ops.aten
SHAPE = (4, 6)
ONE = {
    "relu": lambda g, x: g.call_function(A.relu.default, (x,)),
    "relu_": lambda g, x: g.call_function(A.relu_.default, (x,)),
    "twice": lambda g, x: g.call_function(A.t.default, (g.call_function(A.t.default, (x,)),)),
    "copied": lambda g, x: g.call_function(A.reshape.default, (g.call_function(A.t.default, (x,)), list(SHAPE))),
    "viewed": lambda g, x: g.call_function(A.view.default, (x, list(SHAPE))),
    "contiguous": lambda g, x: g.call_function(A.contiguous.default, (x,)),
    "dropout": lambda g, x: g.call_function(A.dropout.default, (x, 0.5, False)),
    "half": lambda g, x: g.call_function(
        operator.getitem,
        (g.call_function(A.split.Tensor, (g.call_function(A.cat.default, ([x, x],)), SHAPE[0])), 1),
    ),
    "most": lambda g, x: g.call_function(
        operator.getitem, (g.call_function(A.max.dim, (g.call_function(A.stack.default, ([x, x],)), 0)), 0)
    ),
}
TWO = {
    "add": lambda g, x, y: g.call_function(A.add.Tensor, (x, y)),
    "add_": lambda g, x, y: g.call_function(A.add_.Tensor, (x, y)),
    "weigh": lambda g, x, y: g.call_function(A.mul.Tensor, (x, g.get_attr("weight"))),
}


@st.composite
def graphs(draw):
    graph = Graph()
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.ones(SHAPE), requires_grad=False)
    values = [graph.placeholder("x"), graph.placeholder("y")]
    for node in values:
        node.meta["val"] = torch.zeros(SHAPE)
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from([*ONE, *TWO]))
        chosen = [draw(st.sampled_from(values)) for _ in range(2)]
        values.append(ONE[kind](graph, chosen[0]) if kind in ONE else TWO[kind](graph, *chosen))
    graph.output(tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))))
    return GraphModule(module, graph)


class Recorder(Interpreter):
    def __init__(self, module):
        super().__init__(module)
        self.storages = {}
        self.kept = []

    def run_node(self, n):
        value = super().run_node(n)
        tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        self.kept += tensors
        self.storages[n] = {(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors}
        return value


def naive(module):
    """Run it; then ask of every step and every storage, one by one, whether it is there and anybody still needs it."""
    recorder = Recorder(module)
    recorder.run(torch.rand(SHAPE), torch.rand(SHAPE), enable_io_processing=False)
    nodes = list(module.graph.nodes)
    weights = set().union(*(recorder.storages[node] for node in nodes if node.op == "get_attr"), set())
    live = []
    for step in range(len(nodes)):
        held = 0
        for storage in set().union(*recorder.storages.values()) - weights:
            holders = [node for node in nodes if node.op != "output" and storage in recorder.storages[node]]
            made = min(map(nodes.index, holders)) <= step
            # a step needs what it makes itself and what it reads
            needed = any(nodes.index(other) >= step for node in holders for other in [node, *node.users])
            held += storage[1] if made and needed else 0
        live.append(held)
    return live


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_what_is_live_is_what_a_naive_simulation_finds(module):
    values = walk(module, [SHAPE, SHAPE])
    memory = memory_of(find_buffers(module.graph, values), len(module.graph.nodes))
    expected = naive(module)
    assert list(memory.live) == expected
    assert memory.peak == max(expected)
    assert memory.at == expected.index(max(expected))
    assert sum(buffer.size for buffer in memory.buffers) == memory.peak


def test_views_and_in_place_ops_make_no_memory_and_weights_are_none():
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(SHAPE)
    weighed = graph.call_function(A.mul.Tensor, (x, graph.get_attr("weight")))
    graph.output(graph.call_function(A.view.default, (graph.call_function(A.relu_.default, (weighed,)), [24])))
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.ones(SHAPE))
    made = find_buffers(graph, walk(GraphModule(module, graph), [SHAPE]))
    assert [(buffer.node, buffer.size) for buffer in made] == [("x", 96), ("mul_tensor", 96)]
    assert memory_of(made, len(graph.nodes)).live == (96, 96, 192, 96, 96, 96)


def test_nothing_needs_nothing():
    assert memory_of((), 0).peak == 0
