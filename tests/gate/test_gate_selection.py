from __future__ import annotations

import pytest

from edgeopt.core.errors import BackendError
from edgeopt.gate.selection import select
from edgeopt.recipes.schema import Limits

FREE = Limits()


@pytest.fixture
def fp32(make):
    return make("ort-fp32", latency_p50_ms=(2.0, 1.9, 2.1), size_mib=4.0, accuracy_top1_pct=97.0)


@pytest.fixture
def int8(make):
    return make(
        "ort-int8",
        latency_p50_ms=(1.0, 0.9, 1.1),
        latency_ratio=(0.5, 0.45, 0.55),
        size_mib=1.0,
        accuracy_top1_pct=96.5,
        drop_pp=(0.5, 0.2, 0.8),
    )


def test_the_fastest_is_shipped_by_default(fp32, int8):
    shipped, verdict, headline = select([fp32, int8], FREE, "latency")
    assert (shipped, verdict.status) == ("ort-int8", "PASS")
    assert headline == (
        (
            "Shipped: ort-int8, the fastest within the limits: "
            "2.00× faster than FP32 (p50 1.00 ms), drop 0.50 pp [0.20, 0.80], top-1 96.50 %, 1.00 MiB."
        ),
        "Not shipped, slower: ort-fp32 (p50 2.00 ms).",
    )


def test_a_slower_int8_is_said_first_and_fp32_is_shipped(make, fp32):
    slow = make("ort-int8", latency_p50_ms=(3.0, 2.9, 3.1), latency_ratio=(1.5, 1.4, 1.6), accuracy_top1_pct=97.0)
    shipped, verdict, headline = select([fp32, slow], FREE, "latency")
    assert (shipped, verdict.status) == ("ort-fp32", "PASS")
    assert headline[0] == (
        "int8 is slower than FP32 on board with onnxruntime: 1.50 times its median latency (1.40 to 1.60)."
    )
    assert headline[1] == "The FP32 reference is shipped, not the recipe's int8."


def test_a_speed_that_noise_could_explain_does_not_cost_accuracy(make, fp32):
    same = make(
        "ort-int8", latency_p50_ms=(1.95, 1.8, 2.1), latency_ratio=(0.98, 0.9, 1.05), size_mib=1.0, accuracy_top1_pct=96
    )
    shipped, _, headline = select([fp32, same], FREE, "latency")
    assert shipped == "ort-fp32"
    assert "is not measurably faster than FP32" in headline[0]
    assert "within the noise or equal" in headline[-1]


def test_between_equally_fast_and_accurate_candidates_the_smaller_is_shipped(make):
    big = make("a-int8", latency_p50_ms=(1.0, 0.9, 1.1), size_mib=2.0, accuracy_top1_pct=97.0)
    small = make("b-int8", latency_p50_ms=(1.0, 0.9, 1.1), size_mib=1.0, accuracy_top1_pct=97.0)
    assert select([big, small], FREE, "latency")[0] == "b-int8"


def test_a_candidate_that_misses_a_limit_is_not_shipped_however_fast(fp32, int8):
    shipped, verdict, headline = select([fp32, int8], Limits(drop_pp=0.1), "latency")
    assert (shipped, verdict.status) == ("ort-fp32", "PASS")
    assert headline[0] == "The FP32 reference is shipped, not the recipe's int8."
    assert headline[-1] == "Not shipped: ort-int8: drop_pp: 0.5 pp (95 %: 0.2 to 0.8), at most 0.1 pp: missed."


def test_an_inconclusive_candidate_may_be_shipped_with_its_verdict(fp32, int8):
    shipped, verdict, _ = select([fp32, int8], Limits(drop_pp=0.5), "latency")
    assert (shipped, verdict.status) == ("ort-int8", "INCONCLUSIVE")


def test_where_all_miss_the_one_that_misses_least_is_shipped_with_its_fail(fp32, int8):
    shipped, verdict, headline = select([fp32, int8], Limits(size_mib=0.5, drop_pp=0.1), "size")
    assert (shipped, verdict.status) == ("ort-fp32", "FAIL")
    assert any(line.startswith("No candidate holds the limits. Shipped: ort-fp32") for line in headline)


def test_the_smallest_is_shipped_and_a_tie_goes_to_the_faster(make, int8):
    other = make("ov-int8", latency_p50_ms=0.5, size_mib=1.005)
    larger = make("c-int8", latency_p50_ms=0.1, size_mib=1.1)
    assert select([int8, other, larger], FREE, "size")[0] == "ov-int8"


def test_the_most_accurate_is_shipped_and_only_equality_is_a_tie(make, fp32, int8):
    assert select([fp32, int8], FREE, "accuracy")[0] == "ort-fp32"
    equal = make("ov-int8", latency_p50_ms=0.7, accuracy_top1_pct=97.0)
    assert select([fp32, int8, equal], FREE, "accuracy")[0] == "ov-int8"


def test_without_labels_agreement_stands_for_accuracy(make):
    reference = make("fp32", latency_p50_ms=2.0)
    one = make("a-int8", latency_p50_ms=1.0, agreement_pct=97.0)
    assert select([one, reference], FREE, "accuracy")[0] == "fp32"
    assert select([one, make("b-int8", latency_p50_ms=3.0, agreement_pct=99.0)], FREE, "accuracy")[0] == "b-int8"


def test_where_nothing_can_be_measured_the_recipes_is_shipped_and_it_is_said(make):
    reference = make("trt-fp32", status="not_built", reason="Only a Jetson can build it")
    wanted = make(
        "trt-int8", status="not_built", reason="Only a Jetson can build it", next_command="python build_engine.py"
    )
    shipped, verdict, headline = select([reference, wanted], FREE, "latency")
    assert (shipped, verdict.status) == ("trt-int8", "PASS")
    # The command is in the candidate, and the reference's reason is that of what is shipped: neither is said again.
    assert headline == (
        "Not measured on the target: Only a Jetson can build it.",
        "Shipped: trt-int8, as the recipe asks.",
    )


def test_accuracy_measured_on_the_host_does_not_make_a_latency(make):
    wanted = make("rpi-int8", accuracy_top1_pct=96.0, latency_p50_ms="this host is no Raspberry Pi")
    reference = make("rpi-fp32", accuracy_top1_pct=97.0, latency_p50_ms="this host is no Raspberry Pi")
    shipped, _, headline = select([reference, wanted], FREE, "latency")
    assert shipped == "rpi-int8"
    assert headline[0] == "Not measured on the target."


def test_a_limit_missed_on_the_host_still_keeps_an_unmeasured_candidate_back(make):
    wanted = make("rpi-int8", drop_pp=(5.0, 4.0, 6.0), latency_p50_ms="no Pi")
    reference = make("rpi-fp32", latency_p50_ms="no Pi")
    shipped, _, headline = select([wanted, reference], Limits(drop_pp=1.0), "latency")
    assert shipped == "rpi-fp32"
    assert headline[0] == "The FP32 reference is shipped, not the recipe's int8."


def test_without_a_float_candidate_the_reference_alone_is_shipped(make):
    shipped, _, headline = select([make("fp32", status="not_measured")], FREE, "latency")
    assert shipped == "fp32"
    assert "Shipped: fp32, as the recipe asks." in headline


def test_a_measured_candidate_is_preferred_to_an_unmeasured_one(make, int8):
    absent = make("ov-int8", status="not_measured", reason="openvino is not installed")
    shipped, _, headline = select([absent, int8], FREE, "latency")
    assert shipped == "ort-int8"
    assert headline[-1] == "Not shipped: ov-int8: not measured: openvino is not installed."


def test_those_left_out_for_one_reason_are_one_line_the_nearest_first(make, int8):
    slower = [
        make(f"{n}-int8", latency_p50_ms=(v, v - 0.1, v + 0.1), size_mib=1.0) for n, v in (("a", 4.0), ("b", 3.0))
    ]
    absent = [make(f"{n}-int8", status="not_measured", reason="it is not installed") for n in ("c", "d")]
    _, _, headline = select([*slower, *absent, int8], FREE, "latency")
    assert headline[1:] == (
        "Not shipped, slower: b-int8 (p50 3.00 ms), a-int8 (p50 4.00 ms).",
        "Not shipped: c-int8, d-int8: not measured: it is not installed.",
    )


def test_a_speed_within_the_noise_is_called_as_fast(make, fp32):
    same = make(
        "ort-int8", latency_p50_ms=(1.95, 1.8, 2.1), latency_ratio=(0.98, 0.9, 1.05), size_mib=1.0, accuracy_top1_pct=98
    )
    _, _, headline = select([fp32, same], FREE, "latency")
    assert "Shipped: ort-int8, the fastest within the limits: as fast as FP32 (p50 1.95 ms)" in headline[1]


def test_a_failed_candidate_is_never_shipped(make, int8):
    failed = make("ov-int8", status="failed", reason="int8 is not supported on this CPU.")
    shipped, _, headline = select([failed, int8], FREE, "latency")
    assert shipped == "ort-int8"
    assert headline[-1] == "Not shipped: ov-int8: failed: int8 is not supported on this CPU."


def test_a_stage_on_the_way_is_never_shipped_nor_named_however_fast(make, fp32, int8):
    stage = make("ort-fp32-pruned", role="stage", stage="pruned", latency_p50_ms=(0.1, 0.1, 0.1), latency_ratio=0.05)
    shipped, _, headline = select([fp32, stage, int8], FREE, "latency")
    assert shipped == "ort-int8"
    assert "pruned" not in " ".join(headline)


def test_a_recipe_that_ends_in_a_float_model_is_named_by_it(make, fp32):
    figures = {"latency_p50_ms": (3.0, 2.9, 3.1), "latency_ratio": (1.5, 1.4, 1.6)}
    slow = make("ort-fp32-finetuned", role="candidate", stage="finetuned", **figures)
    shipped, _, headline = select([fp32, slow], FREE, "latency")
    assert shipped == "ort-fp32"
    assert headline[0].startswith("fp32 finetuned is slower than FP32 on board")
    assert headline[1] == "The FP32 reference is shipped, not the recipe's fp32 finetuned."


def test_nothing_to_ship_is_one_clear_error(make):
    failed = make("ov-int8", status="failed", reason="no such op")
    with pytest.raises(BackendError, match=r"No candidate could be built and run.*ov-int8: no such op"):
        select([failed], FREE, "latency")
    with pytest.raises(BackendError, match="there are none"):
        select([], FREE, "latency")
