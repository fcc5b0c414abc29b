"""What ``edgeopt inspect BUNDLE`` shows: what it is, how to feed it, what was found, what is in it."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.layout import REPORT_HTML
from edgeopt.bundle.load import Bundle
from edgeopt.bundle.manifest import DataRecord, InputRecord, Manifest, OutputRecord
from edgeopt.report.coverage import COVERAGE_HEADS, coverage_rows
from edgeopt.report.findings import not_measured
from edgeopt.report.format import bytes_text, plain
from edgeopt.report.terminal import (
    bullet,
    indented,
    key_values,
    render_candidates,
    render_coverage,
    render_next,
    render_verdict,
    section,
)

__all__ = ["render_bundle", "render_bundle_coverage"]

_CLASSES_SHOWN = 12
_OUTSIDE_SHOWN = 8


def render_bundle(bundle: Bundle, console: Console) -> None:
    """Print a bundle: identity, engine, contract, findings with the comparison, files."""
    manifest, report = bundle.manifest, bundle.report
    console.print(Text(plain(str(bundle.directory)), style="bold"), soft_wrap=True)
    console.print(key_values(_identity(manifest)))
    console.print(section("Engine"))
    console.print(key_values(_engine(manifest)))
    console.print(section("Contract"))
    console.print(_contract(manifest))
    console.print(section("Findings"))
    for line in report.headline:
        console.print(bullet(plain(line)))
    render_verdict(report, console)
    render_candidates(report, console)
    render_coverage(report, console, most=_OUTSIDE_SHOWN)
    _print_missing(bundle, console)
    render_next(report, console, bundle.directory)
    console.print(section("Files"))
    files = [(plain(name), bytes_text(record.bytes)) for name, record in sorted(manifest.files.items())]
    console.print(key_values(files))
    total = bytes_text(sum(record.bytes for record in manifest.files.values()))
    console.print(indented(f"{len(files)} files, {total}; `edgeopt verify` checks their hashes.", "dim"))
    console.print()
    console.print(Text(f"The whole report: {plain(str(bundle.directory / REPORT_HTML))}", style="dim"), soft_wrap=True)


def render_bundle_coverage(bundle: Bundle, console: Console) -> None:
    """Print what the shipped engine runs in int8: every operation, and why the rest is outside."""
    section = bundle.report.shipped.coverage
    if section is None:
        figure = bundle.report.shipped.figure("int8_macs_pct")
        planned = (
            "" if figure is None or figure.value is None else f" The graph plans {figure.value:.2f} % of the MACs."
        )
        console.print(
            Text(f"Nothing of {plain(bundle.report.shipped.id)} is known to run in int8: no runtime told.{planned}")
        )
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in COVERAGE_HEADS[:4]:
        table.add_column(title, overflow="fold", justify="right" if title.endswith("%") else "left")
    for cells in coverage_rows(section, section.ops):
        table.add_row(*map(Text, cells[:4]))
    console.print(table)
    render_coverage(bundle.report, console)


def _print_missing(bundle: Bundle, console: Console) -> None:
    missing = not_measured(bundle.report)
    if missing:
        console.print(section("Not measured"))
    for who, why in missing:
        console.print(bullet(f"{who}: {why}"))


def _identity(manifest: Manifest) -> list[tuple[str, str]]:
    model = f"{manifest.model.name} ({manifest.model.format}, sha256 {manifest.model.sha256[:16]}…)"
    rows = [
        ("model", model),
        ("target", manifest.target),
        ("recipe", manifest.recipe),
        ("data", _data(manifest.data)),
        ("made", f"{manifest.created} by edgeopt {manifest.edgeopt_version}, Python {manifest.python}"),
        ("command", manifest.command),
        ("seed", str(manifest.seed)),
        ("with", _pairs(manifest.versions)),
    ]
    return [(name, plain(value)) for name, value in rows]


def _data(data: DataRecord | None) -> str:
    if data is None:
        return "none"
    columns = f"columns {', '.join(data.columns)}" if data.columns else ""
    return ", ".join(part for part in (data.name, data.task, columns, f"fingerprint {data.fingerprint[:16]}…") if part)


def _engine(manifest: Manifest) -> list[tuple[str, str]]:
    engine = manifest.engine
    rows = [
        ("runtime", f"{manifest.runtime} {manifest.runtime_version}"),
        ("precision", f"{manifest.precision}, dialect {manifest.dialect}"),
        ("entry", f"engine/{engine.entry}" + ("" if engine.status == "built" else " (not built)")),
        ("batch", "any" if engine.batch is None else f"{engine.batch}, fixed"),
    ]
    if engine.options:
        rows.append(("options", _pairs(engine.options)))
    if manifest.engine.status == "built":
        rows += [
            (event.kind, f"{event.node}: {event.message}" if event.node else event.message) for event in engine.events
        ]
    return [(name, plain(value)) for name, value in rows]


def _contract(manifest: Manifest) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in ("", "name", "type and shape", "meaning"):
        table.add_column(title, overflow="fold")
    for record in manifest.contract.inputs:
        table.add_row("in", Text(plain(record.name)), Text(_type(record)), Text(_meaning(record)))
    for output in manifest.contract.outputs:
        table.add_row("out", Text(plain(output.name)), Text(_type(output)), Text(_classes(manifest.contract.classes)))
    return table


def _type(record: InputRecord | OutputRecord) -> str:
    return plain(f"{record.dtype} [{', '.join(str(dim) for dim in record.shape)}]")


def _meaning(record: InputRecord) -> str:
    parts = [record.layout] if record.layout else []
    if record.value_range is not None:
        parts.append(f"values {record.value_range[0]:.4g} to {record.value_range[1]:.4g}")
    if record.mean is not None and record.std is not None:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (record.mean, record.std))
        parts.append(f"minus mean ({mean}), by std ({std})")
    if record.preprocessing:
        parts.append(record.preprocessing)
    return plain("; ".join(parts)) or "not known"


def _classes(classes: tuple[str, ...]) -> str:
    if not classes:
        return ""
    shown = ", ".join(classes[:_CLASSES_SHOWN]) + (", …" if len(classes) > _CLASSES_SHOWN else "")
    return plain(f"{len(classes)} classes: {shown}")


def _pairs(values: Mapping[str, object]) -> str:
    """Names and values; what is inside a value is written out, and what is empty left out."""
    parts = []
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            parts.append(_pairs(value))
        elif isinstance(value, (list, tuple)):
            parts.append(f"{name} {' '.join(map(str, value))}" if value else "")
        else:
            parts.append(f"{name} {value}")
    return ", ".join(part for part in parts if part)
