"""What stands beside two figures of one name."""

from __future__ import annotations

import pytest

from edgeopt.pipeline.diff import _plain_change


@pytest.mark.parametrize(
    ("key", "unit", "name", "value", "told"),
    [
        ("agreement_pct", "%", "change_agreement_pct", -2.0, "pp"),
        ("drop_pp", "pp", "change_drop_pp", -2.0, "pp"),
        ("output_sqnr_db", "dB", "change_output_sqnr_db", -2.0, "dB"),
        ("log_loss_nats", "nats", "change_log_loss_nats", -2.0, "nats"),
        ("drop_mae", "1", "change_drop_mae", -2.0, "1"),
        ("latency_p90_ms", "ms", "latency_p90_ms_ratio", 0.5, "1"),
        ("size_mib", "MiB", "size_mib_ratio", 0.5, "1"),
    ],
)
def test_a_difference_is_told_where_zero_is_no_natural_end_and_a_ratio_elsewhere(key, unit, name, value, told):
    change = _plain_change(key, 4.0, 2.0, unit)
    assert (change.name, change.value, change.unit) == (name, value, told)
