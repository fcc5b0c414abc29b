"""An analysis as tables: layers, memory, groups that can lose channels."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.bundle.analysis import Analysis, LayerCost, PruningSection
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import bytes_text, plain

__all__ = [
    "Table",
    "count_text",
    "group_table",
    "layer_table",
    "pinned_table",
    "shown_layers",
    "stay_text",
    "summary_lines",
]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Titles, and rows of as many cells."""


def summary_lines(found: Analysis) -> tuple[str, ...]:
    """What a reader wants to know first, a sentence each."""
    totals, memory = found.totals, found.memory
    per = "at batch 1" if found.batch == 1 else f"at a batch of {found.batch}"
    counts = f"{count_text(totals.macs)} multiply-accumulates per sample, {count_text(totals.parameters)} parameters"
    lines = [f"{counts}, {bytes_text(totals.weight_bytes)} of weights."]
    if memory is not None:
        where = f" in {plain(memory.peak_layer)}" if memory.peak_layer else " at the start"
        live = ", ".join(f"{plain(one.name)} {bytes_text(one.size_bytes)}" for one in memory.live[:4])
        more = f" and {len(memory.live) - 4} more" if len(memory.live) > 4 else ""
        lines.append(
            f"Activations {per}: {bytes_text(memory.peak_bytes)} at the peak{where} (live there: {live}{more}); "
            f"with the weights {bytes_text(memory.with_weights_bytes)}."
        )
    if found.pruning is not None:
        lines.append(_pruning_line(found.pruning))
    return tuple(lines)


def _pruning_line(pruning: PruningSection) -> str:
    if pruning.reason and not pruning.groups and not pruning.pinned:
        return f"No group that could be removed is known: {plain(pruning.reason)}."
    units = sum(group.units for group in pruning.groups)
    known = f"{len(pruning.groups)} groups with {units} removable units; {stay_text(len(pruning.pinned))}"
    if pruning.split is None:
        return f"{known} Their sensitivity was not measured: {plain(pruning.reason or '')}."
    shares = " / ".join(f"{100 * ratio:g}" for ratio in pruning.ratios)
    return (
        f"{known} Sensitivity: {shares} % of one group's units removed, those with the least "
        f"{plain(pruning.importance)} first, on {plain(pruning.split)}."
    )


def stay_text(count: int) -> str:
    """How many layers are pinned, as a sentence."""
    return "1 layer stays as it is." if count == 1 else f"{count} layers stay as they are."


def layer_table(found: Analysis, *, every: bool = True) -> Table:
    """One row per layer, in the graph's order; without ``every`` only what multiplies or has weights."""
    heads = ("layer", "op", "output", "MACs", "share", "parameters", "weights", "output size", "live")
    total = found.totals.macs or 1
    rows: list[tuple[str, ...]] = [
        (
            plain(layer.name),
            plain(layer.op),
            "×".join(map(str, layer.output_shape)) or "–",
            "" if layer.macs is None else count_text(layer.macs),
            "" if layer.macs is None else f"{layer.macs / total:.1%}",
            count_text(layer.parameters) if layer.parameters else "",
            bytes_text(layer.weight_bytes) if layer.weight_bytes else "",
            bytes_text(layer.output_bytes),
            "" if layer.live_bytes is None else bytes_text(layer.live_bytes),
        )
        for layer in shown_layers(found.layers, every=every)
    ]
    totals = found.totals
    peak = bytes_text(found.memory.peak_bytes) if found.memory else ""
    rows.append(
        (
            "total",
            "",
            "",
            count_text(totals.macs),
            "100.0%" if totals.macs else "",
            count_text(totals.parameters),
            bytes_text(totals.weight_bytes),
            bytes_text(totals.output_bytes),
            f"peak {peak}" if peak else "",
        )
    )
    return heads, rows


def shown_layers(layers: Sequence[LayerCost], *, every: bool) -> list[LayerCost]:
    """All, or what multiplies or has weights."""
    return [layer for layer in layers if every or layer.macs or layer.weight_bytes]


def group_table(pruning: PruningSection) -> Table:
    """One row per group, in the graph's order; a figure at each ratio stands in one cell."""
    names = [name for name in ("divergence", "drop_pp", "agreement_pct") if _unit(pruning, name)]
    kl = _unit(pruning, "divergence") == "nats"
    words = {"divergence": "KL" if kl else "error", "drop_pp": "drop, pp", "agreement_pct": "agreement, %"}
    heads = ("group", "units", "width", "exact", *(words[name] for name in names))
    rows: list[tuple[str, ...]] = []
    for group in pruning.groups:
        figures = (" / ".join(_short(group.figure(name, ratio)) for ratio in pruning.ratios) for name in names)
        cells = (plain(group.name), str(group.units), str(group.width), "yes" if group.exact else "no")
        rows.append((*cells, *figures))
    return heads, rows


def pinned_table(pruning: PruningSection) -> Table:
    """What stays, and why."""
    return ("stays as it is", "why"), [(plain(one.name), plain(one.reason)) for one in pruning.pinned]


def _unit(pruning: PruningSection, name: str) -> str | None:
    """Of a figure; None where it was not measured of any group."""
    return next((m.unit for group in pruning.groups for m in group.figures if m.name == name), None)


def _short(found: Measurement | None) -> str:
    if found is None or found.value is None:
        return "–"
    return f"{found.value:.3g}" if found.name == "divergence" else f"{found.value:.1f}".replace("-", "−")


def count_text(count: int) -> str:
    """A large number in three digits or more.

    >>> count_text(4_089_184_256), count_text(950)
    ('4.09 G', '950')
    """
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            value = count / 10**power
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {letter}"
    return str(count)
