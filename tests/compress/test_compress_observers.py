"""What the observers write into the graph, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.compress.observers import ActivationObserver, NonFiniteError, WeightObserver, quantize_weight
from edgeopt.compress.ranges import SCALE_FLOOR

Q = torch.ops.quantized_decomposed
WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-100, 100, width=32)
)


@settings(deadline=None)
@given(WEIGHTS, st.sampled_from([63, 127]), st.booleans())
def test_a_weight_moves_by_half_a_step_at_most_and_stays_in_its_symmetric_range(weight, limit, per_channel):
    stored, scale = quantize_weight(torch.from_numpy(weight), torch.tensor(SCALE_FLOOR), limit, per_channel=per_channel)
    values, steps = weight.astype(np.float64), scale.double().numpy()
    axis = tuple(range(1, weight.ndim)) if per_channel else None
    expected = np.maximum(np.abs(values).max(axis=axis) / limit, SCALE_FLOOR)
    np.testing.assert_allclose(steps, expected, rtol=2**-23)
    steps = steps.reshape(-1, *[1] * (weight.ndim - 1)) if per_channel else steps
    assert stored.dtype == torch.int8
    assert int(stored.abs().max()) <= limit
    # float32 rounding of the scale may leave the largest weight 2⁻²⁴ of itself outside the grid.
    assert np.all(np.abs(values - stored.numpy() * steps) <= steps / 2 + np.abs(values) * 2**-24)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-1000, 1000, width=32)))
def test_an_activation_in_range_moves_by_half_a_step_at_most_in_the_ops_that_are_written(x):
    observer = ActivationObserver(observer="minmax", percentile=99.9)
    observer(torch.from_numpy(x))
    arguments = (observer.scale, 0, -128, 127, torch.int8)
    restored = Q.dequantize_per_tensor(Q.quantize_per_tensor(torch.from_numpy(x), *arguments), *arguments).numpy()
    # Quantizing multiplies by the reciprocal in float32: up to 3 roundings of |x|/scale ≤ 127 beyond half a step.
    slack = 127 * observer.scale * 2**-22
    assert np.all(np.abs(x.astype(np.float64) - restored) <= observer.scale / 2 + slack)


def test_observing_changes_nothing_and_ends_when_the_range_is_fixed():
    observer = ActivationObserver(observer="histogram", percentile=99.9)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert observer(x) is x
    fixed = observer.fix()
    observer(x * 100)
    assert observer.fix() == fixed


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_of_large_samples_some_values_are_counted_and_the_extremes_known(layout):
    x = torch.randn(6, 40, 64, 64, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    x[3, 17, 5, 60] = 40.0
    whole, parts = (ActivationObserver(observer="histogram", percentile=99.9) for _ in range(2))
    whole(x)
    for part in x.split(2):  # in whatever batches they come
        parts(part)
    assert np.array_equal(whole.histogram.counts, parts.histogram.counts)
    assert (whole.histogram.low, whole.histogram.high) == (float(x.min()), 40.0)
    per_sample = whole.histogram.total / len(x)
    assert 2**14 < per_sample <= 2**15
    every = np.bincount(
        np.clip(np.floor(x.numpy().ravel() / whole.histogram.width) + 4096, 0, 8191).astype(int), minlength=8192
    )
    shares = (
        np.add.reduceat(counts / counts.sum(), np.arange(0, 8192, 64)) for counts in (every, whole.histogram.counts)
    )
    np.testing.assert_allclose(*shares, atol=5 * np.sqrt(0.25 / whole.histogram.total))


def test_each_sample_is_counted_at_other_places():
    observer = ActivationObserver(observer="histogram", percentile=99.9)
    image = torch.linspace(0, 1, 3 * 2**15).repeat(3, 1)
    observer(image)
    counted = observer._some(image)
    assert len(counted.unique()) == pytest.approx(3 * image.shape[1] / 5, rel=0.01)  # three offsets, steps of 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_not_counted(bad):
    observer = ActivationObserver(observer="percentile", percentile=99.9)
    with pytest.raises(NonFiniteError):
        observer(torch.tensor([1.0, bad]))
    assert observer.histogram.total == 0


def test_a_branch_that_no_sample_took_still_has_a_positive_scale():
    assert ActivationObserver(observer="minmax", percentile=99.9).scale > 0


def test_a_dead_channel_with_a_live_bias_keeps_its_bias_inside_int32():
    observer = WeightObserver(bits=8, per_channel=True)
    weight, bias, input_scale = torch.zeros(2, 3), torch.tensor([5.0, 0.1]), 0.02
    weight[1] = 1.0
    observer.allow_int32_bias(bias, input_scale)
    _, scale = quantize_weight(weight, observer.scale_floor, 127, per_channel=True)
    assert np.all(np.abs(bias.numpy() / (input_scale * scale.double().numpy())) < 2**31 - 1)
    assert float(scale[1]) == pytest.approx(1 / 127, rel=1e-6)
