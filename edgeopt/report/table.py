"""The comparison of candidates as rows and columns of text, the same for every renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeopt.bundle.document import Candidate, Report
from edgeopt.core.measurement import Measurement
from edgeopt.report.accuracy import further_metrics
from edgeopt.report.format import MISSING, interval_text, label, unit_text, value_text

__all__ = ["Cell", "Column", "Comparison", "Row", "comparison"]

# In the order a reader asks: is it right, how fast, how big.
_ORDER = (
    "accuracy_top1_pct",
    "drop_pp",
    "agreement_pct",
    "output_sqnr_db",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_ratio",
    "throughput_per_s",
    "cold_start_ms",
    "peak_memory_mib",
    "size_mib",
)
_DETAIL = ("latency_p90_ms", "latency_p95_ms")
_AGAINST_FP32 = ("drop_pp", "agreement_pct", "output_sqnr_db", "latency_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure over all candidates. ``batch`` tells several throughputs apart."""

    name: str
    title: str
    unit: str
    batch: str = ""

    @property
    def heading(self) -> str:
        """Title and unit in one."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def lines(self) -> tuple[str, str]:
        """The heading over two lines, for narrow columns: its first word, the rest."""
        first, _, rest = self.heading.partition(" ")
        return first.rstrip(","), rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure as text.

    Attributes:
        kind: ``value``; ``reference``: the row is what the others are compared with; ``missing``: not measured.
        text: The number without its unit, or words.
        interval: ``[low, high]``, or empty.
        measurement: What stands behind it.
    """

    kind: Literal["value", "reference", "missing"]
    text: str
    interval: str = ""
    measurement: Measurement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate."""

    candidate: Candidate
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The table. Why a figure is missing is said by ``findings.not_measured``, once for all."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def comparison(report: Report, *, detail: bool = False) -> Comparison:
    """Lay out every candidate's figures; a column that no candidate has a figure for is left out.

    Args:
        report: The document.
        detail: Also the outputs' SQNR, and the percentiles between p50 and p99.
    """
    labelled = any(c.figure("drop_pp") for c in report.candidates)
    hidden = (*_DETAIL, "output_sqnr_db") if labelled else _DETAIL  # without labels the SQNR is what there is
    elsewhere = further_metrics(report)  # a table of their own
    columns = _columns(report, hidden=elsewhere if detail else (*hidden, *elsewhere))
    rows = tuple(
        Row(candidate=candidate, cells=tuple(_cell(candidate, column) for column in columns))
        for candidate in report.candidates
    )
    return Comparison(columns=columns, rows=rows)


def _columns(report: Report, hidden: tuple[str, ...]) -> tuple[Column, ...]:
    found: dict[tuple[str, str], Column] = {}
    several = _names_with_several(report)
    for measurement in (m for c in report.candidates for m in c.measurements):
        batch = _batch(measurement, several)
        if measurement.value is not None and measurement.name not in hidden:
            title = label(measurement.name) + (f", batch {batch}" if batch else "")
            column = Column(name=measurement.name, title=title, unit=unit_text(measurement), batch=batch)
            found.setdefault((measurement.name, batch), column)
    position = {name: index for index, name in enumerate(_ORDER)}
    return tuple(sorted(found.values(), key=lambda c: (position.get(c.name, len(_ORDER)), len(c.batch), c.batch)))


def _names_with_several(report: Report) -> set[str]:
    """Figures that one candidate has at several batch sizes."""
    names = set()
    for candidate in report.candidates:
        all_names = [m.name for m in candidate.measurements]
        names |= {name for name in all_names if all_names.count(name) > 1}
    return names


def _batch(measurement: Measurement, several: set[str]) -> str:
    return str(measurement.conditions.get("batch", "")) if measurement.name in several else ""


def _cell(candidate: Candidate, column: Column) -> Cell:
    of_name = [m for m in candidate.measurements if m.name == column.name]
    found = next((m for m in of_name if not column.batch or str(m.conditions.get("batch", "")) == column.batch), None)
    if found is not None and found.value is not None:
        return Cell(kind="value", text=value_text(found), interval=interval_text(found), measurement=found)
    if found is None and candidate.role == "reference" and column.name in _AGAINST_FP32:
        return Cell(kind="reference", text="reference")
    return Cell(kind="missing", text=MISSING, measurement=found)
