"""The report as one HTML file: no script, no request, nothing from outside taken as markup."""

from __future__ import annotations

import json

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeopt.bundle.document import Report
from edgeopt.core.events import EventKind
from edgeopt.report.accuracy import (
    METRIC_HEADS,
    SLICE_HEADS,
    flip_words,
    metric_rows,
    reliability_plot,
    slice_rows,
    worst_slice,
)
from edgeopt.report.coverage import COVERAGE_HEADS, coverage_lines, coverage_rows
from edgeopt.report.findings import (
    STATUS_WORDS,
    device_notes,
    findings,
    next_verb,
    not_measured,
    parity_figures,
    parity_summary,
    stage_groups,
    stand_ins,
    verdict_words,
)
from edgeopt.report.format import conditions_text, figure, label, limit_text, plain, plain_block
from edgeopt.report.ladder import RUNG_HEADS, rung_lines
from edgeopt.report.numerics import numerics_table
from edgeopt.report.plots import Plot, all_plots, style_of
from edgeopt.report.pruning import curve_plots, pinned_table, pruned_table, pruned_words, search_words
from edgeopt.report.roofline import ROOFLINE_HEADS, roofline_lines, roofline_notes, roofline_rows, roofline_svg
from edgeopt.report.rung_plot import rung_plot
from edgeopt.report.sensitivity import mixed_plots
from edgeopt.report.summary import key_figures, layer_summary
from edgeopt.report.table import comparison
from edgeopt.report.training import training_plots
from edgeopt.report.trials import TRIAL_CAPTION, TRIAL_HEADS, trial_lines
from edgeopt.report.waterfall import waterfall_table
from edgeopt.report.waterfall_plot import waterfall_plot

__all__ = ["to_html"]

# The other intervals are in the cell's hover text.
_WITH_INTERVAL = ("accuracy_top1_pct", "drop_pp", "latency_p50_ms", "latency_ratio")
_EVENTS: tuple[tuple[str, EventKind], ...] = (("Fell back", "fallback"), ("Warnings", "warning"), ("Notes", "note"))


def to_html(report: Report) -> str:
    """The whole report as a self-contained page; equal reports give equal bytes."""
    environment = Environment(
        loader=PackageLoader("edgeopt.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        next_verb=next_verb,
        plain=plain,
        figure=figure,
        label=label,
        limit_text=limit_text,
        conditions_text=conditions_text,
        parity_figures=parity_figures,
    )
    shipped = report.shipped
    reliability = reliability_plot(report)
    groups = stage_groups(report)
    page = environment.get_template("report.html.j2").render(
        report=report,
        shipped=shipped,
        keys=key_figures(report),
        table=comparison(report),
        plots=(
            *all_plots(report),
            *([reliability] if reliability else []),
            *training_plots(report),
            *curve_plots(report),
            *mixed_plots(report),
            *_roofline(report),
        ),
        rung_heads=RUNG_HEADS,
        trial_heads=TRIAL_HEADS,
        trial_caption=TRIAL_CAPTION,
        trials=trial_lines(report),
        rungs=rung_lines(report),
        rung_plot=rung_plot(report),
        numerics=numerics_table(report.numerics) if report.numerics else None,
        waterfall=waterfall_table(report),
        waterfall_plot=waterfall_plot(report),
        searches=[search_words(section) for section in report.pruning],
        pruned=[(pruned_words(step), pruned_table(step), pinned_table(step)) for step in report.pruned],
        metric_heads=METRIC_HEADS,
        metrics=metric_rows(report),
        slice_heads=SLICE_HEADS,
        slices=slice_rows(report),
        worst_slice=worst_slice(report),
        flip_words=flip_words(report),
        coverage=coverage_lines(report),
        coverage_heads=COVERAGE_HEADS,
        coverage_outside=coverage_rows(shipped.coverage) if shipped.coverage else (),
        coverage_all=coverage_rows(shipped.coverage, shipped.coverage.ops) if shipped.coverage else (),
        missing=not_measured(report),
        stand_ins=stand_ins(report),
        verdict_words=verdict_words(report),
        device_notes=device_notes(report),
        with_interval=_WITH_INTERVAL,
        events=[(title, found) for title, kind in _EVENTS if (found := findings(report, kind)) or kind == "fallback"],
        parity_summary=parity_summary(report),
        layer_summary=layer_summary(report),
        status_words=STATUS_WORDS,
        groups=groups,
        longest=max((group.seconds for group in groups), default=0.0) or 1.0,
        total_s=sum(group.seconds for group in groups),
        recipe=plain_block(json.dumps(report.recipe, indent=2, ensure_ascii=False)),
        styles={candidate.id: style_of(report, candidate) for candidate in report.candidates},
    )
    return "\n".join(line.rstrip() for line in page.splitlines()) + "\n"


def _roofline(report: Report) -> tuple[Plot, ...]:
    found = report.roofline
    if found is None:
        return ()
    return (
        Plot(
            key="roofline",
            title="Against the machine's peaks",
            caption=" ".join((*roofline_lines(found), *roofline_notes(found))),
            svg=roofline_svg(found),
            heads=ROOFLINE_HEADS,
            rows=roofline_rows(found),
        ),
    )
