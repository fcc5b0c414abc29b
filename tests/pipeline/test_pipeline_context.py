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
