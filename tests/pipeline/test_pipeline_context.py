"""Stages are recorded and told of as wholes, whatever happens inside them."""

from edgeopt.core.events import Progress
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext


def test_work_inside_a_stage_is_told_as_a_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path))
    told = []
    cache = StageCache()
    context = RunContext(cache=cache, host="here", listener=told.append)

    def build(folder):
        context.progress(Progress(stage="calibrate", done=2, total=2))

    context.stage("quantize", "quantize to int8", {"model": "a"}, build)
    context.progress(Progress(stage="data", done=1, total=2))
    cache.close()
    assert told == [
        Progress(stage="quantize to int8", done=0, total=None),
        Progress(stage="quantize to int8", part="calibrate", done=2, total=2),
        Progress(stage="quantize to int8", done=1, total=1),
        Progress(stage="data", done=1, total=2),
    ]
    assert [(stage.name, stage.cached) for stage in context.stages] == [("quantize to int8", False)]


def test_what_is_recorded_within_a_stage_is_counted_once(tmp_path):
    context = RunContext(cache=StageCache(tmp_path / "cache"), host="here")

    def inner(_):
        context.record("a part", 2.0)

    def outer(_):
        context.stage("inner", "inside", {}, inner)
        context.record("another part", 3.0)

    context.stage("outer", "outside", {}, outer)
    context.stage("later", "later", {}, lambda _: None)
    seconds = {row.name: row.wall.value for row in context.stages}
    assert (seconds["a part"], seconds["another part"]) == (2.0, 3.0)
    for name, told in (("inside", 2.0), ("outside", 3.0), ("later", 0.0)):  # no real time went by in any
        assert -told <= seconds[name] < 1.0 - told, name
    assert sum(seconds.values()) < 1.0
