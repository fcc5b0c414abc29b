"""The report as Markdown, for pull requests and wikis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from edgeopt.bundle.document import Candidate, Report
from edgeopt.report.accuracy import (
    FLIP_HEADS,
    METRIC_HEADS,
    SLICE_HEADS,
    flip_rows,
    flip_words,
    metric_rows,
    slice_rows,
    worst_slice,
)
from edgeopt.report.coverage import COVERAGE_HEADS, coverage_lines, coverage_rows
from edgeopt.report.escape import markdown_text as _text
from edgeopt.report.findings import (
    STATUS_WORDS,
    device_notes,
    findings,
    next_verb,
    not_measured,
    parity_figures,
    parity_summary,
    stand_ins,
    verdict_words,
)
from edgeopt.report.format import conditions_text, figure, limit_text, plain, plain_block
from edgeopt.report.ladder import RUNG_HEADS, rung_lines
from edgeopt.report.numerics import numerics_table
from edgeopt.report.pruning import curve_table, pinned_table, pruned_table, pruned_words, search_words
from edgeopt.report.roofline import ROOFLINE_HEADS, roofline_lines, roofline_notes, roofline_rows
from edgeopt.report.sensitivity import front_table, table
from edgeopt.report.summary import layer_summary, measured_on, worst_first
from edgeopt.report.table import Cell, comparison
from edgeopt.report.training import epoch_table, training_words
from edgeopt.report.trials import TRIAL_CAPTION, TRIAL_HEADS, trial_lines
from edgeopt.report.waterfall import waterfall_table

__all__ = ["to_markdown"]

_LONG = 40


def to_markdown(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown; nothing from outside is taken as markup."""
    blocks = [
        f"# {_text(report.model.name)} → {_text(report.target.name)}",
        f"**{report.verdict.status}**"
        + ("" if len(report.verdict.limits) == 1 else f": {_text(verdict_words(report))}"),
        _bullets(_text(line) for line in report.headline),
        *_section("Limits", _limits(report)),
        *_section("Ladder", _ladder(report)),
        *_section("Waterfall", _waterfall(report)),
        *_section("Candidates", _candidates(report)),
        *_section("In int8", _coverage(report)),
        *_section("Not measured", _not_measured(report)),
        *_section("On the device", _next(report)),
        *_section("Fell back", _bullets(_text(finding.text) for finding in findings(report, "fallback"))),
        *_section("Warnings", _bullets(_text(finding.text) for finding in findings(report, "warning"))),
        *_section("Notes", _bullets(_text(finding.text) for finding in findings(report, "note"))),
        *_section("Is it right", _parity(report)),
        *_section("Other instruction sets", _numerics(report)),
        *_section("Layers", _layers(report)),
        *_section("Against the machine's peaks", _roofline(report)),
        *_section("What each technique brought", _trials(report)),
        *_section("Pruning", _pruning(report)),
        *_section("Mixed precision", _mixed(report)),
        *_section("Training", _training(report)),
        *_section("Accuracy", _accuracy(report)),
        *_section("Classes", _classes(report)),
        *_section("Data", _data(report)),
        *_section("Measured on", _device(report)),
        *_section("Stages", _stages(report)),
        *_section("How to make it again", _again(report)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(title: str, body: str) -> tuple[str, ...]:
    return (f"## {title}", body) if body else ()


def _limits(report: Report) -> str:
    rows = [(limit_text(r), figure(r.figure), r.status, plain(r.message)) for r in report.verdict.limits]
    return _table(("limit", "measured", "", "why"), rows) if rows else ""


def _ladder(report: Report) -> str:
    lines = rung_lines(report)
    if not lines or report.ladder is None:
        return ""
    table = _table(RUNG_HEADS, [line.cells for line in lines], numbers_from=2)
    notes = _bullets(f"{_text(line.name)}: {_text(line.message)}" for line in lines if line.message)
    return "\n\n".join(part for part in (_text(report.ladder.summary), table, notes) if part)


def _waterfall(report: Report) -> str:
    table = waterfall_table(report)
    return "" if table is None else f"{_table(table.heads, table.rows, numbers_from=2)}\n\n{_text(table.caption)}"


def _candidates(report: Report) -> str:
    table = comparison(report, detail=True)
    heads = ("candidate", *(column.heading for column in table.columns))
    rows = [(_name(row.candidate), *(_cell(cell) for cell in row.cells)) for row in table.rows]
    legend = f"★ shipped (objective: {_text(report.objective)}). [low, high]: 95 % interval."
    notes = " ".join(_text(line) for line in stand_ins(report))
    return "\n\n".join(part for part in (_table(heads, rows, numbers_from=1), legend, notes) if part)


def _name(candidate: Candidate) -> str:
    star = "★ " if candidate.shipped else ""
    status = f" ({STATUS_WORDS[candidate.status]})" if candidate.status != "measured" else ""
    return f"{star}{plain(candidate.id)}{status}"


def _cell(cell: Cell) -> str:
    if cell.kind == "missing":
        return "–"
    return f"{cell.text} {cell.interval}".strip()


def _coverage(report: Report) -> str:
    lines, section = coverage_lines(report), report.shipped.coverage
    rows = coverage_rows(section) if section is not None else ()
    table = _folded(COVERAGE_HEADS, rows) if rows else ""
    return "\n\n".join(part for part in (_bullets(map(_text, lines)), table) if part)


def _roofline(report: Report) -> str:
    found = report.roofline
    if found is None:
        return ""
    notes = _bullets(_text(line) for line in (*roofline_lines(found), *roofline_notes(found)))
    return f"{notes}\n\n{_folded(ROOFLINE_HEADS, roofline_rows(found))}"


def _not_measured(report: Report) -> str:
    return _bullets(f"{_text(who)}: {_text(why)}" for who, why in not_measured(report))


def _next(report: Report) -> str:
    commands = [
        f"To {next_verb(c)} {_text(c.id)}, in the bundle's folder, copied to the device: {_code(c.next_command)}"
        for c in report.candidates
        if c.next_command
    ]
    return _bullets([*commands, *map(_text, device_notes(report))])


def _parity(report: Report) -> str:
    rows = [
        (
            plain(row.stage),
            plain(row.against),
            parity_figures(row),
            plain(row.tolerance),
            "PASS" if row.passed else "FAIL",
        )
        for row in report.parity
    ]
    if not rows:
        return ""
    table = _table(("stage", "against", "figures", "tolerance", ""), rows)
    return f"{_text(parity_summary(report))}\n\n{table}"


def _numerics(report: Report) -> str:
    if report.numerics is None:
        return ""
    table = numerics_table(report.numerics)
    notes = _bullets(map(_text, table.notes))
    return "\n\n".join(part for part in (_text(table.caption), _table(table.heads, table.rows), notes) if part)


def _layers(report: Report) -> str:
    if not report.layers:
        return ""
    rows = [
        (plain(r.name), plain(r.op), plain(r.precision), figure(r.sqnr), plain(r.reason)) for r in worst_first(report)
    ]
    return _text(layer_summary(report)) + "\n\n" + _folded(("layer", "op", "precision", "SQNR", "why"), rows)


def _accuracy(report: Report) -> str:
    metrics, slices, flips = metric_rows(report), slice_rows(report), flip_rows(report.shipped.flips)
    parts = [
        _table(METRIC_HEADS, metrics, numbers_from=1) if metrics else "",
        _text(worst_slice(report)),
        _folded(SLICE_HEADS, slices) if slices else "",
        _text(flip_words(report)),
        _folded(FLIP_HEADS, flips) if flips else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _classes(report: Report) -> str:
    shipped = report.shipped
    rows = [(plain(r.label), str(r.samples), figure(r.accuracy), figure(r.drop)) for r in shipped.classes]
    return _folded(("class", "samples", "accuracy", "drop"), rows) if rows else ""


def _trials(report: Report) -> str:
    lines = trial_lines(report)
    return f"{TRIAL_CAPTION}\n\n{_table(TRIAL_HEADS, lines, numbers_from=2)}" if lines else ""


def _pruning(report: Report) -> str:
    parts: list[str] = []
    for section in report.pruning:
        parts += [_text(search_words(section)), _folded(*curve_table(section))]
    for step in report.pruned:
        parts += [_text(pruned_words(step)), _folded(*pruned_table(step))]
        parts += [_folded(*pinned_table(step))] if step.pinned else []
    return "\n\n".join(parts)


def _mixed(report: Report) -> str:
    parts: list[str] = []
    for section in report.mixed:
        parts += [_text(section.summary), _folded(*table(section)), _folded(*front_table(section))]
    return "\n\n".join(parts)


def _training(report: Report) -> str:
    parts = []
    for section in report.training:
        heads, rows = epoch_table(section)
        parts += [_text(training_words(section)), _folded(heads, rows)]
    return "\n\n".join(parts)


def _data(report: Report) -> str:
    if report.data is None:
        return "No data was given: nothing was calibrated, and accuracy was not measured."
    head = f"{_text(report.data.name)}, {_text(report.data.task)}, fingerprint {_code(report.data.fingerprint[:16])}"
    if report.data.columns:
        head += f", told apart by {_text(', '.join(report.data.columns))}"
    rows = [(plain(s.name), f"{s.samples:,}", plain(s.how), s.fingerprint[:16]) for s in report.data.splits]
    return head + "\n\n" + _table(("split", "samples", "how", "fingerprint"), rows)


def _device(report: Report) -> str:
    lines = [_text(measured_on(report)), f"Instruction set: {_text(', '.join(report.device.isa)) or 'not known'}"]
    lines += [f"{_text(name)}: {_text(value)}" for name, value in report.device.conditions.items()]
    lines.append(f"Target {_text(report.target.name)}: {_text(report.target.reason)}")
    p50 = report.shipped.figure("latency_p50_ms")
    if p50 is not None and p50.conditions:
        lines.append(f"Latency: {_text(conditions_text(p50))}, n {p50.n}")
    return _bullets(lines)


def _stages(report: Report) -> str:
    rows = [(plain(s.name), figure(s.wall), "cached" if s.cached else "") for s in report.stages]
    return _table(("stage", "wall time", ""), rows) if rows else ""


def _again(report: Report) -> str:
    recipe = plain_block(json.dumps(report.recipe, indent=2, ensure_ascii=False))
    fence = _fence(recipe + report.command)
    versions = f"edgeopt {_text(report.edgeopt_version)}, seed {report.seed}, {_text(report.created)}"
    model = f"{_text(report.model.name)} ({_text(report.model.format)}), {report.model.parameters:,} parameters"
    return (
        f"{fence}sh\n{plain(report.command)}\n{fence}\n\n{versions}; model {model}, "
        f"sha256 {_code(report.model.sha256)}\n\n{fence}json\n{recipe}\n{fence}"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    align = ["---:" if numbers_from is not None and i >= numbers_from else "---" for i in range(len(heads))]
    lines = [heads, *rows]
    text = [f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines]
    return "\n".join([text[0], f"| {' | '.join(align)} |", *text[1:]])


def _folded(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a long one is folded away."""
    table = _table(heads, rows)
    return table if len(rows) <= _LONG else f"<details><summary>{len(rows)} rows</summary>\n\n{table}\n\n</details>"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(text: str) -> str:
    """Text in a code span that it cannot end."""
    fence = _fence(text, least=1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{plain(text)}{pad}{fence}"


def _fence(text: str, least: int = 3) -> str:
    """Backticks, one more than the longest run of them in the text."""
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
    return "`" * max(least, longest + 1)
