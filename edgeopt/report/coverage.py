"""What an engine really runs in int8, in words and rows that every renderer shares."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgeopt.bundle.coverage import CoverageRow, CoverageSection
from edgeopt.bundle.document import Candidate, Report
from edgeopt.report.format import MISSING, plain

__all__ = ["COVERAGE_HEADS", "coverage_json", "coverage_lines", "coverage_rows", "coverage_words", "outside_lines"]

COVERAGE_HEADS = ("operation", "", "MACs, %", "runs in", "why", "what would help")
_NONE = "–"


def coverage_words(candidate: Candidate) -> str:
    """``98.2 % of the MACs, 48 of 49 operations run in int8; read from …``; empty where there is nothing to tell."""
    section = candidate.coverage
    if section is None or not section.ops:
        return ""
    inside = len(section.ops) - len(section.outside)
    figure = candidate.figure("int8_macs_pct")
    if figure is None or figure.value is None:
        share = f"MACs in int8 {MISSING}: {figure.reason if figure else 'no figure'}; "
    else:
        share = f"{_percent(figure.value)} % of the MACs, "
    where = f"read from {section.how}"
    if section.proxy:
        where += ", a stand-in: what will run it has not told"
    return plain(f"{share}{inside} of {len(section.ops)} operations run in int8; {where}.")


def coverage_lines(report: Report) -> tuple[str, ...]:
    """One line per candidate that has a coverage, the shipped one first."""
    told = sorted((c for c in report.candidates if coverage_words(c)), key=lambda c: not c.shipped)
    return tuple(f"{plain(candidate.id)}: {coverage_words(candidate)}" for candidate in told)


def outside_lines(section: CoverageSection | None) -> tuple[str, ...]:
    """One line per operation outside of int8, the largest first."""
    if section is None:
        return ()
    lines = []
    for row in section.outside:
        amount = "" if not _share(section, row) else f", {_share(section, row)} % of the MACs"
        fix = f" {row.fix}" if row.fix else ""
        lines.append(plain(f"{row.op} {row.name}{amount}, {_runs_in(row)}: {row.cause}{fix}"))
    return tuple(lines)


def coverage_rows(section: CoverageSection, rows: Sequence[CoverageRow] | None = None) -> tuple[tuple[str, ...], ...]:
    """Cells under ``COVERAGE_HEADS``; of ``rows``, or of everything outside of int8."""
    return tuple(
        (
            plain(row.name),
            plain(row.op),
            _share(section, row) or _NONE,
            plain(_runs_in(row)),
            plain(row.cause) or _NONE,
            plain(row.fix) or _NONE,
        )
        for row in (section.outside if rows is None else rows)
    )


def coverage_json(report: Report) -> str:
    """The shipped candidate's coverage with its figures, as JSON."""
    shipped = report.shipped
    figures = {name: shipped.figure(name) for name in ("int8_macs_pct", "int8_ops_pct")}
    document = {
        "candidate": shipped.id,
        **{name: None if figure is None else figure.value for name, figure in figures.items()},
        "reasons": [figure.reason for figure in figures.values() if figure is not None and figure.reason],
        "coverage": None if shipped.coverage is None else shipped.coverage.model_dump(mode="json"),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _runs_in(row: CoverageRow) -> str:
    where = f" on {row.where}" if row.where else ""
    return f"{row.runs_in}{where}" if row.runs_in else "not told"


def _share(section: CoverageSection, row: CoverageRow) -> str:
    share = section.share_pct(row)
    return "" if share is None else _percent(share)


def _percent(value: float) -> str:
    """Two decimals, and never 100 where something is missing, nor 0 where something is there."""
    if 99.995 <= value < 100:
        return "99.99"
    return "0.01" if 0 < value < 0.005 else f"{value:.2f}"
