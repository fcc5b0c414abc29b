"""What a run will do, decided and checked whole before any work starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from edgeopt.backends.base import Availability
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.pipeline.plan_words import float_words, training_words
from edgeopt.recipes.check import lacking, precision_of
from edgeopt.recipes.schema import FLOAT_STEPS, Convert, Mixed, Qat, Quantize, Recipe, step_name
from edgeopt.targets.schema import Precision, RuntimeRules, Target, is_quantized

__all__ = ["Plan", "PlannedCandidate", "PlannedRung", "make_plan"]

Role = Literal["reference", "stage", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCandidate:
    """An engine to be made.

    Attributes:
        id: ``openvino-int8``, ``openvino-fp32-pruned``.
        rules: The target's rules for its runtime.
        role: ``reference``: the model as it came, in FP32, that every other candidate of the runtime is held against;
            ``candidate``: what the recipe makes; ``stage``: a float model on the way there, measured and never shipped.
        availability: Of its runtime, on this machine.
        form: One of the rules' further forms, where ``rules.dialect`` lost accuracy; empty for that dialect.
        stage: Of a float model that a step made: ``pruned``.
    """

    id: str
    rules: RuntimeRules
    precision: Precision
    role: Role
    availability: Availability
    form: str = ""
    stage: str = ""

    @property
    def graph(self) -> str:
        """Which portable graph it is made from: ``int8``, ``fp32-pruned``."""
        return f"{self.precision}-{self.stage}" if self.stage else self.precision

    @property
    def dialect(self) -> str:
        """How its graph is written: the runtime's own dialect where there are Q/DQ, else ``float``."""
        return (self.form or self.rules.dialect) if is_quantized(self.precision) else "float"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRung:
    """One rung of a ladder: its own plan, or why it has none."""

    name: str
    plan: Plan | None
    skip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The checked plan.

    Attributes:
        recipe_reason: Why this recipe, where the user named none.
        measured_here: Whether the machine at hand may stand for the target; ``measured_reason`` says why (not).
        candidates: In the target's order of runtimes, each reference before its candidate.
        left_out: Runtimes of the target that are not installed here, and how to get them.
        mark: What ends the ids of its candidates, where it is one of several plans of a precision.
        rungs: Of a recipe with a ladder, in order; ``candidates`` are then those of all of them.
    """

    target: Target
    recipe: Recipe
    recipe_reason: str
    measured_here: bool
    measured_reason: str
    candidates: tuple[PlannedCandidate, ...]
    left_out: tuple[str, ...]
    mark: str = ""
    rungs: tuple[PlannedRung, ...] = ()

    @property
    def precision(self) -> Precision:
        """What the recipe makes of the model."""
        return precision_of(self.recipe)

    def to_json(self) -> dict[str, Any]:
        """The plan as ``--dry-run --json`` prints it."""
        return {
            "target": self.target.name,
            "recipe": self.recipe.model_dump(mode="json"),
            "recipe_reason": self.recipe_reason,
            "measured_here": self.measured_here,
            "measured_reason": self.measured_reason,
            "candidates": [
                {
                    "id": planned.id,
                    "runtime": planned.rules.name,
                    "runtime_version": planned.availability.version,
                    "precision": planned.precision,
                    "dialect": planned.rules.dialect,
                    "role": planned.role,
                }
                for planned in self.candidates
            ],
            "left_out": list(self.left_out),
            "rungs": [{"name": rung.name, "skip": rung.skip or None} for rung in self.rungs],
            "steps": self.steps(),
        }

    def steps(self) -> list[str]:
        """The stages in order, one line each."""
        names = ["load the model", "export FP32 to ONNX, parity with PyTorch"]
        if self.rungs:
            return [*names, *(_rung_line(rung) for rung in self.rungs), "judge, write the bundle"]
        return [*names, *self.own_steps(), "judge, write the bundle"]

    def own_steps(self) -> list[str]:
        """Those between the export and the verdict."""
        names = [f"{float_words(step)}; store, export, parity with its own outputs" for step in self.recipe.float_steps]
        quantize = self.recipe.step(Quantize)
        if isinstance(quantize, Qat):
            names.append(
                f"quantize to {quantize.precision} ({quantize.observer} observer, "
                f"{quantize.calibration_samples} calibration samples), "
                f"train on the grid ({quantize.scales} step sizes, {training_words(quantize.training, quantize.batchnorm)}), export, parity"
            )
        elif isinstance(quantize, Mixed):
            budget = ", ".join(f"{k} {v:g}" for k, v in quantize.budget.model_dump(exclude_none=True).items())
            timed = "time it" if self.measured_here and self.precision == "int8" else "weigh it by its MACs"
            names.append(
                f"score each group of layers in {', '.join(quantize.candidates)} on the tuning split, {timed}, choose one "
                f"precision each (budget: {budget}), quantize ({quantize.observer} observer, "
                f"{quantize.calibration_samples} calibration samples), export, parity"
            )
        elif quantize is not None:
            names.append(
                f"quantize to {quantize.precision} ({quantize.observer} observer, "
                f"{quantize.calibration_samples} calibration samples{_techniques(quantize)}), export, parity"
            )
        if (convert := self.recipe.step(Convert)) is not None:
            names.append(f"convert to {convert.dtype}, parity")
        names.append(f"compile {', '.join(c.id for c in self.candidates)}")
        names.append("compare each engine with PyTorch and with a second runtime, evaluate it on the test split")
        if self.measured_here:
            sizes = " and ".join(map(str, self.recipe.measure.batch_sizes))
            names.append(
                f"measure on this machine: latency ({self.recipe.measure.latency_samples} inferences each, interleaved), "
                f"throughput at batch {sizes}, cold start, memory"
            )
        return names


def _techniques(quantize: Quantize) -> str:
    """The techniques that the step uses, and those that it tries."""
    uses = {
        "equalization": quantize.equalize,
        "SmoothQuant": quantize.smooth,
        "AdaRound": quantize.adaround.use if quantize.adaround else False,
        "batch-norm re-estimation": quantize.reestimate_batchnorm,
        "GPTQ": quantize.gptq,
        "bias correction": quantize.bias_correction,
    }
    forced = ", ".join(name for name, use in uses.items() if use is True)
    tried = ", ".join(name for name, use in uses.items() if use == "try")
    return (f"; {forced}" if forced else "") + (f"; where they help: {tried}" if tried else "")


def _rung_line(rung: PlannedRung) -> str:
    if rung.plan is None:
        return f"{rung.name}: skipped: {rung.skip}"
    return f"{rung.name}: " + "; ".join(rung.plan.own_steps())


def make_plan(
    *,
    target: Target,
    recipe: Recipe,
    recipe_reason: str,
    measured_here: bool,
    measured_reason: str,
    mark: str = "",
    stages: bool = True,
) -> Plan:
    """Decide the candidates of a recipe on a target.

    Args:
        mark: Ends the ids of what the recipe makes, where it is one of several that share a precision.
        stages: Whether the float models on the way are measured too.

    Raises:
        BackendError: None of the target's runtimes is installed here.
    """
    candidates: list[PlannedCandidate] = []
    left_out: list[str] = []
    for rules in target.runtimes:
        availability = BACKENDS[rules.name].available()
        if availability.version is None and availability.needed:
            left_out.append(f"{rules.name} is not installed here; {availability.how_to_get}")
            continue
        if availability.needed and not _is_asked_for(availability.version, rules.versions):
            left_out.append(
                f"{rules.name} {availability.version} is installed here, and {target.name} asks for {rules.versions}; "
                f"{availability.how_to_get}"
            )
            continue
        if missing := lacking(recipe, rules):
            left_out.append(f"{rules.name} does not run {' and '.join(missing)} to advantage on {target.name}")
            continue
        for wanted, stage, role in _wanted(recipe):
            if role == "stage" and not stages:
                continue
            planned = PlannedCandidate(
                id="", rules=rules, precision=wanted, role=role, availability=availability, stage=stage
            )
            ending = mark if role == "candidate" else ""
            candidates.append(replace(planned, id=f"{rules.name}-{planned.graph}{ending}"))
    if not candidates:
        raise BackendError(
            f"No runtime of target {target.name!r} can be used here.",
            got="; ".join(left_out),
            fix="Install one of them, or choose another target (edgeopt targets).",
        )
    return Plan(
        target=target,
        recipe=recipe,
        recipe_reason=recipe_reason,
        measured_here=measured_here,
        measured_reason=measured_reason,
        candidates=tuple(candidates),
        left_out=tuple(left_out),
        mark=mark,
    )


def _is_asked_for(version: str | None, versions: str) -> bool:
    """Whether a runtime's version is within the target's specifier; a version that is no number is not judged."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return version is None or SpecifierSet(versions).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _wanted(recipe: Recipe) -> list[tuple[Precision, str, Role]]:
    """Precision, float step's word and role of each engine per runtime, the reference first."""
    words = [FLOAT_STEPS[step_name(step)] for step in recipe.float_steps]
    precision = precision_of(recipe)
    wanted: list[tuple[Precision, str, Role]] = [
        ("fp32", "", "reference"),
        *(("fp32", word, "stage") for word in words),
    ]
    if precision != "fp32":
        wanted.append((precision, "", "candidate"))
    elif words:
        wanted[-1] = ("fp32", words[-1], "candidate")
    return wanted
