"""What ``pruning.py`` found, as Markdown: every run, the means over seeds, and where the rival wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from pruning.answers import difference

__all__ = ["COLUMNS", "NOTES", "Ratio", "Row", "to_markdown", "verdicts"]

COLUMNS = {
    "onnxruntime fp32": "ONNX Runtime FP32",
    "onnxruntime int8": "ONNX Runtime int8",
    "openvino fp32": "OpenVINO FP32",
    "openvino int8": "OpenVINO int8",
}
HEAD = ("who", "seed", "M MACs", "k parameters", "pruned, %", "recovered, %", "drop, pp", *COLUMNS.values())
NOTES = """\
×N: widths are multiples of N. MACs: of one sample; torch-pruning's are edgeopt's within 2 % or it is not compared.
Searched by latency: the widths that the step `prune` ended in with `latency_ratio`; residual branches go as a whole, and
its MACs are what they are, other than the first row's: torch-pruning is held against it at those, in rows of its own.
Accuracy: FP32, all test samples, before and after the recovery; drop: against the unpruned. On 10,000 images the
standard error of an accuracy of 91 % is 0.29 pp. Who is more accurate is said by the difference on the same test samples,
mean of the seeds, with its 95 % interval: even where that holds 0. Then latency over that of
the unpruned net on the same runtime in the same precision: p50 at batch 1, one thread, all engines of a column in
turns, with its 95 % interval. Int8: the recipe int8-ptq for all."""


Answers = Mapping[tuple[str, int], np.ndarray]
"""(title, seed) → which test samples a net gets right, bool [N]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Latency over the unpruned's, with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to prune a net, with one seed.

    Attributes:
        own: Whether it is edgeopt's.
        searched: Whether it has the multiply-accumulates of edgeopt's search by latency. Only likes are compared.
        drop: Accuracy of the unpruned minus that of the recovered, percentage points.
        ratios: By the keys of ``COLUMNS``; what was not timed is absent.
        reason: Why there are no figures; empty where there are.
    """

    title: str
    own: bool
    seed: int
    macs: float
    searched: bool = False
    parameters: float = math.nan
    pruned: float = math.nan
    recovered: float = math.nan
    drop: float = math.nan
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    reason: str = ""


def to_markdown(net: str, whole: Mapping[str, float], rows: Sequence[Row], right: Answers) -> str:
    """The table of a net: its runs, the means of each way, and the verdicts.

    Args:
        whole: ``macs``, ``parameters`` and ``accuracy`` of the unpruned net.
        right: Which test samples each recovered net gets right.
    """
    unpruned = ("unpruned", "", millions(whole["macs"]), f"{whole['parameters'] / 1e3:.1f}", "")
    lines = [
        line(HEAD),
        "|---" * len(HEAD) + "|",
        line((*unpruned, f"{whole['accuracy']:.2f}", "0", *["1"] * len(COLUMNS))),
    ]
    lines += [line(cells(row)) for row in rows]
    for title in dict.fromkeys(row.title for row in rows):
        mine = [row for row in rows if row.title == title and not row.reason]
        if len(mine) > 1:
            lines.append(line(mean_cells(title, mine)))
    told = "\n".join(f"- {text}" for text in verdicts(rows, right))
    return f"### {net}\n\n" + "\n".join(lines) + f"\n\n{told}"


def cells(row: Row) -> tuple[str, ...]:
    """One run."""
    start = (row.title, str(row.seed), millions(row.macs))
    if row.reason:
        return (*start, row.reason)
    drop = f"{row.drop:.2f}"
    figures = (f"{row.parameters / 1e3:.1f}", f"{row.pruned:.2f}", f"{row.recovered:.2f}", drop)
    timed = [row.ratios.get(key) for key in COLUMNS]
    return (*start, *figures, *("–" if r is None else f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in timed))


def mean_cells(title: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The mean over seeds; of latency, with the least and the largest."""
    start = (f"**{title}**", f"mean of {len(rows)}", millions(fmean(row.macs for row in rows)))
    figures = (
        f"{fmean(row.parameters for row in rows) / 1e3:.1f}",
        f"{fmean(row.pruned for row in rows):.2f}",
        f"{fmean(row.recovered for row in rows):.2f}",
        f"**{fmean(row.drop for row in rows):.2f}**",
    )
    return (*start, *figures, *(mean_ratio(rows, key) for key in COLUMNS))


def mean_ratio(rows: Sequence[Row], key: str) -> str:
    """Of one column."""
    values = [row.ratios[key].value for row in rows if key in row.ratios]
    return f"**{fmean(values):.3f}** ({min(values):.3f} to {max(values):.3f})" if values else "–"


def verdicts(rows: Sequence[Row], right: Answers) -> list[str]:
    """A sentence per way of the rival: where it wins, and where edgeopt does. Only seeds that both have are compared."""
    told = []
    for title, searched in dict.fromkeys((row.title, row.searched) for row in rows if not row.own):
        own = {row.seed: row for row in rows if row.own and row.searched == searched and not row.reason}
        theirs = {row.seed: row for row in rows if row.title == title and not row.reason and row.seed in own}
        if not theirs:
            reasons = {row.reason for row in rows if row.title == title and row.reason}
            told.append(f"{title}: not compared{': ' if reasons else ''}{'; '.join(sorted(reasons))}.")
            continue
        pairs = [(own[seed], theirs[seed]) for seed in sorted(theirs)]
        wins = [more_accurate(pairs, right)]
        for key, name in COLUMNS.items():
            timed = [pair for pair in pairs if all(key in row.ratios for row in pair)]
            wins += compared(name, timed, lambda row, key=key: row.ratios[key].value, digits=3)
        they = [text for winner, text in wins if winner == "rival"]
        we = [text for winner, text in wins if winner == "edgeopt"]
        even = [text for winner, text in wins if winner == "even"]
        parts = [f"the rival wins {', '.join(they)}" if they else "the rival wins nothing"]
        parts += [f"edgeopt wins {', '.join(we)}"] if we else []
        parts += [f"even: {', '.join(even)}"] if even else []
        seeds = f"seed{'s' if len(pairs) > 1 else ''} {', '.join(map(str, sorted(theirs)))}"
        told.append(f"{title} ({seeds}; edgeopt's mean against its): {'; '.join(parts)}.")
    return told


def more_accurate(pairs: Sequence[tuple[Row, Row]], right: Answers) -> tuple[str, str]:
    """Who gets more of the same test samples right, and by how much; even where the interval holds 0."""
    own, rival = ([right[pair[side].title, pair[side].seed] for pair in pairs] for side in (0, 1))
    mean, low, high = difference(own, rival)
    winner = "edgeopt" if low > 0 else "rival" if high < 0 else "even"
    return winner, f"accuracy, edgeopt's {mean:+.2f} pp [{low:+.2f}, {high:+.2f}]"


def compared(
    name: str, pairs: Sequence[tuple[Row, Row]], figure: Callable[[Row], float], *, digits: int
) -> list[tuple[str, str]]:
    """Who has the smaller mean of a figure, both means, and in how many seeds; nothing where there is no pair."""
    if not pairs:
        return []
    both = [(figure(own), figure(rival)) for own, rival in pairs]
    mine, theirs = (round(fmean(pair[side] for pair in both), digits) for side in (0, 1))
    winner = "even" if mine == theirs else "edgeopt" if mine < theirs else "rival"
    won = sum((own < rival) if winner == "edgeopt" else (own > rival) for own, rival in both)
    share = "" if winner == "even" else f" (in {won} of {len(both)} seeds)"
    return [(winner, f"{name} {mine:.{digits}f} against {theirs:.{digits}f}{share}")]


def millions(macs: float) -> str:
    """As the table has them; – where they are not known."""
    return "–" if math.isnan(macs) else f"{macs / 1e6:.2f}"


def line(texts: Sequence[str]) -> str:
    """A line of the table, filled up."""
    return "| " + " | ".join([*texts, *[""] * (len(HEAD) - len(texts))]) + " |"
