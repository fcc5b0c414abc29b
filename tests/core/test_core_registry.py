"""Registries: names import on use, plug-ins stand beside, clashes and typing errors are said."""

import collections
from importlib.metadata import EntryPoint

import pytest

from edgeopt.core import registry as module
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.registry import Registry


@pytest.fixture
def outside(monkeypatch):
    """Entry points that other packages would bring; a test appends to the list."""
    points = []
    monkeypatch.setattr(module, "entry_points", lambda group: [p for p in points if p.group == group])
    return points


def make():
    return Registry("tool", {"counter": "collections:Counter", "broken": "no_such_module:x"}, "edgeopt.tools")


def test_a_name_is_imported_on_use(outside):
    registry = make()
    assert registry["counter"] is collections.Counter
    assert list(registry) == ["counter", "broken"]
    assert len(registry) == 2
    assert "broken" in registry
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry["broken"]


def test_an_unknown_name_lists_the_known_ones_nearest_first(outside):
    with pytest.raises(EdgeOptError, match=r"no tool of that name\. Received: 'conter'\. Known: counter, broken"):
        make()["conter"]


def test_a_plug_in_stands_beside_the_built_in(outside):
    outside.append(EntryPoint(name="deque", value="collections:deque", group="edgeopt.tools"))
    outside.append(EntryPoint(name="other", value="collections:deque", group="edgeopt.others"))
    registry = make()
    assert registry["deque"] is collections.deque
    assert set(registry) == {"counter", "broken", "deque"}


def test_a_plug_in_that_takes_a_built_in_name_is_refused(outside):
    outside.append(EntryPoint(name="counter", value="evil:Counter", group="edgeopt.tools"))
    with pytest.raises(EdgeOptError, match="'counter' from evil:Counter and from collections:Counter"):
        make()["counter"]


def test_two_plug_ins_of_one_name_are_refused(outside):
    outside.append(EntryPoint(name="mine", value="one:A", group="edgeopt.tools"))
    outside.append(EntryPoint(name="mine", value="two:B", group="edgeopt.tools"))
    with pytest.raises(EdgeOptError, match="'mine' from two:B and from one:A"):
        make()["mine"]


def test_the_same_plug_in_seen_twice_is_one(outside):
    outside += [EntryPoint(name="deque", value="collections:deque", group="edgeopt.tools")] * 2
    assert make()["deque"] is collections.deque
