"""What every rendering of a gate says in the same words."""

from __future__ import annotations

from edgeopt.bundle.gate import GateResult, GateRow, GateSubject
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import figure, plain, unit_text

__all__ = ["figure_words", "headline_words", "limit_words", "subject_words"]


def headline_words(result: GateResult) -> str:
    """``int8 → INCONCLUSIVE (2 of 5 limits)``, and what that means for the exit code where it is not plain."""
    telling = sum(row.status == result.status for row in result.rows)
    count = f"{telling} of {len(result.rows)} limits"
    passed = ", let pass" if result.status == "INCONCLUSIVE" and result.exit_code == 0 else ""
    return plain(f"{result.bundle.name}: {result.status} ({count}{passed})")


def limit_words(row: GateRow) -> str:
    """``baseline.drop_pp ≤ 0.5 pp``."""
    unit = "" if row.figure.unit == "1" else f" {unit_text(row.figure)}"
    return plain(f"{row.id} {'≤' if row.at_most else '≥'} {row.limit:g}{unit}")


def figure_words(row: GateRow) -> str:
    """The figure with its interval; of slices with the slice."""
    shown: Measurement = row.figure
    where = shown.conditions.get("slice")
    return figure(shown) + (f" in {plain(str(where))}" if where else "")


def subject_words(subject: GateSubject) -> str:
    """What it is, in one line."""
    samples = f", {subject.samples:,} test samples" if subject.samples is not None else ""
    return plain(
        f"{subject.kind} {subject.name}: {subject.model}, {subject.precision} on {subject.runtime} "
        f"{subject.runtime_version} for {subject.target}, recipe {subject.recipe}, compiled {subject.created}{samples}"
    )
