"""How a model is optimized, as data: ordered steps, what they read, what they must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_serializer,
    model_validator,
)

from edgeopt.recipes.pruning import Prune
from edgeopt.recipes.recovery import Distil, Finetune
from edgeopt.recipes.settings import Export, Limits, Measure, ParityLimits, Scenario
from edgeopt.recipes.sparsity import Sparsify
from edgeopt.recipes.training import FreezeAfter, Training

__all__ = [
    "FLOAT_STEPS",
    "STEPS",
    "AdaRound",
    "Budget",
    "Convert",
    "Distil",
    "Export",
    "Finetune",
    "LayerPrecision",
    "Limits",
    "Measure",
    "Mixed",
    "ObserverName",
    "ParityLimits",
    "Prune",
    "Qat",
    "Quantize",
    "Recipe",
    "Scenario",
    "Sparsify",
    "StepConfig",
    "Use",
    "step_name",
    "training_of",
    "weight_only",
]

LayerPrecision = Literal["float", "int8", "w7a8", "w4a8", "w8", "w4"]
"""What one layer computes in.

``int8`` takes the target's weight bits; ``w7a8`` and ``w4a8`` have weights of 7 and 4 bits whatever the target, and 8-bit
activations. ``w8`` and ``w4`` are weight-only: integers on disk, arithmetic in float; for linear layers.
"""


def weight_only(precision: str) -> bool:
    """Whether a layer of this precision has integer weights and float activations."""
    return precision in ("w8", "w4")


ObserverName = Literal["minmax", "moving_average", "percentile", "histogram", "entropy", "best"]


def _no_number(value: Any) -> Any:
    """To Python 1 is True; in a recipe it is a slip."""
    if type(value) is int:
        raise ValueError("choose true, false or try")
    return value


Use = Annotated[Literal[True, False, "try"], BeforeValidator(_no_number)]
"""Whether a technique is used; ``try``: kept where it brings the tuning split's outputs closer to FP32's, else dropped."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdaRound(_Frozen):
    """Weights are rounded up or down so that each layer's output stays, not each weight (Nagel et al. 2020).

    Attributes:
        use: Whether it is used.
        samples: Calibration samples that each layer's inputs and outputs are taken from.
        damping: Pull towards the float weights, as a share of the inputs' mean power; keeps few samples from being
            fitted too closely.
    """

    use: Use
    samples: Annotated[int, Field(ge=1)] = 256
    damping: Annotated[float, Field(ge=0)] = 0.01


class Quantize(_Frozen):
    """Post-training quantization to integers: symmetric weights, per-tensor activations.

    Attributes:
        precision: What every layer gets that neither ``skip``, ``assign`` nor ``ends`` names. ``int8`` and ``w4a8`` have
            one weight scale per output channel; ``w8`` and ``w4`` one per ``group_size`` weights.
        observer: Which range of an activation the grid covers. ``minmax``: all of it; ``moving_average``: the batches'
            extremes, averaged; ``percentile``: all but outliers; ``histogram``: the range with the least squared error, what
            is clipped weighing more; ``entropy``: the one with the least Kullback-Leibler divergence; ``best``: of all but
            ``moving_average``, the one whose outputs are closest to FP32's on the tuning split.
        percentile: For ``percentile`` only: the two-sided fraction kept, in percent, e.g. 99.99.
        momentum: For ``moving_average`` only: the weight of each new batch.
        weight_granularity: One scale per output ``channel``, where the target takes it, or per ``tensor``.
        weight_range: Which range of a weight its grid covers: up to its ``max``, or that with the least squared error.
        equalize: Cross-layer equalization: neighbouring layers share out their channels' ranges.
        smooth: SmoothQuant: outliers in what LayerNorm gives move into the weights behind it.
        smooth_alpha: How far, from 0 (not at all) to 1.
        adaround: Weights are rounded so that each layer's output stays, not each weight.
        reestimate_batchnorm: Each convolution's output gets back the mean and variance that its BatchNorm had given it.
        bias_correction: Add the mean output error of each quantized layer to its bias.
        calibration_samples: How many samples of the calibration split are read (all, where it has fewer).
        batch_size: Samples per calibration batch.
        skip: Shell patterns of layer names that stay in float.
        assign: Shell patterns of layer names to their precision, the first match wins; a layer that none matches takes
            the step's. A search for mixed precision writes its outcome here, so that it can be repeated.
        ends: The precision of the first and of the last layer with weights, where ``assign`` does not name it; null: as
            every other layer. With weights of 4 bits both are commonly left at 8: they are small, and the net hangs on them.
        group_size: For ``w8`` and ``w4``: consecutive weights of one output channel that share a scale.
        gptq: For ``w8`` and ``w4``: round each weight so that the layer's output on the calibration data keeps, taking
            up what earlier weights lost (GPTQ), instead of to the nearest point.
    """

    precision: Literal["int8", "w4a8", "w8", "w4"]
    observer: ObserverName
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    weight_granularity: Literal["channel", "tensor"] = "channel"
    weight_range: Literal["max", "mse"] = "max"
    equalize: Use = False
    smooth: Use = False
    smooth_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    adaround: AdaRound | None = None
    reestimate_batchnorm: Use = False
    bias_correction: Use
    calibration_samples: Annotated[int, Field(ge=1)] = 512
    batch_size: Annotated[int, Field(ge=1)] = 32
    skip: tuple[str, ...] = ()
    assign: dict[str, LayerPrecision] = Field(default_factory=dict)
    ends: LayerPrecision | None = None
    group_size: Literal[16, 32, 64, 128, 256] | None = None
    gptq: Use = False

    @property
    def layer_precisions(self) -> tuple[LayerPrecision, ...]:
        """Every precision that a layer may get from this step."""
        ends = () if self.ends is None else (self.ends,)
        return tuple(dict.fromkeys((self.precision, *ends, *self.assign.values())))


class Budget(_Frozen):
    """What mixed precision must hold; exactly one. After float steps FP32 is the last of their models.

    Attributes:
        drop_pp: Drop on the tuning split against FP32, percentage points; without labels: share of changed predictions.
        divergence: From FP32's outputs on the tuning split (KL in nats for classifiers, else relative squared error).
        latency_ratio: p50 latency against FP32 on the same runtime, measured on the device.
    """

    drop_pp: Annotated[float, Field(ge=0)] | None = None
    divergence: Annotated[float, Field(ge=0)] | None = None
    latency_ratio: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("a budget is exactly one of drop_pp, divergence and latency_ratio")
        return self


class Mixed(Quantize):
    """Quantization whose layers' precisions are searched; the search turns it into a ``Quantize`` with ``assign``.

    Attributes:
        budget: ``drop_pp`` or ``divergence``: the fastest within it; ``latency_ratio``: the most accurate within it.
        candidates: What a group of layers may compute in; ``float`` is one of them.
        metric: What a group's sensitivity is: ``divergence`` of the outputs, or the increase of the ``loss`` (needs
            labels).
        margin: Share of a drop or divergence budget that is kept in hand on the tuning split.
        tune_samples: How many samples of the tuning split are read (all, where it has fewer).
        latency_groups: How many groups are timed one by one, those with the most MACs; the rest is modelled from them.
        latency_samples: Timed inferences per variant.
        max_minutes: For timing; what is not timed by then is modelled.
    """

    precision: Literal["int8"]
    budget: Budget
    candidates: tuple[Literal["float", "int8", "w7a8"], ...] = ("float", "int8")
    metric: Literal["divergence", "loss"] = "divergence"
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    tune_samples: Annotated[int, Field(ge=1)] = 512
    latency_groups: Annotated[int, Field(ge=1)] = 12
    latency_samples: Annotated[int, Field(ge=10)] = 200
    max_minutes: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _can_choose(self) -> Self:
        if "float" not in self.candidates or len(set(self.candidates)) < 2:
            raise ValueError("candidates needs float and at least one other precision")
        return self

    def resolved(self, assign: Mapping[str, LayerPrecision]) -> Quantize:
        """The plain step that repeats the search's outcome; what the recipe assigned itself comes first."""
        options = {name: getattr(self, name) for name in Quantize.model_fields}
        found = {name: precision for name, precision in assign.items() if name not in self.assign}
        return Quantize(**{**options, "assign": {**self.assign, **found}})


class Convert(_Frozen):
    """Conversion of the whole graph to another float type; inputs and outputs keep theirs.

    Attributes:
        dtype: The type of weights and activations.
        keep_float32: ONNX op types that stay in float32.
        overflow: What becomes of the ops that make or read a value which the type cannot hold on the calibration data:
            they stay in float32 and the report lists them (``keep_float32``), or the run stops (``error``).
        calibration_samples: How many samples are looked at for that (all, where the split has fewer).
    """

    dtype: Literal["float16", "bfloat16"]
    keep_float32: tuple[str, ...] = ()
    overflow: Literal["error", "keep_float32"] = "error"
    calibration_samples: Annotated[int, Field(ge=1)] = 512


class Qat(Quantize):
    """Quantization-aware training: starts from what ``Quantize`` calibrates, then trains weights on the grid itself.

    Attributes:
        observer: Of the ranges that training starts from; ``best`` is for post-training quantization.
        precision: Layers whose inputs are quantized are trained; weight-only ones are not.
        bias_correction: Always off, as is every other technique of ``Quantize``: weights and biases are trained.
        scales: ``learned`` (a step size per activation and per weight channel is trained, LSQ), or ``observed``
            (activations: a moving average of each batch's range; weights: their largest magnitude).
        freeze_ranges_after: For ``observed`` only: how many epochs the activations' ranges still move.
        batchnorm: ``frozen``: folded into the convolutions before training. Else each quantized convolution keeps its
            BatchNorm, on batch statistics for so many epochs, on the running ones from then on.
        training: The loop.
    """

    precision: Literal["int8", "w4a8"]
    observer: Literal["minmax", "moving_average", "percentile", "histogram", "entropy"]
    group_size: None = None
    gptq: Literal[False] = False
    equalize: Literal[False] = False
    smooth: Literal[False] = False
    adaround: None = None
    reestimate_batchnorm: Literal[False] = False
    bias_correction: Literal[False] = False
    scales: Literal["learned", "observed"]
    freeze_ranges_after: Annotated[int, Field(ge=0)] | None = None
    batchnorm: Literal["frozen"] | FreezeAfter
    training: Training


StepConfig = Quantize | Mixed | Qat | Finetune | Distil | Prune | Sparsify | Convert
STEPS: dict[str, type[StepConfig]] = {
    "quantize": Quantize,
    "mixed": Mixed,
    "qat": Qat,
    "finetune": Finetune,
    "distil": Distil,
    "prune": Prune,
    "sparsify": Sparsify,
    "convert": Convert,
}

FLOAT_STEPS: dict[str, str] = {"prune": "pruned", "sparsify": "sparse", "finetune": "finetuned", "distil": "distilled"}
"""The steps that make another float model of one, and what that model is then called.

They come first in a recipe. Each is a stage of its own: its model is stored, exported, held against its own outputs in
PyTorch, and measured beside the original.
"""


def step_name(config: StepConfig) -> str:
    """What a recipe calls a step with these options."""
    return next(name for name, kind in STEPS.items() if type(config) is kind)


def training_of(config: StepConfig) -> Training | None:
    """The training that a step asks for, or None: then it needs no train split."""
    training: Training | None = getattr(config, "training", None)
    return training


def _name_of(step: Any) -> str | None:
    """The step's name: that of its class, or the only key of ``{quantize: {…}}``."""
    if isinstance(step, dict):
        return str(next(iter(step))) if len(step) == 1 else None
    return step_name(step) if type(step) in STEPS.values() else None


def _options_of(step: Any) -> Any:
    """What stands below the step's name; nothing there means no options."""
    if not isinstance(step, dict):
        return step
    options = next(iter(step.values()))
    if not isinstance(options, dict):
        return {} if options is None else options
    # Strict validation takes a JSON list for a tuple, but what passed through here is Python, where it wants a tuple.
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


_Step = Annotated[
    Annotated[Quantize, BeforeValidator(_options_of), Tag("quantize")]
    | Annotated[Qat, BeforeValidator(_options_of), Tag("qat")]
    | Annotated[Finetune, BeforeValidator(_options_of), Tag("finetune")]
    | Annotated[Distil, BeforeValidator(_options_of), Tag("distil")]
    | Annotated[Prune, BeforeValidator(_options_of), Tag("prune")]
    | Annotated[Sparsify, BeforeValidator(_options_of), Tag("sparsify")]
    | Annotated[Mixed, BeforeValidator(_options_of), Tag("mixed")]
    | Annotated[Convert, BeforeValidator(_options_of), Tag("convert")],
    Discriminator(_name_of),
]


class Recipe(_Frozen):
    """One checked, versioned way to optimize a model; or, with a ladder, several to be tried in order.

    Attributes:
        ladder: Names of recipes, the cheapest first, climbed until one meets the limits. Their steps are taken; all else
            (export, measure, parity, limits, objective, options) is this recipe's, so that the rungs can be compared.
        options: By runtime, over the target's own: ``{tensorrt: {max_batch: 16, dla: 0}}``.
    """

    schema_version: Literal[1]
    name: str
    description: str = ""
    steps: tuple[_Step, ...]
    ladder: tuple[str, ...] = ()
    export: Export = Export()
    measure: Measure = Measure()
    parity: ParityLimits = ParityLimits()
    limits: Limits = Limits()
    objective: Literal["latency", "size", "accuracy"] = "latency"
    options: dict[str, dict[str, bool | int | float | str | list[str]]] = Field(default_factory=dict)

    @field_serializer("steps")
    def _write_steps(self, steps: tuple[StepConfig, ...]) -> list[dict[str, Any]]:
        return [{step_name(step): step.model_dump(mode="json")} for step in steps]

    @model_validator(mode="after")
    def _either_steps_or_rungs(self) -> Recipe:
        if self.steps and self.ladder:
            raise ValueError("a recipe with a ladder has no steps of its own; make them a recipe, and that a rung")
        if twice := sorted({name for name in self.ladder if self.ladder.count(name) > 1}):
            raise ValueError(f"the ladder has {', '.join(twice)} more than once")
        return self

    @property
    def float_steps(self) -> tuple[StepConfig, ...]:
        """The steps that yield another float model, in order."""
        return tuple(step for step in self.steps if step_name(step) in FLOAT_STEPS)

    def step(self, kind: type[Any]) -> Any:
        """The step of this kind (or of one derived from it), or None."""
        return next((s for s in self.steps if isinstance(s, kind)), None)
