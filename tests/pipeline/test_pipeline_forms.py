"""A form that loses accuracy on its own runtime is given up for the next, and the report says so."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeopt.backends.base import Availability
from edgeopt.bundle.document import ParityRow
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline.engines import Built
from edgeopt.pipeline.forms import LOSS_DB, Attempt, choose_form, portable_db
from edgeopt.pipeline.plan import PlannedCandidate
from edgeopt.targets.schema import RuntimeRules

RULES = RuntimeRules(
    name="openvino", dialect="openvino", forms=("neutral", "tensorrt"), versions="", precisions=("int8",), opset_max=20
)
HERE = Availability(version="1", brings="", how_to_get="")


def made(form: str, level: float | None, failure: str = "") -> Attempt:
    planned = PlannedCandidate(
        id="openvino-int8", rules=RULES, precision="int8", role="candidate", availability=HERE, form=form
    )
    built = Built(
        planned=planned, graph=SimpleNamespace(path=Path("m.onnx")), engine=None, failure="", key="", events=[]
    )
    return Attempt(built=built, sqnr_db=level, failure=failure)


def choose(first, **others):
    tried = []

    def attempt(form):
        tried.append(form)
        return others[form]

    chosen, events = choose_form(first, RULES.forms, 40.0, attempt)
    return chosen, events, tried


@pytest.mark.parametrize("level", [40.0 - LOSS_DB, 60.0, math.inf, None])
def test_a_form_that_keeps_the_accuracy_is_the_only_one_made(level):
    chosen, events, tried = choose(made("", level))
    assert (chosen.built.planned.dialect, events, tried) == ("openvino", (), [])


def test_the_next_form_is_tried_where_one_loses_accuracy_and_the_events_say_so():
    chosen, events, tried = choose(made("", 12.0), neutral=made("neutral", 39.5))
    assert (chosen.built.planned.dialect, tried) == ("neutral", ["neutral"])
    assert [event.kind for event in events] == ["fallback", "note"]
    assert (
        "openvino it loses accuracy on its own runtime (12.0 dB, the portable graph has 40.0 dB)" in events[0].message
    )
    assert chosen.built.events == list(events)


def test_the_best_form_is_kept_where_all_lose():
    chosen, _, tried = choose(made("", 12.0), neutral=made("neutral", 20.0), tensorrt=made("tensorrt", 15.0))
    assert (chosen.built.planned.dialect, tried) == ("neutral", ["neutral", "tensorrt"])


def test_a_form_that_does_not_compile_is_the_worst():
    refused = made("", None, "the runtime refused it")
    chosen, events, _ = choose(refused, neutral=made("neutral", 38.0))
    assert chosen.built.planned.dialect == "neutral"
    assert "the runtime refused it" in events[0].message


def test_an_engine_that_only_the_device_can_run_is_not_judged():
    assert choose(made("", None))[2] == []


def test_the_portable_graphs_level_is_what_its_parity_row_says():
    def row(stage, figure):
        return ParityRow(stage=stage, against="PyTorch FP32", figures=(figure,), tolerance="", passed=True)

    level = Measurement(name="sqnr_db", value=41.0, unit="dB", n=8)
    assert portable_db([row("quantize (PyTorch)", level)]) is None
    assert portable_db([row("quantize (ONNX)", level)]) == 41.0
    assert portable_db([row("quantize (ONNX)", not_measured("sqnr_db", "dB", "identical"))]) == math.inf
