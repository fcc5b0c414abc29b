"""What a run will do, decided and checked whole before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgeopt.backends.base import Availability
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.recipes.check import lacking, precision_of
from edgeopt.recipes.schema import Convert, Distil, Finetune, Mixed, Qat, Quantize, Recipe, Sparsify
from edgeopt.targets.schema import Precision, RuntimeRules, Target, is_quantized

__all__ = ["Plan", "PlannedCandidate", "PlannedRung", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCandidate:
    """An engine to be made.

    Attributes:
        id: ``openvino-int8``.
        rules: The target's rules for its runtime.
        precision: ``fp32`` is the reference that every other candidate of the runtime is held against.
        availability: Of its runtime, on this machine.
        form: One of the rules' further forms, where ``rules.dialect`` lost accuracy; empty for that dialect.
    """

    id: str
    rules: RuntimeRules
    precision: Precision
    role: Literal["reference", "candidate"]
    availability: Availability
    form: str = ""

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
        names = []
        if (sparsify := self.recipe.step(Sparsify)) is not None:
            names.append(f"zero the smallest weights ({sparsify.pattern} along the input channels)")
        if (finetune := self.recipe.step(Finetune)) is not None:
            names.append(f"train the float model ({_training_words(finetune)})")
        quantize = self.recipe.step(Quantize)
        if isinstance(quantize, Qat):
            names.append(
                f"quantize to {quantize.precision} ({quantize.observer} observer, "
                f"{quantize.calibration_samples} calibration samples), "
                f"train on the grid ({quantize.scales} step sizes, {_training_words(quantize)}), export, parity"
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


def _training_words(config: Finetune | Qat) -> str:
    training = config.training
    taught = f"taught by FP32 at {training.distillation.weight:g}" if training.distillation else "no teacher"
    if isinstance(config, Distil) and config.features:
        taught += f" and by its features {', '.join(config.features)}"
    limit = f", at most {training.max_minutes:g} minutes" if training.max_minutes else ""
    norms = "frozen" if config.batchnorm == "frozen" else f"live for {config.batchnorm.freeze_after} epochs"
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, {training.optimizer} at {training.learning_rate:g}, "
        f"loss {training.loss}, {taught}, BatchNorm {norms}{limit}"
    )


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
) -> Plan:
    """Decide the candidates of a recipe on a target.

    Args:
        mark: Ends the ids of what is no reference, where the recipe is one of several that share a precision.

    Raises:
        BackendError: None of the target's runtimes is installed here.
    """
    precision = precision_of(recipe)
    candidates: list[PlannedCandidate] = []
    left_out: list[str] = []
    for rules in target.runtimes:
        availability = BACKENDS[rules.name].available()
        if availability.version is None and availability.needed:
            left_out.append(f"{rules.name} is not installed here; {availability.how_to_get}")
            continue
        if missing := lacking(recipe, rules):
            left_out.append(f"{rules.name} does not run {' and '.join(missing)} to advantage on {target.name}")
            continue
        wanted_precisions: tuple[Precision, ...] = ("fp32", precision) if precision != "fp32" else ("fp32",)
        for wanted in wanted_precisions:
            role: Literal["reference", "candidate"] = "candidate" if wanted == precision != "fp32" else "reference"
            candidates.append(
                PlannedCandidate(
                    id=f"{rules.name}-{wanted}{mark if role == 'candidate' else ''}",
                    rules=rules,
                    precision=wanted,
                    role=role,
                    availability=availability,
                )
            )
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
