"""Calibration: what is read, in which batches, with how much memory, and what stops it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_nets import MLP, dataset, export, make_config, make_context, samples, seeded
from torch import nn

from edgeopt.compress.registry import STEPS
from edgeopt.core.errors import DataError
from edgeopt.model import batches

STEP = STEPS["quantize"]


def calibrate(model, *inputs, progress=None, **config):
    data = dataset(*inputs)
    options = {"progress": progress} if progress else {}
    result = STEP.run(model, make_config(**config), make_context(data, **options))
    return result, data.splits["calibration"].source


def mlp(**options):
    return export(seeded(MLP, (20,)), (20,), **options)


def test_no_more_samples_are_read_than_asked_for_and_progress_is_told():
    seen = []
    result, source = calibrate(mlp(), samples(100, (20,)), calibration_samples=50, batch_size=20, progress=seen.append)
    assert [len(batch) for batch in source.seen] == [20, 20, 10]
    assert [(p.done, p.total) for p in seen if p.stage == "calibrate"] == [(0, 50), (20, 50), (40, 50), (50, 50)]
    assert result.stats["calibration_samples"] == 50


def test_a_short_split_is_used_whole_and_reported():
    result, _ = calibrate(mlp(), samples(30, (20,)), calibration_samples=50)
    assert result.stats["calibration_samples"] == 30
    assert [e.message for e in result.events if e.kind == "note"] == [
        "Calibrated on 30 samples: the calibration split has no more (50 were asked for)."
    ]


def test_a_static_program_gets_full_batches_with_the_same_ranges_as_a_dynamic_one():
    x = samples(30, (20,))
    static, source = calibrate(mlp(batch=8), x, batch_size=20)
    dynamic, _ = calibrate(mlp(), x)
    assert [len(batch) for batch in source.seen] == [8, 8, 8, 6]
    np.testing.assert_allclose(list(static.ranges.values()), list(dynamic.ranges.values()), rtol=1e-5)
    assert static.model.inputs[0].shape == (8, 20)


def test_bias_correction_ignores_the_rows_that_fill_a_static_batch():
    x = samples(12, (20,))
    x[11] = 50.0  # the sample that is repeated
    static, _ = calibrate(mlp(batch=8), x, bias_correction=True)
    dynamic, _ = calibrate(mlp(), x, bias_correction=True, batch_size=8)
    for name in ("linear_bias", "linear_1_bias"):
        got, expected = (dict(r.model.program.named_parameters())[name] for r in (static, dynamic))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_the_data_names_the_sample(bad):
    x = samples(40, (20,))
    x[33, 3] = bad
    with pytest.raises(DataError, match=r"NaN or infinity in input 'input'.*sample 33 of the calibration split"):
        calibrate(mlp(), x, batch_size=10)


class Rooted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(torch.sqrt(self.first(x)))


def test_nan_made_by_the_model_names_the_first_op():
    model = export(seeded(Rooted, (4,)), (4,))
    with pytest.raises(DataError, match=r"first in 'sqrt' \(aten\.sqrt\.default\).*samples 0 to 31"):
        calibrate(model, samples(64, (4,)))


class Overflowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Linear(4, 2)

    def forward(self, x):
        return torch.exp(1000 * self.only(x).abs() + 1000)


def test_infinity_in_an_output_that_nothing_observes_is_found():
    model = export(seeded(Overflowing, (4,)), (4,))
    with pytest.raises(DataError, match=r"first in 'exp'"):
        calibrate(model, samples(64, (4,)))


def test_data_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"does not fit input 'input'.*float32\[32, 19\].*input:float32\[batch,20\]"):
        calibrate(mlp(), samples(64, (19,)))


def test_data_of_another_dtype_is_refused():
    with pytest.raises(DataError, match=r"does not fit input 'input'.*float64\[32, 20\]"):
        calibrate(mlp(), samples(64, (20,)).astype(np.float64))


def test_data_with_another_number_of_inputs_is_refused():
    with pytest.raises(DataError, match=r"another number of inputs.*2 arrays"):
        calibrate(mlp(), samples(64, (20,)), samples(64, (20,)))


MEMORY = """
import sys
from compress_nets import *
from edgeopt.compress.registry import STEPS

class Lazy:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def read(self, indices):
        return Batch(inputs=(np.stack([samples(1, (3, 32, 32), seed=i)[0] for i in indices]),), targets=None)

def split(count):
    data = dataset(np.zeros((1, 3, 32, 32), np.float32))
    part = dataclasses.replace(data.splits["calibration"], source=Lazy(count), indices=np.arange(count))
    return dataclasses.replace(data, splits={"calibration": part})

def quantize(count):
    config = make_config(observer="histogram", bias_correction=True, calibration_samples=count)
    STEPS["quantize"].run(model, config, make_context(split(count)))

import dataclasses
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(392, 4))
model = export(net.eval(), (3, 32, 32))
quantize(100)
before = [l for l in open("/proc/self/status") if l.startswith("VmHWM")]
quantize(int(sys.argv[1]))
after = [l for l in open("/proc/self/status") if l.startswith("VmHWM")]
print(*[int(l[0].split()[1]) for l in (before, after)])
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_number_of_samples():
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, "-W", "ignore", "-c", MEMORY, "10000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    at_100, at_10_000 = map(int, done.stdout.split()[-2:])
    # 9,900 samples more are 116 MiB of inputs alone; a quarter of a batch's worth of noise is allowed.
    assert at_10_000 - at_100 < 8 * 1024, f"{at_100} KiB at 100 samples, {at_10_000} KiB at 10,000"


class Wide(nn.Module):
    """Values of 16 MiB for one sample."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 2, 1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x))).mean((2, 3))


def test_large_values_come_in_small_batches_and_give_the_same_ranges():
    model, x = export(seeded(Wide, (1, 256, 256)), (1, 256, 256)), samples(4, (1, 256, 256))
    found = {}
    for observer, sizes in (("histogram", [1, 1, 1, 1]), ("moving_average", [4])):
        result, source = calibrate(model, x, observer=observer, batch_size=4)
        assert [len(batch) for batch in source.seen][-len(sizes) :] == sizes
        found[observer] = result.ranges
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_VALUE_BYTES", 2**40)
        whole, _ = calibrate(model, x, observer="histogram", batch_size=4)
    np.testing.assert_allclose(list(found["histogram"].values()), list(whole.ranges.values()), rtol=1e-5)
