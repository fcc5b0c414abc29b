"""A bundle's engine on other instruction sets, on the same samples as on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.bundle.numerics import NumericsRow, NumericsSection
from edgeopt.core.errors import BundleError, DeviceError, EdgeOptError, RecipeError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.fingerprint import hash_json, hash_tree
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Dataset
from edgeopt.data.load import load_data
from edgeopt.devices.base import Device
from edgeopt.devices.local import LocalDevice
from edgeopt.devices.registry import opened
from edgeopt.pipeline.amend import with_report
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.evidence import collect, judge_outputs
from edgeopt.pipeline.on_device import demand_runtime
from edgeopt.pipeline.options import NUMERICS_SAMPLES

__all__ = ["check_devices", "compare_bundle", "record_numerics"]


_AGAINST = ("agreement", "drop", "output_")


def compare_bundle(
    path: Path,
    *,
    data: str,
    devices: Sequence[str | Device],
    samples: int | None = None,
    seed: int = 0,
    accept_new_host_key: bool = False,
    devices_file: Path | None = None,
    progress: ProgressListener = ignore_progress,
) -> NumericsSection:
    """Run a bundle's engine on this machine and on others, on the first samples of the test split, and compare.

    A device that cannot run it is a row that says so, and does not end the others'.

    Args:
        devices: Names as ``open_device`` takes them, or devices that are open.
        samples: How many; None: 64 where one of them is emulated, else all.
        seed: Of the splits, and of resamples.

    Raises:
        BundleError: The bundle's engine is not built.
        DeviceError: There is no device of one of the names, or this machine cannot run the engine.
        DataError: The data does not fit the model.
    """
    bundle = load_bundle(path)
    contract = bundle.manifest.contract
    inputs = tuple(TensorSpec(name=i.name, dtype=i.dtype, shape=i.shape) for i in contract.inputs)
    outputs = tuple(TensorSpec(name=o.name, dtype=o.dtype, shape=o.shape) for o in contract.outputs)
    cache = StageCache(enabled=False)  # what is asked for is what it computes now
    try:
        context = RunContext(cache=cache, host=LocalDevice().name, seed=seed, listener=progress)
        return _compare(
            context,
            bundle,
            load_data(data, inputs=inputs, outputs=outputs, seed=seed),
            devices,
            samples=samples,
            accept_new_host_key=accept_new_host_key,
            devices_file=devices_file,
        )
    finally:
        cache.close()


def record_numerics(
    context: RunContext, bundle: Bundle, data: Dataset, devices: Sequence[str], *, samples: int
) -> Bundle:
    """``compare_bundle``, with the table added to the bundle's report; the bundle is replaced whole or not at all."""
    section = _compare(context, bundle, data, devices, samples=samples)
    report = bundle.report.model_copy(update={"numerics": section, "stages": tuple(context.stages)})
    return with_report(bundle, report)


def check_devices(devices: Sequence[str | Device], *, has_data: bool, devices_file: Path | None = None) -> bool:
    """What can be said before work starts: whether one of them gives numerics only.

    Raises:
        RecipeError: There is no data to compare on.
        DeviceError: A device cannot be opened.
    """
    if devices and not has_data:
        raise RecipeError("Outputs are compared on real samples.", got="--numerics without --data", fix="Give --data.")
    emulated = False
    for spec in devices:
        with opened(spec, devices_file=devices_file) as device:
            emulated |= bool(getattr(device, "numerics_only", ""))
    return emulated


def _compare(
    context: RunContext,
    bundle: Bundle,
    data: Dataset,
    devices: Sequence[str | Device],
    *,
    samples: int | None,
    accept_new_host_key: bool = False,
    devices_file: Path | None = None,
) -> NumericsSection:
    from edgeopt.measure.numerics import expected_words

    manifest, whole = bundle.manifest, data.splits["test"]
    if bundle.engine.status != "built":
        raise BundleError("The bundle's engine is not built, so no machine can run it.", got=bundle.directory)
    emulated = check_devices(devices, has_data=True, devices_file=devices_file)
    split = whole.first(samples or (NUMERICS_SAMPLES if emulated else len(whole)))
    data = dataclasses.replace(data, splits={**data.splits, "test": split})
    key = hash_json({"files": hash_tree(bundle.engine.directory), "options": dict(bundle.engine.options)})
    bench = _Bench(context=context, bundle=bundle, data=data, key=key)
    here = LocalDevice()
    host, outputs = bench.host(here)
    rows = []
    for spec in devices:
        label = spec if isinstance(spec, str) else spec.name
        try:
            with opened(
                spec, accept_new_host_key=accept_new_host_key, devices_file=devices_file, progress=context.listener
            ) as device:
                rows.append(bench.row(label, device, outputs))
        except EdgeOptError as error:
            rows.append(NumericsRow(spec=label, name=label, error=str(error)))
    return NumericsSection(
        engine=f"{manifest.runtime}-{manifest.precision}",
        runtime=manifest.runtime,
        precision=manifest.precision,
        data=data.name,
        split="test",
        samples=len(split),
        of=len(whole),
        expected=expected_words(manifest.runtime, manifest.precision),
        host=host,
        rows=tuple(rows),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """The same engine and samples for every device."""

    context: RunContext
    bundle: Bundle
    data: Dataset
    key: str

    def host(self, device: Device) -> tuple[NumericsRow, Mapping[str, np.ndarray]]:
        """This machine's row, and its outputs."""
        row, outputs = self._run("local", device)
        figures = judge_outputs(outputs, outputs, self.data, row.name, self._conditions(), seed=self.context.seed)
        own = tuple(m for m in figures.measurements if not m.name.startswith(_AGAINST))  # with itself it agrees
        return row.model_copy(update={"figures": own}), outputs

    def row(self, spec: str, device: Device, host: Mapping[str, np.ndarray]) -> NumericsRow:
        """Another device's row."""
        from edgeopt.measure.numerics import compare_outputs, within

        demand_runtime(device, self.bundle)
        row, outputs = self._run(spec, device)
        precision = self.bundle.manifest.precision
        found = compare_outputs(host, outputs, precision)
        finite = all(bool(np.isfinite(array).all()) for array in outputs.values())
        if not finite:
            raise DeviceError(f"{row.name} made outputs that are not finite numbers.", got=self.bundle.manifest.runtime)
        figures = judge_outputs(host, outputs, self.data, row.name, self._conditions(), seed=self.context.seed)
        return row.model_copy(
            update={
                "outputs": found,
                "within": within(found, self.bundle.manifest.runtime, precision),
                "figures": figures.measurements,
            }
        )

    def _run(self, spec: str, device: Device) -> tuple[NumericsRow, Mapping[str, np.ndarray]]:
        info, engine = device.info(), self.bundle.engine
        batch = engine.inputs[0].batch
        outputs = collect(
            self.context,
            device,
            info,
            engine,
            key=self.key,
            split=self.data.splits["test"],
            label=f"run on {info.name}",
            batch=batch if isinstance(batch, int) else 1,
        )
        demand = getattr(device, "demand", None)
        version = self.bundle.manifest.runtime_version
        if demand is not None:
            version = demand(engine.runtime, module=str(engine.options.get("module", "")))
        row = NumericsRow(
            spec=spec,
            name=info.name,
            arch=info.arch,
            isa=info.isa,
            system=info.system,
            numerics_only=getattr(device, "numerics_only", ""),
            runtime_version=version,
        )
        return row, outputs

    def _conditions(self) -> dict[str, object]:
        split = self.data.splits["test"]
        return {"split": "test", "data": self.data.name, "runtime": self.bundle.manifest.runtime, "samples": len(split)}
