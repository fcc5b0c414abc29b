"""What may be evaluated: everything that torch writes, and nothing else."""

from __future__ import annotations

import math

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.model.expressions import guard_complaint, size_complaint
from edgeopt.model.rebatch import _place

SYMBOLS = st.sampled_from([sympy.Symbol(f"s{i}", positive=True, integer=True) for i in (0, 7, 77)])
SIZES = st.recursive(
    SYMBOLS | st.integers(-1000, 1000).map(sympy.Integer),
    lambda inner: st.tuples(st.sampled_from([sympy.Add, sympy.Mul, sympy.Max, sympy.Min]), inner, inner).map(
        lambda parts: parts[0](parts[1], parts[2])
    ),
    max_leaves=6,
)


@given(SIZES)
def test_what_torch_writes_for_a_size_is_accepted(size):
    assert size_complaint(sympy.srepr(size)) is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('__import__(chr(1))')",
        "Symbol('s0', integer=__import__('os'))",
        "Add('__import__(1)', 1)",
        "[1 for _ in ()]",
        "(lambda: 1)()",
        "s0.__class__",
        "exec",
        "f'{s0}'",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "LShift(Integer(1), Integer(10**9))",
        "9**9**9",
        "1" * 30_000,
        "s0;s1",
        "s0\nimport os",
        "",
        None,
        7,
    ],
)
def test_what_is_no_size_is_refused(text):
    assert size_complaint(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "L['x'].__class__",
        "exec('1')",
        "[c for c in L]",
        "(lambda: L)()",
        "L['x\\\"); exec(1); (\\\"'].size()[0] == 1",
        "f'{L}'",
        "L[",
        None,
    ],
)
def test_what_is_no_guard_is_refused(text):
    assert guard_complaint(text)


@given(
    outer=st.lists(st.integers(2, 5), max_size=2),
    inner=st.lists(st.integers(2, 5), max_size=2),
    batch=st.sampled_from([7, 11, 13]),
)
def test_a_batch_is_found_again_wherever_its_neighbours_went(outer, inner, batch):
    """An oracle by memory: a batch of its own, or merged with either neighbour, is one axis of the new shape."""
    blocks = math.prod(outer)
    assert _place([*outer, batch, *inner], blocks, batch) == len(outer)
    if outer:
        assert _place([*outer[:-1], outer[-1] * batch, *inner], blocks, batch) == len(outer) - 1
    if inner:
        assert _place([*outer, batch * inner[0], *inner[1:]], blocks, batch) == len(outer)
