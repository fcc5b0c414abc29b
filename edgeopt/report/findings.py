"""What the document says many times over, said once: what is missing, what fell back, whether it is right, how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeopt.bundle.document import Candidate, ParityRow, Report
from edgeopt.core.engine import CONVERTED
from edgeopt.core.events import Event, EventKind
from edgeopt.report.format import MISSING, figure, label, limit_text, plain

__all__ = [
    "STATUS_WORDS",
    "Finding",
    "StageGroup",
    "device_notes",
    "findings",
    "limit_lines",
    "next_verb",
    "not_measured",
    "parity_figures",
    "parity_summary",
    "stage_groups",
    "stand_ins",
    "verdict_words",
]

STATUS_WORDS = {"measured": "", "not_built": "not built", "not_measured": MISSING, "failed": "failed"}
_NODES_SHOWN = 8
# First word of a stage's name → what a reader calls it.
_STAGES = {"load": "load", "read": "data", "run": "compare", "write": "write"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Equal events together.

    Attributes:
        candidates: Whom it happened to; empty where it concerns the whole run.
        nodes: Every node concerned.
    """

    candidates: tuple[str, ...]
    stage: str
    nodes: tuple[str, ...]
    message: str

    @property
    def text(self) -> str:
        """One line: where, what."""
        place = [", ".join(self.candidates), self.stage]
        if len(self.nodes) > 1:
            more = f", … {len(self.nodes) - _NODES_SHOWN} more" if len(self.nodes) > _NODES_SHOWN else ""
            place.append(f"{len(self.nodes)} nodes ({', '.join(self.nodes[:_NODES_SHOWN])}{more})")
        else:
            place += self.nodes
        return plain(f"{' · '.join(part for part in place if part)}: {self.message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageGroup:
    """Stages of one kind: how long in all, and whether every one was found in the cache."""

    name: str
    seconds: float
    cached: bool


def next_verb(candidate: Candidate) -> str:
    """What a candidate's ``next_command`` does."""
    return "run" if candidate.reason.startswith(CONVERTED) else "build"


def device_notes(report: Report) -> tuple[str, ...]:
    """What to know when the engine is built on its device."""
    waiting = [c for c in report.candidates if c.next_command and c.status == "not_built"]
    return tuple(dict.fromkeys(plain(e.message) for c in waiting for e in c.events if e.kind == "note"))


def findings(report: Report, kind: EventKind) -> tuple[Finding, ...]:
    """Every event of this kind, of the run and of its candidates: each node once, equal messages together.

    What ``device_notes`` says is left to it.
    """
    elsewhere = set(device_notes(report))
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for candidate, events in _by_candidate(report):
        grouped: dict[tuple[str, str], list[str]] = {}
        seen: set[str] = set()
        for event in events:
            node = _node(event)
            # Of a node that the dialect and the runtime both leave in float the first says why.
            if event.kind != kind or node in seen or plain(event.message) in elsewhere:
                continue
            nodes = grouped.setdefault((event.stage, event.message), [])
            if node:
                seen.add(node)
                nodes.append(node)
        for (stage, message), nodes in grouped.items():
            found.setdefault((stage, message, tuple(nodes)), []).extend([candidate] if candidate else [])
    return tuple(
        Finding(candidates=tuple(whose), stage=stage, nodes=nodes, message=message)
        for (stage, message, nodes), whose in found.items()
    )


def not_measured(report: Report) -> tuple[tuple[str, str], ...]:
    """What has no figure, and why: equal reasons together, and none that the headline already gave."""
    said = "\n".join(report.headline)
    rows: dict[tuple[str, str], list[str]] = {}
    of_figures = set()
    for candidate in report.candidates:
        names: dict[str, list[str]] = {}
        for measurement in candidate.measurements:
            if measurement.value is None:
                names.setdefault(measurement.reason or "", []).append(label(measurement.name))
        of_figures |= set(names)
        for reason, of_reason in names.items():
            rows.setdefault((", ".join(dict.fromkeys(of_reason)), reason), []).append(candidate.id)
    statuses: dict[tuple[str, str], list[str]] = {}
    for candidate in report.candidates:
        known = candidate.reason in of_figures or candidate.reason.rstrip(".") in said
        if candidate.status == "failed" or (candidate.status != "measured" and not known):
            statuses.setdefault((STATUS_WORDS[candidate.status], candidate.reason), []).append(candidate.id)
    lines = [(", ".join(whose), f"{status}: {reason}") for (status, reason), whose in statuses.items()]
    for (names_text, reason), whose in rows.items():
        everyone = len(whose) == len(report.candidates)
        here = "the target is not here" if reason == report.target.reason and reason.rstrip(".") in said else reason
        lines.append((names_text if everyone else f"{names_text} of {', '.join(whose)}", here))
    if not report.target.measured_here and report.target.reason not in of_figures | {
        c.reason for c in report.candidates
    }:
        lines.append(("the target itself", report.target.reason))
    return tuple((plain(who), plain(why)) for who, why in lines)


def stand_ins(report: Report) -> tuple[str, ...]:
    """Whose accuracy is not that of the engine itself on the target: what ran in its place, and where."""
    found: dict[str, list[str]] = {}
    for candidate in report.candidates:
        accuracy = candidate.figure("accuracy_top1_pct") or candidate.figure("agreement_pct")
        if accuracy is None or accuracy.value is None:
            continue
        ran = accuracy.conditions.get("runtime")
        if ran is not None and ran != candidate.runtime:
            found.setdefault(f"{ran}, on {accuracy.device}", []).append(candidate.id)
        elif not report.target.measured_here:
            found.setdefault(f"the same engine on {accuracy.device}", []).append(candidate.id)
    lines = []
    for what, who in found.items():
        whose = "" if len(who) == len(report.candidates) else f" of {', '.join(who)}"
        lines.append(plain(f"Accuracy{whose} is that of {what}."))
    return tuple(lines)


def verdict_words(report: Report) -> str:
    """How many limits hold; what of each is said by ``limit_lines``."""
    rows = report.verdict.limits
    held = sum(row.status == "PASS" for row in rows)
    return f"{held} of {len(rows)} limits hold." if rows else plain(report.verdict.summary)


def limit_lines(report: Report) -> tuple[tuple[str, str], ...]:
    """Status and words of each limit; where there is none, of the verdict."""
    verdict = report.verdict
    if not verdict.limits:
        return ((verdict.status, plain(verdict.summary)),)
    return tuple(
        (row.status, f"{limit_text(row)}: {figure(row.figure)}. {plain(row.message)}") for row in verdict.limits
    )


def parity_summary(report: Report) -> str:
    """``12 of 12 comparisons hold; the furthest: …``."""
    rows = report.parity
    if not rows:
        return ""
    held = sum(row.passed for row in rows)
    worst = min(rows, key=_sqnr)
    worst = worst.model_copy(update={"figures": tuple(m for m in worst.figures if m.value is not None)})
    return (
        f"{held} of {len(rows)} comparisons hold. The furthest: {plain(worst.stage)} from {plain(worst.against)}: "
        f"{parity_figures(worst)} (asked for: {plain(worst.tolerance)})."
    )


def parity_figures(row: ParityRow) -> str:
    """All figures of a comparison in one line."""
    return ", ".join(f"{label(m.name)} {figure(m)}" for m in row.figures)


def stage_groups(report: Report) -> tuple[StageGroup, ...]:
    """The stages by kind, the longest first."""
    groups: dict[str, list[tuple[float, bool]]] = {}
    for stage in report.stages:
        first = plain(stage.name).split(" ", 1)[0]
        groups.setdefault(_STAGES.get(first, first), []).append((stage.wall.value or 0.0, stage.cached))
    made = [
        StageGroup(name=name, seconds=sum(s for s, _ in rows), cached=all(cached for _, cached in rows))
        for name, rows in groups.items()
    ]
    return tuple(sorted(made, key=lambda group: -group.seconds))


def _by_candidate(report: Report) -> Iterable[tuple[str, Sequence[Event]]]:
    yield "", report.events
    for candidate in report.candidates:
        yield candidate.id, candidate.events


def _node(event: Event) -> str:
    """The node's name as the graph has it: a runtime may put its operator before it, ``Conv:conv2d_6``."""
    return (event.node or "").rsplit(":", 1)[-1]


def _sqnr(row: ParityRow) -> float:
    found = next((m.value for m in row.figures if m.name == "sqnr_db" and m.value is not None), None)
    return float("inf") if found is None else found
