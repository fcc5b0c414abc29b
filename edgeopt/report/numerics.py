"""An engine on other instruction sets, beside this machine: a table for the report, and documents of its own."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.bundle.numerics import NumericsRow, NumericsSection
from edgeopt.report.escape import markdown_table, markdown_text
from edgeopt.report.format import figure, label, plain
from edgeopt.report.page import bullet_list, plain_page, plain_table

__all__ = ["NumericsTable", "numerics_html", "numerics_json", "numerics_markdown", "numerics_table"]

TITLE = "Other instruction sets"
_NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsTable:
    """The devices as rows of text.

    Attributes:
        caption: What was compared, on how much, and how to read it.
        rows: One text per head, this machine first.
        specs: The devices as they were asked for, shorter than their names.
        notes: Why a device has no figures, and what an emulated one's do not say.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    specs: tuple[str, ...]
    notes: tuple[str, ...]


def numerics_table(section: NumericsSection) -> NumericsTable:
    """The section as text; columns that have no figure in any row are left out."""
    every = (section.host, *section.rows)
    primary = next((m for m in section.host.figures if m.value is not None), None)
    in_steps = any(output.steps is not None for row in every for output in row.outputs)
    columns = [
        ("device", [plain(row.name) for row in every]),
        ("outputs that differ", [_differing(row) for row in every]),
        (f"largest difference, {'steps' if in_steps else 'of the range'}", [_largest(row) for row in every]),
        ("changed predictions", [_changed(row) for row in every]),
        (label(primary.name) if primary else "", [_figure(row, primary.name if primary else "") for row in every]),
        ("agreement", [_figure(row, "agreement_pct") for row in every]),
        ("", [_word(row) for row in every]),
    ]
    kept = [(head, cells) for head, cells in columns if any(cell != _NONE for cell in cells)]
    counted = f"{section.samples:,}" + (f" of {section.of:,}" if section.of > section.samples else "")
    caption = (
        f"{plain(section.engine)} {plain(section.host.runtime_version)} on {counted} samples of the {section.split} split "
        f"({plain(section.data)}), compared with {plain(section.host.name)}. Normal: {section.expected}."
    )
    return NumericsTable(
        caption=caption,
        heads=tuple(head for head, _ in kept),
        rows=tuple(zip(*(cells for _, cells in kept), strict=True)),
        specs=tuple(plain(row.spec) for row in every),
        notes=tuple(_notes(section)),
    )


def numerics_markdown(section: NumericsSection) -> str:
    """GitHub-flavoured Markdown; nothing from outside is taken as markup."""
    table = numerics_table(section)
    rows = [[markdown_text(cell) for cell in row] for row in table.rows]
    blocks = [f"# {TITLE}", markdown_text(table.caption), markdown_table(table.heads, rows)]
    if table.notes:
        blocks.append("\n".join(f"- {markdown_text(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def numerics_html(section: NumericsSection) -> str:
    """One file that loads nothing; everything from outside is escaped."""
    table = numerics_table(section)
    parts = [
        Markup("<h1>{}</h1>").format(TITLE),
        Markup("<p>{}</p>").format(table.caption),
        plain_table(table.heads, table.rows),
        *([bullet_list(table.notes)] if table.notes else []),
    ]
    return plain_page(TITLE, parts)


def numerics_json(section: NumericsSection) -> str:
    """The section as ``report.json`` holds it."""
    return section.model_dump_json(indent=2) + "\n"


def _differing(row: NumericsRow) -> str:
    values = sum(output.values for output in row.outputs)
    if not values:
        return _NONE
    count = sum(output.differing for output in row.outputs)
    share = f" ({100 * count / values:.1f} %)" if count else ""
    return f"{count:,} of {values:,}{share}"


def _largest(row: NumericsRow) -> str:
    worst = row.worst
    if worst is None:
        return _NONE
    if worst.relative is None:
        return "not a number"
    if worst.relative == 0:
        return "0"
    which = f" ({plain(worst.name)})" if len(row.outputs) > 1 else ""
    if worst.steps is not None:
        return f"{worst.steps:.3g}{which}"
    return f"{worst.relative:.2g}{which}"


def _changed(row: NumericsRow) -> str:
    counts = [output.changed_predictions for output in row.outputs if output.changed_predictions is not None]
    return str(sum(counts)) if counts else _NONE


def _figure(row: NumericsRow, name: str) -> str:
    found = row.figure(name)
    return figure(found) if found is not None and found.value is not None else _NONE


def _word(row: NumericsRow) -> str:
    if row.error:
        return "not run"
    if row.within is None:
        return _NONE
    return "inside" if row.within else "OUTSIDE"


def _notes(section: NumericsSection) -> list[str]:
    notes = [plain(f"{row.name} was not run: {row.error}") for row in section.rows if row.error]
    outside = [row.name for row in section.rows if row.within is False]
    if outside:
        notes.append(plain(f"OUTSIDE of what is normal between two correct CPUs: {', '.join(outside)}."))
    whys = {row.numerics_only for row in section.rows if row.numerics_only}
    notes += [plain(f"Numerics only: {why}. Latency was not measured there.") for why in sorted(whys)]
    return notes
