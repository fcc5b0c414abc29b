"""How a training went: a table of its epochs, and the curve of loss and accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgeopt.bundle.document import Report, TrainingEpoch, TrainingSection
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import figure, plain
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, join, text, ticks

__all__ = ["epoch_table", "training_plots", "training_words"]

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, _WIDTH - 62, 18, _HEIGHT - 48
_WORDS = {
    "tune_accuracy_pct": "accuracy",
    "tune_agreement_pct": "agreement with FP32",
    "tune_loss": "loss on labels",
    "tune_divergence": "distance to FP32",
    "tune_sqnr_db": "SQNR",
}


def training_words(section: TrainingSection) -> str:
    """One sentence on a training."""
    kept = f"epoch {section.best_epoch}" if section.best_epoch else "the untrained start"
    return (
        f"{section.step}: {section.samples:,} samples, {len(section.epochs) - 1} epochs "
        f"({section.ended}); kept: {kept}, the best on the tuning split."
    )


def epoch_table(section: TrainingSection) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column titles and one row per epoch; epoch 0 is the start."""
    names = list(dict.fromkeys(f.name for row in section.epochs for f in row.figures))
    heads = ("epoch", "training loss", "learning rate", *(_WORDS.get(name, name) for name in names))
    return heads, [_row(section, row, names) for row in section.epochs]


def training_plots(report: Report) -> tuple[Plot, ...]:
    """One plot per training of the report."""
    return tuple(_curve(section, number) for number, section in enumerate(report.training))


def _row(section: TrainingSection, row: TrainingEpoch, names: Sequence[str]) -> tuple[str, ...]:
    found = {f.name: f for f in row.figures}
    star = "★ " if row.epoch == section.best_epoch else ""
    loss, rate = (f"{value:.4g}" if value is not None else "–" for value in (row.loss, row.learning_rate))
    return (f"{star}{row.epoch}", loss, rate, *(figure(found[n]) if n in found else "–" for n in names))


def _curve(section: TrainingSection, number: int) -> Plot:
    title = f"Training: {plain(section.step)}"
    heads, rows = epoch_table(section)
    losses = [(row.epoch, row.loss) for row in section.epochs if row.loss is not None]
    quality = _quality(section)
    if not losses:
        return Plot(key=f"training-{number}", title=title, caption="", missing="no epoch was trained")
    x = Scale(0, max(1, section.epochs[-1].epoch), _LEFT, _RIGHT)
    parts = [
        *(text(x(row.epoch), _BOTTOM + 18, str(row.epoch), anchor="middle", class_="tick") for row in _few(section)),
        text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, "epoch (ringed: kept)", anchor="middle", class_="axis"),
        *_line(section, losses, x, "hue0 small", "training loss", left=True),
    ]
    points = [(epoch, m.value) for epoch, m in quality if m.value is not None]
    name = f"{_WORDS.get(quality[0][1].name, quality[0][1].name)} on the tuning split, {quality[0][1].unit}"
    if points:
        parts += _line(section, points, x, "hue1 small", name, left=False)
    return Plot(
        key=f"training-{number}",
        title=title,
        caption=training_words(section),
        svg=element(
            "svg",
            join(parts),
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            aria_label=f"{title}: loss {losses[0][1]:.4g} in epoch 1, {losses[-1][1]:.4g} in epoch {losses[-1][0]}",
            class_="plot",
        ),
        legend=(("hue0 small", "training loss (left)"), ("hue1 small", f"{name} (right)")),
        heads=heads,
        rows=tuple(rows),
    )


def _quality(section: TrainingSection) -> list[tuple[int, Measurement]]:
    """Of each epoch the figure that a reader asks for: accuracy where there is one, else SQNR, else the distance."""
    for name in ("tune_accuracy_pct", "tune_sqnr_db", "tune_divergence"):
        found = [(row.epoch, f) for row in section.epochs for f in row.figures if f.name == name]
        if found:
            return found
    return [(0, Measurement(name="tune_accuracy_pct", value=None, unit="%", reason="not measured"))]


def _few(section: TrainingSection) -> Sequence[TrainingEpoch]:
    return section.epochs[:: 1 + len(section.epochs) // 16]


def _line(
    section: TrainingSection, points: Sequence[tuple[int, float]], x: Scale, style: str, name: str, *, left: bool
) -> list[Markup]:
    """One curve with its axis, at the left or the right edge."""
    low, high = min(value for _, value in points), max(value for _, value in points)
    air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    y = Scale(low - air, high + air, _BOTTOM, _TOP)
    values, decimals = ticks(y.low, y.high, 5)
    edge, anchor = (_LEFT - 8, "end") if left else (_RIGHT + 8, "start")
    parts = [text(edge, y(v) + 4, f"{v:,.{decimals}f}".replace("-", "−"), anchor=anchor, class_="tick") for v in values]
    if left:
        parts += [element("line", x1=_LEFT, x2=_RIGHT, y1=y(v), y2=y(v), class_="grid") for v in values]
    path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points)
    dots = []
    for epoch, value in points:
        ring = [element("circle", cx=x(epoch), cy=y(value), r=8, class_="ring")] if epoch == section.best_epoch else []
        dot = element("circle", cx=x(epoch), cy=y(value), r=3.5, class_="dot")
        dots.append(element("g", element("title", f"epoch {epoch}: {name} {value:.4g}"), *ring, dot))
    parts.append(element("g", element("polyline", points=path, class_="curve"), *dots, class_=style))
    return parts
