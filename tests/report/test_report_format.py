"""Figures as text: units shown, digits sensible, absence said."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.bundle.document import LimitRow
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.report.format import (
    bytes_text,
    conditions_text,
    figure,
    interval_text,
    label,
    limit_text,
    plain,
    value_text,
)
from edgeopt.report.svg import Scale, element, place_labels, ticks


def measured(value: float, unit: str, name: str = "x", **more) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, **more)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.45173, "ms", "0.452 ms"),
        (12.345, "ms", "12.3 ms"),
        (1234.5, "ms", "1,234 ms"),
        (0.000012345, "ms", "1.23e-05 ms"),
        (0.0, "ms", "0 ms"),
        (98.4444, "%", "98.44 %"),
        (-0.125, "pp", "−0.12 pp"),
        (-0.001, "pp", "0.00 pp"),
        (31.449, "dB", "31.4 dB"),
        (2205.4, "1/s", "2,205 /s"),
        (0.5361, "1", "0.536"),
    ],
)
def test_a_figure_has_its_unit_and_three_digits_or_more(value, unit, text):
    assert figure(measured(value, unit)) == text


def test_a_ratio_of_latencies_is_a_factor():
    assert figure(measured(0.5361, "1", "latency_ratio")) == "0.536×"


def test_a_cosine_keeps_the_digits_that_matter():
    assert figure(measured(0.9999123, "1", "cosine")) == "0.9999123"


def test_an_interval_has_the_decimals_of_its_figure():
    m = measured(0.2777, "pp", interval=Interval(low=-0.28, high=0.8333, method="bootstrap"))
    assert figure(m) == "0.28 pp [−0.28, 0.83]"
    assert figure(m, interval=False) == "0.28 pp"
    assert interval_text(measured(1.0, "ms")) == ""


def test_what_was_not_measured_says_so_and_why():
    assert figure(not_measured("x", "ms", "no device")) == "not measured: no device"
    assert value_text(not_measured("x", "ms", "no device")) == "not measured"
    assert figure(None) == "not measured"


@given(value=st.floats(min_value=1e-4, max_value=1e9), unit=st.sampled_from(["ms", "MiB", "1", "1/s"]))
def test_the_text_is_within_half_of_the_third_digit(value, unit):
    shown = float(value_text(measured(value, unit)).replace(",", ""))
    assert abs(shown - value) <= 0.5 * 10 ** (math.floor(math.log10(value)) - 2) + 1e-12 or abs(shown - value) <= 0.5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("latency_p50_ms", "latency p50"),
        ("accuracy_top1_pct", "accuracy"),
        ("my_metric_db", "my metric"),
        ("throughput_per_s", "throughput"),
        ("wall_s", "wall"),
    ],
)
def test_names_are_written_for_people(name, text):
    assert label(name) == text


@pytest.mark.parametrize(
    ("name", "unit", "limit", "text"),
    [
        ("drop_pp", "pp", 0.5, "drop ≤ 0.5 pp"),
        ("latency_ratio", "1", 1.0, "ratio to FP32 ≤ 1"),
        ("agreement", "%", 0.99, "agreement ≥ 0.99"),
        ("size_mib", "MiB", 4, "size ≤ 4 MiB"),
    ],
)
def test_a_limit_says_which_side_it_allows(name, unit, limit, text):
    row = LimitRow(name=name, limit=limit, figure=measured(1.0, unit, name), status="PASS", message="")
    assert limit_text(row) == text


def test_conditions_are_listed_in_their_order():
    m = measured(1.0, "ms", conditions={"batch": 1, "threads": 2, "how": "x"})
    assert conditions_text(m) == "batch 1, threads 2, how x"
    assert conditions_text(m, ("threads", "absent")) == "threads 2"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (5_000_000, "4.77 MiB"), (2**41, "2,048 GiB")]
)
def test_sizes_are_in_binary_units(count, text):
    assert bytes_text(count) == text


def test_control_characters_are_shown_and_not_obeyed():
    assert plain("a\x1b[31mb\nc\u202ed") == "a\\u001b[31mb c\\u202ed"


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), about=st.integers(4, 10))
def test_ticks_are_inside_even_and_not_many(low, span, about):
    values, _ = ticks(low, low + span, about)
    assert 1 <= len(values) <= about + 1
    assert all(low - 1e-6 * span - 1e-6 <= v <= low + span + 1e-6 * span + 1e-6 for v in values)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)


def test_a_scale_clips_to_its_ends():
    scale = Scale(0, 10, 100, 200)
    assert [scale(v) for v in (-5, 0, 5, 10, 50)] == [100, 100, 150, 200, 200]


def test_svg_text_and_attributes_are_escaped():
    assert element("text", "<b>", class_='"><script>') == '<text class="&#34;&gt;&lt;script&gt;">&lt;b&gt;</text>'


def test_labels_of_points_that_touch_do_not_cover_each_other():
    points = [(100.0, 100.0, "onnxruntime-int8"), (104.0, 101.0, "openvino-int8"), (102.0, 99.0, "ort-mobile-int8")]
    placed = place_labels(points, [], left=0, right=560)
    boxes = []
    for (x, y, anchor), (_, _, name) in zip(placed, points, strict=True):
        x0 = x if anchor == "start" else x - 7.2 * len(name)
        boxes.append((x0, y - 12, x0 + 7.2 * len(name), y + 3))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_share_of_int8_multiplications_is_a_smallest_one():
    figure = Measurement(name="int8_macs_pct", value=97.0, unit="%")
    row = LimitRow(name="int8_macs_pct", limit=95.0, figure=figure, status="PASS", message="Holds.")
    assert limit_text(row) == "MACs in int8 ≥ 95 %"
