"""Which faster forms are timed at all: those that stay about as close to FP32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgeopt.pipeline.forms import Attempt
from edgeopt.pipeline.trials import _are_one_file, _loss_told, _why_not_timed


def attempt(sqnr_db, *, failure="", share=100.0, dialect="ort-x86"):
    coverage = SimpleNamespace(int8_macs_pct=share)
    planned = SimpleNamespace(id="onnxruntime-int8", dialect=dialect)
    built = SimpleNamespace(engine=SimpleNamespace(coverage=coverage), planned=planned)
    return Attempt(built=built, sqnr_db=sqnr_db, failure=failure)


def bench(int8_macs=None):
    return SimpleNamespace(plan=SimpleNamespace(recipe=SimpleNamespace(limits=SimpleNamespace(int8_macs=int8_macs))))


@pytest.mark.parametrize(
    ("first", "other", "why"),
    [
        (30.0, 29.6, ""),
        (30.0, 29.4, "it is 0.6 dB further from FP32"),
        (45.0, 44.0, ""),
        (42.0, 40.0, ""),
        (41.4, 39.9, ""),
        (41.6, 39.9, "it is 1.7 dB further from FP32"),
        (51.0, 45.0, ""),
        (50.9, 44.9, "it is 6.0 dB further from FP32"),
        (36.5, 35.0, ""),
        (36.5, 34.9, "it is 1.6 dB further from FP32"),
        (60.0, 45.0, "it is 15.0 dB further from FP32"),
        (30.0, 35.0, ""),
        (None, 20.0, ""),
    ],
)
def test_a_form_may_lose_little_and_more_only_where_it_stays_close(first, other, why):
    assert _why_not_timed(bench(), attempt(first), attempt(other)) == why


def test_a_form_that_fails_or_leaves_int8_is_not_timed():
    assert _why_not_timed(bench(), attempt(30.0), attempt(30.0, failure="it crashed")) == "it crashed"
    assert _why_not_timed(bench(0.9), attempt(30.0), attempt(30.0, share=80.0)).startswith("80.0 % of its")


def test_what_a_taken_form_costs_is_told_where_it_is_much():
    assert list(_loss_told(attempt(45.0), attempt(44.8))) == []
    (event,) = _loss_told(attempt(45.0), attempt(44.0, dialect="ort-x86-one-scale"))
    assert event.message == "In the form ort-x86-one-scale the outputs have 44.0 dB against FP32 instead of 45.0."


def test_a_form_that_changes_nothing_is_known_by_its_file(tmp_path):
    engines = []
    for name, content in (("a", b"graph"), ("b", b"graph"), ("c", b"other")):
        path = tmp_path / name
        path.write_bytes(content)
        engines.append(SimpleNamespace(path=path))
    assert _are_one_file(*engines[:2])
    assert not _are_one_file(*engines[1:])
