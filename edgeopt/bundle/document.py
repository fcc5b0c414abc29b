"""The report as a document: what ``report.json`` holds and ``--json`` prints.

Every figure is a ``Measurement``. The JSON Schema of this model is committed beside it (``report.schema.json``)
and a test keeps the two equal; ``SCHEMA_VERSION`` goes up whenever a reader of the old form would break.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgeopt.bundle.accuracy import FlipRow, ReliabilityRow, SliceRow
from edgeopt.bundle.coverage import CoverageRow, CoverageSection
from edgeopt.bundle.mixed import FrontRow, GroupRow, MixedSection
from edgeopt.bundle.numerics import NumericsRow, NumericsSection, OutputDifference
from edgeopt.bundle.pruning import CurveRow, PinnedLayer, PrunedRow, PrunedSection, PruningSection, StairPoint
from edgeopt.bundle.roofline import Roofline
from edgeopt.bundle.waterfall import WaterfallRow, WaterfallSection
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement
from edgeopt.core.spec import TensorSpec

__all__ = [
    "SCHEMA_VERSION",
    "Candidate",
    "ClassRow",
    "CoverageRow",
    "CoverageSection",
    "CurveRow",
    "DataSection",
    "DeviceInfo",
    "FlipRow",
    "FrontRow",
    "GroupRow",
    "LadderSection",
    "LayerRow",
    "LimitRow",
    "MixedSection",
    "ModelSection",
    "NumericsRow",
    "NumericsSection",
    "OutputDifference",
    "ParityRow",
    "PinnedLayer",
    "PrunedRow",
    "PrunedSection",
    "PruningSection",
    "ReliabilityRow",
    "Report",
    "RungRow",
    "SliceRow",
    "SplitRow",
    "StageRow",
    "StairPoint",
    "TargetSection",
    "TrainingEpoch",
    "TrainingSection",
    "TrialRow",
    "Verdict",
    "WaterfallRow",
    "WaterfallSection",
]

SCHEMA_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceInfo(_Frozen):
    """What a figure was measured on. ``name`` is what ``Measurement.device`` repeats."""

    name: str
    cpu: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_mib: int
    system: str
    conditions: dict[str, str]


class ModelSection(_Frozen):
    """The model as it came in."""

    name: str
    format: str
    sha256: str
    parameters: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class TargetSection(_Frozen):
    """The target, and whether the device at hand may stand for it."""

    name: str
    title: str
    measured_here: bool
    reason: str


class SplitRow(_Frozen):
    """A split of the data: how many samples, how it came about."""

    name: str
    samples: int
    how: str
    fingerprint: str


class DataSection(_Frozen):
    """The data that calibrated and judged the model. ``columns``: what else is known of each test sample."""

    name: str
    task: str
    fingerprint: str
    classes: tuple[str, ...]
    splits: tuple[SplitRow, ...]
    columns: tuple[str, ...] = ()


class StageRow(_Frozen):
    """A stage of the run; ``cached``: its result was found, not made."""

    name: str
    wall: Measurement
    cached: bool


class ParityRow(_Frozen):
    """How far a stage's outputs are from the FP32 PyTorch outputs on the same inputs."""

    stage: str
    against: str
    figures: tuple[Measurement, ...]
    tolerance: str
    passed: bool


class LayerRow(_Frozen):
    """One layer: what became of it (``int8``, ``float``), why, and its output's SQNR against FP32."""

    name: str
    op: str
    precision: str
    reason: str
    sqnr: Measurement


class TrainingEpoch(_Frozen):
    """One pass over the train split; epoch 0 is the start, before any training.

    Attributes:
        loss: Mean over the epoch's steps; None for epoch 0.
        learning_rate: Of its last step; None for epoch 0.
        figures: On the tuning split, at its end.
    """

    epoch: int
    loss: float | None
    learning_rate: float | None
    figures: tuple[Measurement, ...]


class TrainingSection(_Frozen):
    """How a training went.

    Attributes:
        step: The recipe's step that trained.
        samples: Of the train split.
        best_epoch: Whose state was kept.
        ended: Why it ended.
    """

    step: str
    samples: int
    best_epoch: int
    ended: str
    epochs: tuple[TrainingEpoch, ...]


class TrialRow(_Frozen):
    """One technique of post-training quantization, and what it brought on the tuning split.

    Attributes:
        name: As the recipe calls it.
        kept: Whether the artifact has it.
        detail: How much it worked on, or why it could not.
        before: ``divergence`` from FP32's outputs (KL in nats for classifiers, else relative squared error), ``sqnr_db``,
            ``agreement_pct``, without the technique; empty where it had nothing to work on. ``after``: with it.
        wall: What it took.
    """

    name: str
    kept: bool
    detail: str
    before: tuple[Measurement, ...] = ()
    after: tuple[Measurement, ...] = ()
    wall: Measurement | None = None


class ClassRow(_Frozen):
    """Accuracy of one class, FP32 and this candidate, on the same samples."""

    label: str
    samples: int
    accuracy: Measurement
    drop: Measurement


class Candidate(_Frozen):
    """One engine that could be shipped, with everything measured about it.

    Attributes:
        id: ``onnxruntime-int8``.
        role: ``reference`` for the model as it came in FP32 on the same runtime; ``stage`` for a float model on the way
            to what the recipe makes, which is measured and never shipped; else ``candidate``.
        stage: What a float step made of the model, where it is such a float model: ``pruned``.
        status: ``measured``; ``not_built`` (only the device can build it); ``not_measured``; ``failed``.
        measurements: Figures by their names: ``accuracy_top1_pct``, ``drop_pp``, ``agreement_pct``,
            ``output_sqnr_db``, ``latency_p50_ms``, ``latency_p90_ms``, ``latency_p95_ms``, ``latency_p99_ms``,
            ``latency_ratio``, ``throughput_per_s`` (one per batch size, in conditions), ``cold_start_ms``,
            ``peak_memory_mib``, ``size_mib``, ``int8_macs_pct``, ``int8_ops_pct``.
        latency_ms: The raw samples.
        slices: Of the test split, the worst drop first.
        flips: The surest of FP32's decisions that changed first; at most 200.
        coverage: What it runs in int8, where the runtime tells.
        reliability: Of a classifier: how its confidence compares with its accuracy, in 15 bins.
    """

    id: str
    runtime: str
    runtime_version: str
    precision: str
    dialect: str
    role: Literal["reference", "stage", "candidate"]
    stage: str = ""
    status: Literal["measured", "not_built", "not_measured", "failed"]
    reason: str = ""
    next_command: str | None = None
    shipped: bool = False
    measurements: tuple[Measurement, ...] = ()
    latency_ms: tuple[float, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    flips: tuple[FlipRow, ...] = ()
    reliability: tuple[ReliabilityRow, ...] = ()
    coverage: CoverageSection | None = None
    events: tuple[Event, ...] = ()

    def figure(self, name: str) -> Measurement | None:
        """The measurement of that name (the first, where there are several), or None."""
        return next((m for m in self.measurements if m.name == name), None)


class LimitRow(_Frozen):
    """One limit, the figure it judged, and the outcome."""

    name: str
    limit: float
    figure: Measurement
    status: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    message: str


class Verdict(_Frozen):
    """PASS: every interval lies inside its limit; FAIL: one lies outside; INCONCLUSIVE: one straddles."""

    status: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    summary: str
    limits: tuple[LimitRow, ...] = ()


class RungRow(_Frozen):
    """One rung of a ladder.

    Attributes:
        name: The recipe's.
        status: ``met``: inside the limits, as far as the figures tell; ``missed``; ``failed``: its engines may not be
            shipped; ``skipped``: it could not be tried; ``interrupted``; ``not_needed``: an earlier one met the limits.
        message: Which limits, or why.
        candidate: The id of its best candidate.
        figures: That candidate's, when the rung was judged: ``accuracy_top1_pct``, ``drop_pp``, ``latency_p50_ms``,
            ``latency_ratio``, ``size_mib``.
        wall: Spent on it.
        elapsed: Since the run began, at its end.
    """

    name: str
    status: Literal["met", "missed", "failed", "skipped", "interrupted", "not_needed"]
    message: str = ""
    candidate: str | None = None
    figures: tuple[Measurement, ...] = ()
    wall: Measurement | None = None
    elapsed: Measurement | None = None

    def figure(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.figures if m.name == name), None)


class LadderSection(_Frozen):
    """The rungs of a recipe with a ladder.

    Attributes:
        ended: ``met``: at a rung inside the limits; ``top``: every rung was tried; ``time``: the time was up;
            ``interrupted``: the user's Ctrl-C; ``open``: written while the next rung is being tried.
        summary: In one sentence.
        max_minutes: The time limit, where there was one.
    """

    ended: Literal["met", "top", "time", "interrupted", "open"]
    summary: str
    max_minutes: float | None
    rungs: tuple[RungRow, ...]


class Report(_Frozen):
    """The whole story of one compile.

    Attributes:
        headline: The findings a reader must see first, the most important first.
        verdict: Of the shipped candidate.
        ladder: Of a recipe with a ladder: how each rung went.
        mixed: Of each step that searched for mixed precision.
        pruning: Of each step that searched for channel counts.
        pruned: Of each prune step: what it took away.
        waterfall: Of a recipe with float steps: from FP32 over each of them to what is made.
        numerics: What was shipped on other instruction sets, where that was asked for.
        roofline: Its layers against the machine's peaks, where it was measured and its runtime has a profiler.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    edgeopt_version: str
    created: str
    command: str
    seed: int
    headline: tuple[str, ...]
    model: ModelSection
    target: TargetSection
    recipe: dict[str, Any]
    objective: str
    data: DataSection | None
    device: DeviceInfo
    candidates: tuple[Candidate, ...]
    verdict: Verdict
    parity: tuple[ParityRow, ...]
    layers: tuple[LayerRow, ...]
    stages: tuple[StageRow, ...]
    events: tuple[Event, ...]
    training: tuple[TrainingSection, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    ladder: LadderSection | None = None
    mixed: tuple[MixedSection, ...] = ()
    pruning: tuple[PruningSection, ...] = ()
    pruned: tuple[PrunedSection, ...] = ()
    waterfall: WaterfallSection | None = None
    numerics: NumericsSection | None = None
    roofline: Roofline | None = None

    @property
    def shipped(self) -> Candidate:
        """The candidate whose engine is in the bundle."""
        return next(c for c in self.candidates if c.shipped)
