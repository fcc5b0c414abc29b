"""One engine on several instruction sets: what each made of the same samples, beside this machine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["NumericsRow", "NumericsSection", "OutputDifference"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputDifference(_Frozen):
    """One output on a device against the same output on the host, over all samples.

    Attributes:
        values: How many numbers were compared, and how many of them are ``differing``.
        largest: The largest absolute difference; None where one of the two is not a number or infinite.
        relative: Of the output's range on the host (largest less smallest value, at least the largest magnitude).
        steps: In steps of 1/255 of that range, what an 8-bit output resolves; None for engines that compute in float.
        changed_predictions: Samples whose largest value is elsewhere; None where the output is not [N, classes].
    """

    name: str
    values: int
    differing: int
    largest: float | None
    relative: float | None
    steps: float | None = None
    changed_predictions: int | None = None


class NumericsRow(_Frozen):
    """One device.

    Attributes:
        spec: As it was asked for: ``qemu:cortex-a53``.
        name: What figures measured there carry as their device.
        system: What runs it; an emulator says so.
        numerics_only: Why its times were not taken; empty where it is a real machine.
        outputs: Empty for the host itself, and where ``error`` says why there are none.
        within: Whether all differences are inside what is expected; None where nothing was compared.
        figures: Of the data's metrics there; ``agreement_pct``, ``drop_pp`` and the like are against the host.
    """

    spec: str
    name: str
    arch: str = ""
    isa: tuple[str, ...] = ()
    system: str = ""
    numerics_only: str = ""
    runtime_version: str = ""
    outputs: tuple[OutputDifference, ...] = ()
    within: bool | None = None
    figures: tuple[Measurement, ...] = ()
    error: str = ""

    def figure(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.figures if m.name == name), None)

    @property
    def worst(self) -> OutputDifference | None:
        """The output that differs most; one that cannot be told comes first."""
        ranked = sorted(self.outputs, key=lambda row: float("inf") if row.relative is None else row.relative)
        return ranked[-1] if ranked else None


class NumericsSection(_Frozen):
    """An engine on the host and on other instruction sets.

    Attributes:
        engine: Runtime and precision: ``onnxruntime-int8``.
        samples: How many were run, the first of the split's ``of``.
        expected: What differences are normal, in words.
        host: This machine, which all others are compared with.
        rows: The others, in the order asked for.
    """

    engine: str
    runtime: str
    precision: str
    data: str
    split: str
    samples: int
    of: int
    expected: str
    host: NumericsRow
    rows: tuple[NumericsRow, ...]
