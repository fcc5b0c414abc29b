"""A bundle's engine compared across devices; this machine stands in for the others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sample_bundle import CLASSES, expected, images, sample_bundle

from edgeopt.bundle.load import load_bundle, verify_files
from edgeopt.core.errors import BundleError, DeviceError, RecipeError
from edgeopt.data.load import load_data
from edgeopt.devices.local import LocalDevice
from edgeopt.pipeline import compile as road
from edgeopt.pipeline import numerics as module
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.numerics import check_devices, compare_bundle, record_numerics


class Other(LocalDevice):
    """This machine under another name, that may fail."""

    at_once = 8
    numerics_only = "it is a stand-in"

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault

    def info(self):
        return super().info().model_copy(update={"name": "another machine"})

    def open(self, engine, *, threads=None):
        if self.fault:
            raise DeviceError(self.fault)
        return super().open(engine, threads=threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    x = images(120, seed=3)
    labels = expected(x).argmax(1)
    labels[::10] = (labels[::10] + 1) % CLASSES  # one in ten is wrong by construction
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x=x, y=labels, x_calibration=images(20, seed=4))
    return path


@pytest.fixture
def bundle(tmp_path):
    return sample_bundle(tmp_path / "bundle")


def test_the_same_machine_computes_the_same(bundle, data):
    section = compare_bundle(bundle, data=str(data), devices=["local", Other()], samples=20)
    assert (section.samples, section.of) == (20, 108)  # the other 12 tune
    assert [row.spec for row in section.rows] == ["local", section.rows[1].spec]
    for row in section.rows:
        assert (row.within, row.error) == (True, "")
        assert [(one.name, one.values, one.differing) for one in row.outputs] == [("logits", 20 * CLASSES, 0)]
        agreement = row.figure("agreement_pct")
        assert agreement is not None
        assert agreement.value == 100
        assert agreement.n == 20
    assert section.rows[1].numerics_only == "it is a stand-in"
    assert section.host.figure("agreement_pct") is None
    accuracy = section.rows[1].figure("accuracy_top1_pct")
    assert accuracy is not None
    assert (accuracy.device, accuracy.conditions["samples"]) == ("another machine", 20)


def test_few_samples_are_the_default_where_times_mean_nothing(bundle, data):
    assert compare_bundle(bundle, data=str(data), devices=[Other()]).samples == 64
    assert compare_bundle(bundle, data=str(data), devices=["local"]).samples == 108


def test_a_device_that_fails_does_not_end_the_others(bundle, data):
    section = compare_bundle(bundle, data=str(data), devices=[Other("It broke."), Other()], samples=4)
    first, second = section.rows
    assert (first.error, first.within, first.outputs) == ("It broke.", None, ())
    assert second.within is True


def test_a_name_that_is_no_device_is_refused_before_anything_runs(bundle, data):
    with pytest.raises(DeviceError, match="No CPU of that name"):
        compare_bundle(bundle, data=str(data), devices=["local", "qemu:cortex-a99"])
    with pytest.raises(RecipeError, match="compared on real samples"):
        check_devices(["local"], has_data=False)
    assert check_devices([], has_data=False) is False


def test_an_engine_that_is_not_built_is_compared_nowhere(bundle, data, monkeypatch):
    whole = load_bundle(bundle)
    unbuilt = replace(whole, engine=replace(whole.engine, status="not_built"))
    monkeypatch.setattr(module, "load_bundle", lambda path: unbuilt)
    with pytest.raises(BundleError, match="not built, so no machine can run it"):
        compare_bundle(bundle, data=str(data), devices=["local"])


def test_what_only_its_device_builds_is_refused_before_work():
    def a_run(*, needed):
        planned = SimpleNamespace(availability=SimpleNamespace(needed=needed), rules=SimpleNamespace(name="tensorrt"))
        return SimpleNamespace(
            options=SimpleNamespace(numerics=["qemu:max"]), plan=SimpleNamespace(candidates=(planned,))
        )

    with pytest.raises(RecipeError, match=r"built on its device and runs nowhere else.*qemu:max for tensorrt"):
        road._demand_runnable(a_run(needed=False))
    road._demand_runnable(a_run(needed=True))


def test_a_recorded_comparison_is_in_the_report_of_a_bundle_that_is_whole(bundle, data, monkeypatch):
    loaded = load_bundle(bundle)
    contract = loaded.engine
    dataset = load_data(str(data), inputs=contract.inputs, outputs=contract.outputs)
    cache = StageCache(enabled=False)
    context = RunContext(cache=cache, host="here")
    before = {name: (bundle / name).read_bytes() for name in loaded.manifest.files if not name.startswith("report.")}
    found = record_numerics(context, loaded, dataset, ["local"], samples=10)
    cache.close()
    assert found.report.numerics is not None
    assert found.report.numerics.samples == 10
    assert list(verify_files(found)) == []
    assert {name: (bundle / name).read_bytes() for name in before} == before
    assert "Other instruction sets" in (bundle / "report.md").read_text()
