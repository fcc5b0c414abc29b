"""A quantized graph is a program again without being traced: the one that tracing gives, or none."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from compress_nets import NETS, dataset, make_config, make_context, samples
from torch import nn

from edgeopt.compress import finish
from edgeopt.compress.lift import lift
from edgeopt.compress.reexport import export_again, match_nodes
from edgeopt.compress.registry import STEPS
from edgeopt.core.spec import TensorSpec


@pytest.fixture(scope="module")
def lifted(nets):
    """Of each net what was lifted, and what tracing made of the same graph."""
    made = {}

    def both(name):
        if name not in made:
            model, shape = nets[name]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(finish, "lift", lambda *given: given[0] if made.setdefault(name, given) else None)
                patch.setattr(finish, "match_nodes", _stop)
                with pytest.raises(_Stopped):
                    STEPS["quantize"].run(model, make_config(), make_context(dataset(samples(32, shape))))
            graph, original, inputs = made[name]
            made[name] = lift(graph, original, inputs), export_again(copy.deepcopy(graph), original, inputs), graph
        return made[name]

    return both


class _Stopped(Exception):
    pass


def _stop(*_):
    raise _Stopped


def facts(program):
    """What each call computes, on what shapes: sizes that are computed are written in the order of their use."""
    calls = [n for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    return [(str(n.target), value(n)) for n in calls if isinstance(n.meta["val"], torch.Tensor)]


def value(node):
    return node.meta["val"].dtype, [size if isinstance(size, int) else "open" for size in node.meta["val"].shape]


@pytest.mark.parametrize("name", NETS)
def test_it_is_the_program_that_tracing_gives(nets, lifted, name):
    mine, traced, graph = lifted(name)
    assert facts(mine) == facts(traced)
    assert match_nodes(graph, mine).keys() == match_nodes(graph, traced).keys()
    one, other = mine.graph_signature, traced.graph_signature
    assert (one.user_inputs, len(one.user_outputs)) == (other.user_inputs, len(other.user_outputs))
    assert mine.state_dict.keys() | mine.constants.keys() == traced.state_dict.keys() | traced.constants.keys()
    x = torch.from_numpy(samples(5, nets[name][1], seed=3))
    torch.testing.assert_close(mine.module()(x), traced.module()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_it_can_be_saved_and_decomposed_like_any_program(nets, lifted, name):
    mine, _, _ = lifted(name)
    x = torch.from_numpy(samples(3, nets[name][1]))
    expected = mine.module()(x)
    file = io.BytesIO()
    torch.export.save(mine, file)
    file.seek(0)
    for again in (torch.export.load(file), mine.run_decompositions({})):
        torch.testing.assert_close(again.module()(x), expected)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.weight


class Counting(Scale):
    def forward(self, x):
        self.count.add_(1)
        return x * self.weight


BATCH = torch.export.Dim("batch")


def exported(net):
    return torch.export.export(net, (torch.ones(2, 3),), dynamic_shapes=({0: BATCH},))


@pytest.mark.parametrize(
    ("net", "shape", "is_told"),
    [(Scale(), ("batch", 3), True), (Scale(), (4, 3), False), (Counting(), ("batch", 3), False)],
    ids=["plain", "a fixed batch", "a buffer that changes"],
)
def test_what_only_tracing_can_tell_is_left_to_it(net, shape, is_told):
    program = exported(net)
    made = lift(program.module(check_guards=False), program, [TensorSpec(name="x", dtype="float32", shape=shape)])
    assert (made is not None) is is_told


def test_names_that_differ_in_a_dot_stay_two():
    net = nn.Sequential(nn.Linear(3, 3, bias=False))
    net.register_parameter("0_weight", nn.Parameter(torch.full((3,), 2.0)))
    net.forward = lambda x: net[0](x) * net.get_parameter("0_weight")
    program = exported(net)
    made = lift(
        program.module(check_guards=False), program, [TensorSpec(name="x", dtype="float32", shape=("batch", 3))]
    )
    torch.testing.assert_close(made.module()(torch.ones(1, 3)), net(torch.ones(1, 3)))
    assert made.state_dict.keys() == {"0.weight", "0_weight"}
