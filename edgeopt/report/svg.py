"""Just enough SVG for the report's plots: escaped elements, scales, round ticks.

Drawn by hand and not by a plotting library, so that the plots follow the page's light or dark colours, carry their
titles for screen readers, are a few KiB, and come out byte for byte the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from markupsafe import Markup, escape

__all__ = ["Scale", "element", "join", "place_labels", "text", "ticks"]

Attribute = str | float | None


def element(tag: str, *children: Markup | str, **attributes: Attribute) -> Markup:
    """One element. Strings are escaped, numbers rounded; ``class_`` is ``class`` and ``stroke_width`` ``stroke-width``."""
    written = [
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{tag}{''.join(written)}>{inner}</{tag}>")  # noqa: S704 - every part was escaped above


def text(x: float, y: float, content: str, *, anchor: str = "start", class_: str = "") -> Markup:
    """A line of text; ``anchor``: ``start``, ``middle`` or ``end``."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def join(parts: Iterable[Markup]) -> Markup:
    """Elements one after another."""
    return Markup("").join(parts)


@dataclass(frozen=True, slots=True)
class Scale:
    """From data to pixels, linearly: ``low`` lands on ``start``, ``high`` on ``stop``; beyond them it is clipped."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, about: int) -> tuple[list[float], int]:
    """Round values from ``low`` to ``high``, about so many (4 or more), and the decimals that tell them apart.

    >>> ticks(0.0, 1.0, 5)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 1)
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)], max(0, -math.floor(math.log10(step) + 1e-9))


def place_labels(
    points: Iterable[tuple[float, float, str]],
    taken: Iterable[tuple[float, float, float, float]],
    *,
    left: float,
    right: float,
) -> list[tuple[float, float, str]]:
    """Find each label a place beside its point that covers no other label.

    Args:
        points: x, y, label, in pixels.
        taken: Boxes (x0, y0, x1, y1) that labels should not cover.
        left: Labels must start after this x.
        right: Labels must end before this x.

    Returns:
        x, y and text anchor per label.
    """
    boxes = list(taken)
    placed = []
    for x, y, label in points:
        width = 7.2 * len(label)
        options = []
        for dx, dy in product((9.0, 34.0), (-12.0, 22.0, -28.0, 38.0, -44.0, 54.0)):
            options += [(x + dx, y + dy, "start"), (x - dx, y + dy, "end")]
        best, best_cost = options[0], math.inf
        for order, (lx, ly, anchor) in enumerate(options):
            x0 = lx if anchor == "start" else lx - width
            box = (x0, ly - 12, x0 + width, ly + 3)
            outside = max(0.0, box[2] - right) + max(0.0, left - x0) + max(0.0, 12 - ly)
            cost = sum(_overlap(box, other) for other in boxes) + 100 * outside + order
            if cost < best_cost:
                best, best_cost = (lx, ly, anchor), cost
        lx, ly, anchor = best
        x0 = lx if anchor == "start" else lx - width
        boxes.append((x0, ly - 12, x0 + width, ly + 3))
        placed.append(best)
    return placed


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _attribute(value: Attribute) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, (int, float)) else str(escape(value))
