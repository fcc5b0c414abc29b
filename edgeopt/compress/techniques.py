"""Post-training quantization with its techniques, each tried on the tuning split and kept only where it helps."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch.fx import GraphModule
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from edgeopt.bundle.document import TrialRow
from edgeopt.compress.adaround import adaround
from edgeopt.compress.bias import QuantizedMeans, correct_biases
from edgeopt.compress.calibrate import Watch
from edgeopt.compress.equalize import equalize
from edgeopt.compress.evaluate import run_quantized
from edgeopt.compress.gptq import round_by_gptq
from edgeopt.compress.observers import ActivationObserver, WeightObserver
from edgeopt.compress.prepare import Session, allow_int32_biases, channel_axes, prepare
from edgeopt.compress.ranges import Observer
from edgeopt.compress.reestimate import normalized_layers, reestimate
from edgeopt.compress.sanity import observer_warnings
from edgeopt.compress.score import Judge, Run, Score
from edgeopt.compress.smooth import smooth
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement
from edgeopt.recipes.schema import Use

__all__ = ["Quantization", "fold_norms", "quantize_graph"]

_MARGIN = 0.01  # of the divergence: what is smaller is not worth an artifact that is harder to explain
_TUNE_SAMPLES = 1024  # at most; every technique is scored on the same ones
_OBSERVERS: tuple[Observer, ...] = ("histogram", "minmax", "percentile", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """A converted graph and how it came about.

    Attributes:
        graph: As ``convert_pt2e`` returns it.
        samples: How many calibration samples were seen.
        trials: What each technique brought, in the order they were tried.
        notes: What a technique did to single layers, in words, by the name of the layer's node.
    """

    graph: GraphModule
    samples: int
    trials: tuple[TrialRow, ...]
    events: tuple[Event, ...]
    notes: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class _Bench:
    """Scores a state, tries a change on it, remembers what it brought."""

    judge: Judge | None
    trials: list[TrialRow] = field(default_factory=list)
    before: Score | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def score(self, run: Run) -> Score | None:
        return self.judge.score(run) if self.judge is not None else None

    def keep(self, name: str, use: Use, run: Run, seconds: float, detail: str = "") -> bool:
        """Whether a state in which ``name`` was applied is kept; it then becomes what the next is compared with."""
        after = self.score(run)
        if after is None or self.before is None:
            return True
        helps = after.divergence < self.before.divergence * (1 - _MARGIN)
        kept = use is True or helps
        wall = Measurement(name="wall_s", value=seconds, unit="s", n=1)
        row = TrialRow(
            name=name, kept=kept, detail=detail, before=_figures(self.before), after=_figures(after), wall=wall
        )
        self.trials.append(row)
        if kept:
            self.before = after
        return kept


def fold_norms(graph: GraphModule) -> tuple[str, ...]:
    """Fold each BatchNorm behind a convolution into it, in place; returns the convolutions' nodes."""
    normalized = normalized_layers(graph)
    _fuse_conv_bn_(graph)
    graph.recompile()
    return normalized


def quantize_graph(session: Session, normalized: tuple[str, ...], watch: Watch | None = None) -> Quantization:
    """Quantize ``session.graph``; it is used up.

    Args:
        session: Its graph's BatchNorms are folded.
        normalized: As ``fold_norms`` returns it.
        watch: Sees each batch of the first calibration, with its float outputs.
    """
    bench = _Bench(judge=_judge(session))
    prepared, samples = _on_weights(session, bench, watch)
    prepared = _on_grids(session, bench, prepared)
    doubts = observer_warnings(prepared, session.config)
    converted = _on_outputs(session, bench, prepared, normalized)
    return Quantization(
        graph=converted,
        samples=samples,
        trials=tuple(bench.trials),
        events=(*doubts, *_events(session, bench)),
        notes=bench.notes,
    )


def _on_weights(session: Session, bench: _Bench, watch: Watch | None) -> tuple[GraphModule, int]:
    """Techniques that change the float graph and not what it computes; each needs its own calibration."""
    config, progress, graph = session.config, session.context.progress, session.graph
    prepared, samples = prepare(session, watch) if bench.judge is None else _prepare(session, graph, watch)
    bench.before = bench.score(run_quantized(prepared))
    changes: tuple[tuple[str, Use, Callable[[GraphModule], int], str], ...] = (
        ("equalize", config.equalize, equalize, "pairs"),
        ("smooth", config.smooth, lambda g: smooth(g, session.feed, config.smooth_alpha, progress), "LayerNorms"),
    )
    for name, use, change, what in changes:
        if not use:
            continue
        begun, changed = time.perf_counter(), copy.deepcopy(graph)
        count = change(changed)
        if not count:
            bench.trials.append(TrialRow(name=name, kept=False, detail=f"there are no {what} that it could work on"))
            continue
        candidate, _ = _prepare(session, changed)
        if bench.keep(name, use, run_quantized(candidate), time.perf_counter() - begun, f"{count} {what}"):
            graph, prepared = changed, candidate
    return prepared, samples


def _on_grids(session: Session, bench: _Bench, prepared: GraphModule) -> GraphModule:
    """Techniques that choose ranges and integers."""
    config = session.config
    if config.observer == "best":
        _best_observer(prepared, bench)
    if config.gptq:
        prepared = _gptq(session, bench, prepared)
    if config.adaround is None or not config.adaround.use:
        return prepared
    begun, candidate = time.perf_counter(), copy.deepcopy(prepared)
    gains = adaround(candidate, session.layers, session.feed, config.adaround, session.context.progress)
    seconds, detail = time.perf_counter() - begun, f"{len(gains)} layers"
    return (
        candidate
        if bench.keep("adaround", config.adaround.use, run_quantized(candidate), seconds, detail)
        else prepared
    )


def _gptq(session: Session, bench: _Bench, prepared: GraphModule) -> GraphModule:
    begun, candidate = time.perf_counter(), copy.deepcopy(prepared)
    notes = round_by_gptq(session, candidate)
    if not notes:
        bench.trials.append(TrialRow(name="gptq", kept=False, detail="there are no weights in groups"))
        return prepared
    seconds, detail = time.perf_counter() - begun, f"{len(notes)} layers"
    if not bench.keep("gptq", session.config.gptq, run_quantized(candidate), seconds, detail):
        return prepared
    bench.notes.update(notes)
    return candidate


def _on_outputs(session: Session, bench: _Bench, prepared: GraphModule, normalized: tuple[str, ...]) -> GraphModule:
    """Convert; then techniques that correct what each layer's output has on average."""
    config, feed, progress = session.config, session.feed, session.context.progress
    converted = _convert(prepared if bench.judge is None else copy.deepcopy(prepared))
    axes = channel_axes(converted, session.layers)
    after_norms = {name: axis for name, axis in axes.items() if name in normalized}
    fixes: tuple[tuple[str, Use, Callable[[GraphModule], object], Mapping[str, int]], ...] = (
        (
            "reestimate_batchnorm",
            config.reestimate_batchnorm,
            lambda g: reestimate(prepared, g, after_norms, feed, progress),
            after_norms,
        ),
        ("bias_correction", config.bias_correction, lambda g: correct_biases(prepared, g, axes, feed, progress), axes),
    )
    for name, use, fix, layers in fixes:
        if not use:
            continue
        if not layers:
            bench.trials.append(TrialRow(name=name, kept=False, detail="there are no layers that it could work on"))
            continue
        begun, corrected = time.perf_counter(), copy.deepcopy(converted)
        fix(corrected)
        if bench.keep(name, use, _run_converted(corrected), time.perf_counter() - begun, f"{len(layers)} layers"):
            converted = corrected
    return converted


def _judge(session: Session) -> Judge | None:
    """None where the recipe uses no technique: there is nothing to score."""
    config, data = session.config, session.data
    uses = (
        *(config.equalize, config.smooth, config.reestimate_batchnorm, config.bias_correction),
        *(config.adaround, config.gptq),
    )
    if config.observer != "best" and not any(uses):
        return None
    split = data.splits.get("tune") or data.splits["calibration"]
    runner = QuantizedMeans(copy.deepcopy(session.graph), {})  # a plain interpreter on a float graph
    return Judge.on(
        lambda inputs: runner.run(*inputs, enable_io_processing=False),
        session.feed,
        split,
        _TUNE_SAMPLES,
        classification=data.task == "classification",
    )


def _prepare(session: Session, graph: GraphModule, watch: Watch | None = None) -> tuple[GraphModule, int]:
    return prepare(dataclasses.replace(session, graph=copy.deepcopy(graph)), watch)


def _convert(prepared: GraphModule) -> GraphModule:
    converted: GraphModule = convert_pt2e(prepared, fold_quantize=False)
    return converted


def _run_converted(graph: GraphModule) -> Run:
    runner = QuantizedMeans(graph, {})
    return lambda inputs: runner.run(*inputs, enable_io_processing=False)


def _best_observer(prepared: GraphModule, bench: _Bench) -> None:
    """Read every range anew in each way; keep the way whose outputs are closest to FP32's."""
    watching = [module for module in prepared.modules() if isinstance(module, ActivationObserver)]
    best: Observer = _OBSERVERS[0]
    for observer in _OBSERVERS[1:]:
        begun = time.perf_counter()
        _choose(prepared, watching, observer)
        if bench.keep(f"observer {observer}", "try", run_quantized(prepared), time.perf_counter() - begun):
            best = observer
    _choose(prepared, watching, best)


def _choose(prepared: GraphModule, watching: Sequence[ActivationObserver], observer: Observer) -> None:
    for module in watching:
        module.choose(observer)
    for weight in prepared.modules():
        if isinstance(weight, WeightObserver):
            weight.forget_biases()  # other ranges ask for other floors
    allow_int32_biases(prepared)


def _figures(score: Score) -> tuple[Measurement, ...]:
    """Divergence, SQNR where it is finite, agreement where there are classes."""
    figures = [
        Measurement(
            name="divergence", value=score.divergence, unit="1" if score.agreement is None else "nats", n=score.n
        )
    ]
    if math.isfinite(score.sqnr_db):
        figures.append(Measurement(name="sqnr_db", value=score.sqnr_db, unit="dB", n=score.n))
    if score.agreement is not None:
        figures.append(Measurement(name="agreement_pct", value=100 * score.agreement, unit="%", n=score.n))
    return tuple(figures)


def _events(session: Session, bench: _Bench) -> tuple[Event, ...]:
    if bench.judge is None or "tune" in session.data.splits:
        return ()
    message = "There is no tuning split; what each technique brought was measured on the calibration split itself."
    return (Event(kind="warning", stage="quantize", message=message),)
