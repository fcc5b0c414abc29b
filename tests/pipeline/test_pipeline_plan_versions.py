"""A runtime of another version than the target asks for is left out, and said so, before any work."""

import dataclasses

import pytest

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.pipeline.plan import make_plan
from edgeopt.recipes.load import load_recipe
from edgeopt.targets.load import find_target


def plan(target):
    return make_plan(
        target=target,
        recipe=load_recipe("fp32"),
        recipe_reason="",
        measured_here=False,
        measured_reason="",
    )


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a backend has a version."""

    def pretend(name, version):
        kind = type(BACKENDS[name])
        real = BACKENDS[name].available()
        monkeypatch.setattr(kind, "available", lambda self: dataclasses.replace(real, version=version))

    return pretend


def test_an_older_runtime_is_left_out_with_what_to_install(installed):
    installed("onnxruntime", "1.20.1")
    found = plan(find_target("local"))
    assert all(one.rules.name != "onnxruntime" for one in found.candidates)
    (line,) = [line for line in found.left_out if line.startswith("onnxruntime")]
    assert "onnxruntime 1.20.1 is installed here, and local asks for >=1.23,<2; pip install" in line


def test_where_none_is_left_it_is_an_error(installed):
    installed("onnxruntime", "1.20.1")
    target = find_target("x86-vnni")
    only = target.model_copy(update={"runtimes": tuple(r for r in target.runtimes if r.name == "onnxruntime")})
    with pytest.raises(BackendError, match=r"No runtime of target 'x86-vnni' can be used here.*1\.20\.1 is installed"):
        plan(only)


@pytest.mark.parametrize("version", ["1.99.0", "1.30.0+local", "no number"])
def test_a_version_within_or_without_a_number_stays(installed, version):
    installed("onnxruntime", version)
    assert plan(find_target("x86-vnni")).candidates[0].rules.name == "onnxruntime"


def test_a_device_that_builds_for_itself_is_not_asked_here(installed):
    installed("tensorrt", "1.7.1")
    assert plan(find_target("jetson@jetpack-6.2")).candidates
