"""What a reader looks for in a report, found in the document once for every renderer."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.bundle.document import Candidate, LayerRow, Report
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import MISSING, conditions_text, figure, interval_text, plain, unit_text, value_text

__all__ = [
    "KeyFigure",
    "key_figures",
    "layer_summary",
    "measured_on",
    "worst_first",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """One of the figures a reader asks for first, about the shipped candidate.

    Attributes:
        value: The number, or ``not measured``.
        detail: What it is compared with, or why it is missing.
    """

    title: str
    value: str
    unit: str
    interval: str
    detail: str
    measured: bool


def key_figures(report: Report) -> tuple[KeyFigure, ...]:
    """Drop, latency, size, memory of what is shipped, each beside FP32 on the same runtime."""
    shipped = report.shipped
    reference = next(
        (c for c in report.candidates if c.role == "reference" and c.runtime == shipped.runtime and c is not shipped),
        None,
    )
    accuracy = shipped.figure("accuracy_top1_pct")
    quality = (
        _key("Accuracy", accuracy, shipped, "on the whole test split")
        if shipped.role == "reference"
        else _key("Accuracy drop", shipped.figure("drop_pp"), shipped, _before("accuracy_top1_pct", reference, shipped))
    )
    return (
        quality,
        _key("Latency, p50", shipped.figure("latency_p50_ms"), shipped, _speed(shipped, reference)),
        _key("Size", shipped.figure("size_mib"), shipped, _before("size_mib", reference, shipped)),
        _key("Peak memory", shipped.figure("peak_memory_mib"), shipped, _before("peak_memory_mib", reference, shipped)),
    )


def layer_summary(report: Report) -> str:
    """How many layers are in which precision, and the worst of them."""
    if not report.layers:
        return "No layers were analysed."
    counts: dict[str, int] = {}
    for layer in report.layers:
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    text = ", ".join(f"{count} of {len(report.layers)} layers in {plain(name)}" for name, count in counts.items())
    worst = worst_first(report)[0]
    if worst.sqnr.value is None:
        return f"{text}."
    return f"{text}. Lowest SQNR: {figure(worst.sqnr, interval=False)} after {plain(worst.name)}."


def worst_first(report: Report) -> tuple[LayerRow, ...]:
    """The layers by their SQNR, the lowest first; those without one last."""
    return tuple(sorted(report.layers, key=lambda r: (r.sqnr.value is None, r.sqnr.value or 0.0)))


def measured_on(report: Report) -> str:
    """The machine behind the figures, in one line."""
    device = report.device
    parts = [part for part in (device.cpu, device.arch, f"{device.cores} cores") if part not in device.name]
    parts = [device.name, *parts, f"{device.memory_mib:,} MiB", device.system]
    return " · ".join(plain(part) for part in parts)


def _key(title: str, measurement: Measurement | None, candidate: Candidate, detail: str) -> KeyFigure:
    if measurement is None or measurement.value is None:
        reason = (measurement.reason if measurement else None) or candidate.reason or "this run did not ask for it"
        return KeyFigure(title=title, value=MISSING, unit="", interval="", detail=plain(reason), measured=False)
    interval = interval_text(measurement)
    if measurement.interval is not None:
        interval = f"{measurement.interval.level:.0%} {interval}"
    return KeyFigure(
        title=title,
        value=value_text(measurement),
        unit=unit_text(measurement),
        interval=interval,
        detail=detail,
        measured=True,
    )


def _before(name: str, reference: Candidate | None, shipped: Candidate) -> str:
    """``98.61 % → 98.33 %``: FP32 on the same runtime, and what is shipped."""
    before = reference.figure(name) if reference else None
    after = shipped.figure(name)
    if before is None or before.value is None or after is None or after.value is None:
        return ""
    return f"FP32 {figure(before, interval=False)} → {figure(after, interval=False)}"


def _speed(shipped: Candidate, reference: Candidate | None) -> str:
    ratio = shipped.figure("latency_ratio")
    where = conditions_text(m, ("batch", "threads")) if (m := shipped.figure("latency_p50_ms")) else ""
    if ratio is None or ratio.value is None or ratio.value <= 0:
        return where or _before("latency_p50_ms", reference, shipped)
    faster = ratio.value < 1
    times = 1 / ratio.value if faster else ratio.value
    return f"{times:.2f}× {'faster' if faster else 'slower'} than FP32" + (f"; {where}" if where else "")
