"""Odd calibration data is told with its evidence; good data gives no warning."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from compress_nets import Arrays, export, make_config, make_context, make_target, samples, seeded
from torch import nn

from edgeopt.compress.base import Answers
from edgeopt.compress.macs import multiplications
from edgeopt.compress.normalize import normalize
from edgeopt.compress.registry import STEPS
from edgeopt.data.contract import Dataset, Split

STEP = STEPS["quantize"]


class Sure(nn.Module):
    """Sure of one of two classes on images with a bright or dark first channel; of noise it is not."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.fill_(0.0)
            self.first.weight[0, 0], self.first.weight[1, 0] = 1 / 3, -1 / 3
            self.head.weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def images(count, seed):
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1.0, 1.0], size=(count, 1, 1, 1))
    return (sign + 0.3 * rng.normal(size=(count, 3, 8, 8))).astype(np.float32)


def warnings(calibration, tune, *, answers=None, **config):
    splits = {
        name: Split(name=name, source=Arrays(x), indices=np.arange(len(x)), how="given", fingerprint=str(number) * 64)
        for number, (name, x) in enumerate((("calibration", calibration), ("tune", tune)))
    }
    data = Dataset(name="images", task="classification", splits=splits, fingerprint="f" * 64)
    model = export(Sure().eval(), (3, 8, 8))
    result = STEP.run(model, make_config(**config), make_context(data, answers=answers))
    return [e.message for e in result.events if e.kind == "warning"]


def test_good_data_gives_no_warning():
    assert warnings(images(64, 1), images(64, 2)) == []


def test_few_samples_raise_no_alarm_but_that_they_are_few():
    (message,) = warnings(images(4, 1), images(4, 2))
    assert message.startswith("There are 4 calibration samples: about one further sample in 5 is expected")


def test_one_further_sample_in_n_plus_one_exceeds_the_largest_of_n():
    drawn = np.random.default_rng(0).normal(size=(20_000, 5))
    assert np.mean(drawn[:, 4] > drawn[:, :4].max(1)) == pytest.approx(1 / 5, abs=0.01)


def test_samples_that_are_all_the_same_are_told():
    (message,) = warnings(np.repeat(images(1, 1), 40, axis=0), images(64, 2))
    assert "is constant: its first 40 samples are all the same, values from" in message


@pytest.mark.parametrize(
    ("change", "says"),
    [(lambda x: 255 * x, "channel"), (lambda x: x + 4, r"mean [34]\.\d+ "), (lambda x: 0.3 * x, "0.3")],
)
def test_another_normalization_is_told_with_both_statistics(change, says):
    found = warnings(change(images(64, 1)), images(64, 2))
    message = next(m for m in found if "not distributed as the tuning split is, in 3 of 3 channels" in m)
    assert np.all([word in message for word in ("standard deviation", "values from", "(64 and 64 samples)")])
    assert re.search(says, message)


def test_noise_with_the_right_range_is_told_by_what_the_model_makes_of_it():
    noise = np.random.default_rng(3).normal(size=(64, 3, 8, 8)).astype(np.float32)
    found = warnings(noise, images(64, 2))
    assert any("mean confidence is 0." in m and "nats" in m and "not noise?" in m for m in found)


def test_what_the_model_answers_to_the_tuning_split_is_not_computed_again():
    tune, noise = images(64, 2), np.random.default_rng(3).normal(size=(64, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        scores = Sure().eval()(torch.from_numpy(tune)).numpy()
    (message,) = warnings(noise, tune, answers=Answers(inputs=(tune,), outputs=(scores,)))
    assert message in warnings(noise, tune)
    assert "not noise?" in message
    unsure = Answers(inputs=(tune,), outputs=(np.zeros_like(scores),))
    assert any("mean confidence is 1.00 and there 0.50" in m for m in warnings(images(64, 1), tune, answers=unsure))
    few = Answers(inputs=(tune[:3],), outputs=(np.zeros_like(scores[:3]),))  # too few to go by
    assert warnings(images(64, 1), tune, answers=few) == []


@pytest.mark.parametrize(("observer", "need"), [("percentile", "20,000"), ("entropy", "20,480")])
def test_too_few_values_for_an_observer_are_told(observer, need):
    few = warnings(images(16, 1), images(16, 2), observer=observer)
    assert any(f"{observer!r} needs {need} values" in m and "use the observer 'histogram'" in m for m in few)
    many = warnings(images(1000, 1), images(16, 2), observer=observer, calibration_samples=1000)
    assert not any("needs" in m and "1 of 2" not in m for m in many)


def test_multiplications_are_those_counted_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 6, 2, stride=2)
            self.c = nn.Linear(6, 5)

        def forward(self, x):
            y = self.b(self.a(x)).flatten(2)
            return self.c(y @ y.transpose(1, 2))

    graph = normalize(export(seeded(Net, (4, 6, 6)), (4, 6, 6)).program, split_attention=True)
    counts = list(multiplications(graph).values())
    assert counts == [8 * 4 * 4 * 2 * 9, 8 * 4 * 4 * 6 * 4, 6 * 6 * 64, 6 * 6 * 5]


def test_what_stays_in_float_is_listed_with_its_share_of_the_multiplications(nets):
    model, shape = nets["resnet"]
    data = Dataset(
        name="x",
        task="unlabelled",
        splits={
            "calibration": Split(
                name="calibration",
                source=Arrays(samples(64, shape)),
                indices=np.arange(64),
                how="",
                fingerprint="f" * 64,
            )
        },
        fingerprint="f" * 64,
    )
    target = make_target(quantized_ops=("conv", "add"))
    result = STEP.run(model, make_config(), make_context(data, target))
    assert any("head (linear) in float" in e.message and "0.0 % of the model's" in e.message for e in result.events)
