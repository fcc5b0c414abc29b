"""An engine's kernels against what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Condition, Measurement

__all__ = ["MachinePeaks", "Roofline", "RooflineRow"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MachinePeaks(_Frozen):
    """Measured on one device, by ONNX Runtime, with so many threads.

    Attributes:
        int8: ``peak_int8_gops``: 10⁹ operations a second, two for a multiply-accumulate.
        float32: ``peak_float32_gops``.
        bandwidth: ``peak_bandwidth_gb_s``: 10⁹ bytes a second, read and written.
    """

    int8: Measurement
    float32: Measurement
    bandwidth: Measurement


class RooflineRow(_Frozen):
    """One kernel.

    Attributes:
        name: The layer; the kernel's own name where it computes none that multiplies.
        us: Median time of one inference's share, microseconds.
        moved_bytes: What it reads and writes; 0 where the runtime does not tell.
        gops: Achieved: 10⁹ operations a second, two for a multiply-accumulate.
        intensity: Operations for each byte.
        roof_gops: What the machine can do at that intensity and precision; None where a peak was not measured.
    """

    name: str
    op: str
    runs_in: str
    macs: int
    us: float
    moved_bytes: int
    gops: float
    intensity: float | None
    roof_gops: float | None

    @property
    def share_pct(self) -> float | None:
        """Achieved as percent of what is attainable; None where nothing multiplies or the roof is not known."""
        return 100 * self.gops / self.roof_gops if self.macs and self.roof_gops else None


class Roofline(_Frozen):
    """An engine's kernels in the order they ran, and the machine's peaks.

    Attributes:
        whole: All of them together; its intensity is that of the sums, its roof that of the rows one after another.
        conditions: Runtime, threads, batch, runs.
    """

    rows: tuple[RooflineRow, ...]
    whole: RooflineRow
    peaks: MachinePeaks
    device: str
    conditions: Mapping[str, Condition]
