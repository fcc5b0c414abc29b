"""Models with one group narrower, as engines beside the whole one: what a channel less is worth on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.core.engine import Engine
from edgeopt.core.events import ignore_progress
from edgeopt.core.fingerprint import hash_array
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline import records
from edgeopt.pipeline.engines import build_engine
from edgeopt.pipeline.graphs import Graph, versions
from edgeopt.pipeline.plan import Plan, PlannedCandidate
from edgeopt.pipeline.run import Run
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.recipes.schema import Prune, Quantize
from edgeopt.targets.schema import is_quantized

if TYPE_CHECKING:
    from edgeopt.compress.pruning.channels import ChannelMap
    from edgeopt.model.trained import TrainedModel

__all__ = ["WHOLE", "Kept", "Variants"]

Kept = tuple[tuple[str, int], ...]
"""Groups and how many of their units stay; a group that is not named stays whole."""

WHOLE: Kept = ()
_SAMPLES = 200  # timed inferences per variant
_CALIBRATION = 64  # samples: ranges decide no kernel's speed
_AT_ONCE = 6  # engines alive together


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """Times models with fewer units.

    Attributes:
        model: With its program.
        channels: Its groups.
        scores: Which units go first.
        graph: The whole model's, in FP32.
    """

    run: Run
    plan: Plan
    samples: ParityInputs
    config: Prune
    model: TrainedModel
    channels: ChannelMap
    scores: Mapping[str, Any]
    graph: Graph

    @property
    def precision(self) -> str:
        """What the variants compute in: int8 where that is what the recipe makes."""
        return "int8" if is_quantized(self.plan.precision) else "fp32"

    def runtimes(self) -> list[PlannedCandidate]:
        """The engines that can be built and run here, one per runtime, in what is to be shipped."""
        quantized = is_quantized(self.plan.precision)
        wanted = [
            c
            for c in self.plan.candidates
            if is_quantized(c.precision) == quantized and not c.graph.startswith("fp32-")
        ]
        return list({candidate.rules.name: candidate for candidate in wanted}.values())

    def ratios(self, planned: PlannedCandidate, wanted: list[Kept], *, times: int = 1) -> dict[Kept, Measurement]:
        """p50 of each over the whole model's; ``conditions["p50_ms"]`` has it in ms. What does not run is left out.

        Args:
            planned: The runtime, and what is to be shipped.
            wanted: What is timed, beside the whole model.
            times: How many times the usual number of inferences.
        """
        found: dict[Kept, Measurement] = {}
        for first in range(0, len(wanted), _AT_ONCE):
            found |= self._together(planned, wanted[first : first + _AT_ONCE], times)
        return found

    def _together(self, planned: PlannedCandidate, wanted: list[Kept], times: int) -> dict[Kept, Measurement]:
        from edgeopt.measure.latency import latency_ratio, measure_latency

        run, plan = self.run, self.plan
        quiet = replace(run.context, events=[], parity=[], listener=ignore_progress)
        built = {kept: build_engine(quiet, plan, planned, self._graph(kept)) for kept in (WHOLE, *wanted)}
        engines: dict[str, Engine] = {}
        names = {kept: _name(kept) for kept in built}
        for kept, one in built.items():
            if one.engine is not None and one.engine.status == "built":
                engines[names[kept]] = one.engine
        if names[WHOLE] not in engines:
            return {}
        whole = engines[names[WHOLE]]
        sample = {spec.name: array for spec, array in zip(whole.inputs, self.samples.arrays, strict=True)}
        measure = plan.recipe.measure.model_copy(update={"batch_sizes": (), "latency_samples": times * _SAMPLES})
        size = whole.inputs[0].batch
        batch = size if isinstance(size, int) else plan.recipe.export.batch
        key = {
            "engines": {names[kept]: one.key for kept, one in built.items()},
            "config": measure.model_dump(mode="json"),
            "batch": batch,
            "sample": {name: hash_array(array) for name, array in sample.items()},
            "device": run.device.info().model_dump(mode="json", exclude={"conditions"}),
            "seed": run.context.seed,
        }

        def build(folder: Path) -> None:
            made = measure_latency(
                run.device,
                engines,
                sample=sample,
                config=measure,
                batch=batch,
                progress=run.context.progress,
                seed=run.context.seed,
                cold_starts=1,
            )
            ratios = {}
            for name, one in made.items():
                if not one.failed:
                    ratio = latency_ratio(one, made[names[WHOLE]])
                    p50 = one.figure("latency_p50_ms").value
                    ratios[name] = replace(ratio, conditions={**ratio.conditions, "p50_ms": p50})
            records.write(folder / "ratios.json", dict[str, Measurement], ratios)

        folder = run.context.stage("prune-latency", f"time narrower models on {planned.rules.name}", key, build)
        ratios = records.read(folder / "ratios.json", dict[str, Measurement])
        return {kept: ratios[name] for kept, name in names.items() if name in ratios}

    def _graph(self, kept: Kept) -> Graph:
        """The portable graph of a variant, cut, and quantized where the recipe quantizes."""
        quantize = self.plan.recipe.step(Quantize) if self.precision == "int8" else None
        if kept == WHOLE and quantize is None:
            return self.graph
        rules = self.plan.target.quantization
        key = {
            "model": self.run.loaded.model.identity,
            "kept": [list(one) for one in kept],
            "scores": {name: hash_array(self.scores[name]) for name, _ in kept},
            "precision": self.precision,
            "rules": rules.model_dump(mode="json") if rules and quantize else None,
            "data": self.run.data.fingerprint if self.run.data and quantize else None,
            "opset": self.plan.target.opset,
            "export": self.plan.recipe.export.model_dump(mode="json"),
            "versions": versions(),
        }
        folder = self.run.context.stage(
            "prune-variant", "write narrower models", key, lambda folder: self._write(folder, kept, quantize)
        )
        return replace(self.graph, path=folder / "model.onnx", parity=[], events=[], layers=[], training=[])

    def _write(self, folder: Path, kept: Kept, quantize: Quantize | None) -> None:
        from edgeopt.compress.pruning.choose import least
        from edgeopt.compress.pruning.cut import cut
        from edgeopt.graph.export import export_onnx
        from edgeopt.pipeline.steps import run_steps

        model = self.model
        if model.program is None:
            raise TypeError("pruning works on a program")
        if kept:
            removed = least(self.scores, dict(kept))
            model = replace(model, program=cut(model.program, self.channels, removed, model.inputs))
        ranges, bits = {}, {}
        if quantize is not None:
            config = Quantize(
                precision="w4a8" if quantize.precision == "w4a8" else "int8",
                observer="minmax",
                bias_correction=False,
                calibration_samples=_CALIBRATION,
                weight_granularity=quantize.weight_granularity,
            )
            result = run_steps(
                replace(self.run.context, listener=ignore_progress),
                model,
                self.plan,
                [config],
                original=None,
                data=self.run.data,
                workspace=None,
            )
            model, ranges = result.model, dict(result.ranges)
            bits = {d.node: 4 for d in result.decisions if d.node and d.precision == "w4a8"}
        if model.program is None:
            raise TypeError("a quantized program is one")
        export_onnx(
            model.program,
            model.inputs,
            model.outputs,
            folder / "model.onnx",
            opset=self.plan.target.opset,
            ranges=ranges,
            weight_bits=bits,
            simplify=self.plan.recipe.export.simplify,
            dynamic_batch=self.plan.recipe.export.dynamic_batch,
        )


def _name(kept: Kept) -> str:
    return ", ".join(f"{name} to {count}" for name, count in kept) or "whole"
