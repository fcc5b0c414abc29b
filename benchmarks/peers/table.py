"""The result as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeopt.devices.registry import open_device
from peers.artifacts import Artifact, Own, median
from peers.engines import RUNTIMES
from peers.environments import PEERS
from peers.evaluation import Row
from peers.nets import Net
from peers.verdict import RULE, Rematch, judge

__all__ = ["notes", "summary", "to_json", "to_markdown"]

_HEAD = """| tool | drop, pp | agreement, % | SQNR, dB | latency p50, ms | × edgeopt | quantize, s |
|---|---|---|---|---|---|---|"""


def to_markdown(net: Net, rows: Sequence[Row], owns: Mapping[str, Own], rematches: Mapping[str, Rematch]) -> str:
    """One table per runtime, a line of verdict under each, and one line on the time to quantize."""
    parts = []
    for runtime in RUNTIMES:
        here = [row for row in rows if row.entry.runtime == runtime]
        timed = next((row.figures for row in here if row.latency_ms and row.figures), None)
        n = f", {timed.blocks_ms.size} timed inferences each" if timed else ", no latency measured"
        labels = "" if net.labels is not None else " (no labels: drop not measured)"
        parts.append(f"### {net.name} on {runtime}: {len(net.test)} test samples{labels}{n}\n\n{_HEAD}")
        parts[-1] += "".join(f"\n{_line(row, owns)}" for row in here)
        if timed:
            verdict = judge(rows, runtime, rematches)
            parts.append(f"**{verdict.status}**: {verdict.text}")
    parts.append(_compile_time(net, rows, owns))
    return "\n\n".join(parts)


def notes(samples: int) -> str:
    """What must be known to read the tables."""
    return (
        f"All tools calibrate on the same {samples} samples (fewer where a net's calibration split is smaller) and every "
        "artifact is evaluated on all test samples against FP32 on ONNX Runtime. Latency: one thread, batch 1, fresh "
        "processes, of each engine the fastest start, the same session options, blocks of all engines of a net taken in "
        "turns; warm-up is not timed. ONNX Runtime gets each file as its tool wrote it, OpenVINO at a static batch of 1, each peer's file twice where the CPU has bfloat16: with "
        "float32 for what is float, and in bfloat16, as OpenVINO does unasked. × edgeopt: median "
        f"over the median of edgeopt's fastest row of the table, above 1 is slower. {RULE} quantize: the peer's own "
        "call, imports and files excluded; edgeopt: the wall time of its quantize stages, imports excluded, with the "
        "export to ONNX; its checks apart; † from an earlier run of the script."
    )


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """One line per net and runtime, from what ``to_json`` gave."""
    lines = ["| net | runtime | edgeopt against the best peer |  |", "|---|---|---|---|"]
    for result in results:
        for runtime, verdict in result["verdicts"].items():
            lines.append(f"| {result['net']} | {runtime} | {verdict['status']} | {verdict['text']} |")
    return "\n".join(lines)


def to_json(
    net: Net,
    rows: Sequence[Row],
    owns: Mapping[str, Own],
    artifacts: Sequence[Artifact],
    rematches: Mapping[str, Rematch],
) -> dict[str, Any]:
    """Every figure with its n and interval."""
    return {
        "net": net.name,
        "device": open_device("local").name,
        "calibration_samples": net.samples,
        "test_samples": len(net.test),
        "rows": [_row_json(row) for row in rows],
        "verdicts": {runtime: vars(judge(rows, runtime, rematches)) for runtime in RUNTIMES},
        "rematches": {runtime: vars(one) for runtime, one in rematches.items()},
        "edgeopt": {
            recipe: {"quantize_s": own.seconds, "checks_s": own.checks, "stages_s": own.stages}
            for recipe, own in owns.items()
        },
        "peers": [
            {
                "peer": artifact.peer,
                "variant": artifact.variant,
                "quantize_s": artifact.seconds,
                "earlier_run": artifact.earlier,
                "versions": dict(artifact.versions),
                "error": artifact.error,
            }
            for artifact in artifacts
        ],
    }


def _row_json(row: Row) -> dict[str, Any]:
    figure = row.figures.figure("latency_p50_ms") if row.figures else None
    return {
        "tool": row.entry.tool,
        "runtime": row.entry.runtime,
        "error": row.entry.error,
        "drop_pp": row.drop_pp and row.drop_pp[0],
        "drop_interval_pp": row.drop_pp and [100 * row.drop_pp[1].low, 100 * row.drop_pp[1].high],
        "agreement_pct": row.agreement_pct,
        "sqnr_db": row.sqnr_db if row.sqnr_db is None or math.isfinite(row.sqnr_db) else "inf",
        "latency_p50_ms": figure and figure.value,
        "latency_interval_ms": figure and figure.interval and [figure.interval.low, figure.interval.high],
        "latency_n": figure and figure.n,
        "over_edgeopt": row.ratio and row.ratio.value,
        "over_edgeopt_interval": row.ratio and row.ratio.interval and [row.ratio.interval.low, row.ratio.interval.high],
        "conditions": dict(figure.conditions) if figure else {},
    }


def _line(row: Row, owns: Mapping[str, Own]) -> str:
    if row.entry.error and row.right is None:
        return f"| {row.entry.tool} | failed: {_short(row.entry.error)} |  |  |  |  | {_seconds(row, owns)} |"
    latency = f"{row.latency_ms:.3f}" if row.latency_ms else "–"
    ratio = _ratio(row)
    cells = [row.entry.tool, _drop(row), f"{row.agreement_pct:.2f}", _sqnr(row), latency, ratio]
    if row.entry.own:
        cells = [f"**{cell}**" for cell in cells]
    return f"| {' | '.join(cells)} | {_seconds(row, owns)} |"


def _drop(row: Row) -> str:
    if row.drop_pp is None:
        return "–"
    value, interval = row.drop_pp
    return f"{value:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"


def _sqnr(row: Row) -> str:
    return "exact" if row.sqnr_db is None or math.isinf(row.sqnr_db) else f"{row.sqnr_db:.1f}"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.ratio.value is None:
        return "–"
    interval = row.ratio.interval
    return f"{row.ratio.value:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def _seconds(row: Row, owns: Mapping[str, Own]) -> str:
    artifact = row.entry.artifact
    if artifact is not None:
        value = median(artifact.seconds)
        return "–" if value is None else f"{value:.2f}{' †' if artifact.earlier else ''}"
    own = owns.get(row.entry.tool.removeprefix("edgeopt "))
    value = median(own.seconds) if own else None
    return "–" if value is None else f"{value:.2f}"


def _compile_time(net: Net, rows: Sequence[Row], owns: Mapping[str, Own]) -> str:
    peers = {row.entry.artifact.title: row.entry.artifact for row in rows if row.entry.artifact is not None}
    timed = [a for a in peers.values() if PEERS[a.peer].variants[a.variant].timed and a.seconds]
    parts = []
    for recipe, own in owns.items():
        mine, checked = median(own.seconds), median([a + b for a, b in zip(own.seconds, own.checks, strict=True)])
        for artifact in timed:
            theirs = median(artifact.seconds)
            if mine and checked and theirs:
                parts.append(
                    f"edgeopt {recipe} {mine:.2f} s, {checked:.2f} s with its checks / {artifact.title} {theirs:.2f} s = "
                    f"{mine / theirs:.2f}, {checked / theirs:.2f} (n={len(own.seconds)} and {len(artifact.seconds)}{', † the latter' if artifact.earlier else ''})"
                )
    return f"Time to quantize {net.name} with {net.samples} samples: " + ("; ".join(parts) or "not compared") + "."


def _short(text: str) -> str:
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= 160 else text[:157] + "…"
