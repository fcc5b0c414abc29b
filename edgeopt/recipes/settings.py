"""What a recipe says beside its steps: how to export, what to measure, what must hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Export", "Limits", "Measure", "ParityLimits", "Scenario"]

Scenario = Literal["single-stream", "multi-stream", "offline", "server"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Export(_Frozen):
    """The ONNX file. ``batch``: the batch that engines with a static shape are compiled for."""

    dynamic_batch: bool = True
    simplify: bool = True
    batch: Annotated[int, Field(ge=1)] = 1


class Measure(_Frozen):
    """What is measured, and how long.

    Attributes:
        batch_sizes: Batches for throughput; latency is always at ``export.batch``.
        threads: Threads of the runtime; null means all cores.
        latency_samples: Timed inferences per engine, taken in interleaved blocks of ``block``.
        warmup: Untimed inferences before the first block: at least so many.
        warmup_within_pct: Warm-up goes on until the medians of three successive windows of 10 inferences are no further
            apart than this; null: only ``warmup``.
        warmup_most: No more than so many inferences of warm-up.
        warmup_limit_s: No longer than so many seconds, once ``warmup`` have been run.
        precision: How narrow the interval of a ratio of latencies must become, as a share of 1 to either side (0.05);
            rounds are added until it is, or until ``precision_limit_s``. Null: no more than ``latency_samples``.
        precision_limit_s: The time that rounds may be added for.
        scenarios: How engines are asked (MLPerf LoadGen's words); single-stream is always measured.
        samples_per_query: Of multi-stream.
        server_qps: Of server: queries per second; null: searched where ``server_p99_ms`` is given, else half of what the
            engine can do one after another.
        server_p99_ms: Of server: the bound on p99, for the highest rate that holds it.
        server_seconds: Of server: how long one rate is kept up.
        forms: Whether further forms of an int8 graph that are faster for some nets (the target's ``faster_forms``) are
            timed beside the first, and taken where they are.
        roofline: Whether the layers of what is shipped are held against the machine's peaks, in the report.
    """

    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 8)
    threads: Annotated[int, Field(ge=1)] | None = 1
    latency_samples: Annotated[int, Field(ge=10)] = 400
    block: Annotated[int, Field(ge=1)] = 20
    warmup: Annotated[int, Field(ge=0)] = 30
    warmup_within_pct: Annotated[float, Field(gt=0)] | None = 5.0
    warmup_most: Annotated[int, Field(ge=1)] = 1000
    warmup_limit_s: Annotated[float, Field(gt=0)] = 10.0
    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision_limit_s: Annotated[float, Field(gt=0)] = 120.0
    scenarios: tuple[Scenario, ...] = ("single-stream",)
    samples_per_query: Annotated[int, Field(ge=1)] = 8
    server_qps: Annotated[float, Field(gt=0)] | None = None
    server_p99_ms: Annotated[float, Field(gt=0)] | None = None
    server_seconds: Annotated[float, Field(gt=0)] = 10.0
    forms: bool = True
    roofline: bool = True


class ParityLimits(_Frozen):
    """What each stage may differ by.

    Attributes:
        float_max_abs: Float against float: largest difference, relative to max(1, largest output).
        float_cosine: Likewise: smallest cosine.
        int8_sqnr_db: Int8 (or float16) against FP32: smallest SQNR of the outputs.
        int8_top1_agreement: Likewise: smallest share of equal predictions.
        export_sqnr_db: The exported int8 graph against the quantized program. They compute the same grids, but a sum
            that rounds the other way moves a value by a whole step, and in a deep net the steps add up.
        samples: How many samples every comparison uses.
    """

    float_max_abs: Annotated[float, Field(gt=0)] = 1e-3
    float_cosine: Annotated[float, Field(gt=0, le=1)] = 0.9999
    int8_sqnr_db: float = 10.0
    int8_top1_agreement: Annotated[float, Field(ge=0, le=1)] = 0.9
    export_sqnr_db: float = 20.0
    samples: Annotated[int, Field(ge=1)] = 64


class Limits(_Frozen):
    """What the artifact must hold to be shipped; null: no limit. The same keys in recipes and in a gate's limits file.

    Attributes:
        drop_pp: Accuracy drop against FP32, percentage points.
        drops: Largest drop against FP32 in other metrics, by the metric's name, in its unit; worse is positive.
        worst_slice_drop_pp: Drop against FP32 in every slice of the test split (class, manifest column).
        latency_ratio: p50 latency against FP32 on the same runtime; ``latency_p99_ratio``: p99 likewise.
        latency_p50_ms: Largest p50 latency on the device; ``latency_p99_ms``: largest p99.
        cold_start_ms: Largest time to load and run once in a fresh process.
        agreement: Smallest share of samples predicted as FP32 predicts them.
        size_mib: Largest engine on disk.
        peak_memory_mib: Largest peak memory above the runtime's baseline.
        int8_macs: Smallest share (0.95) of the multiply-accumulates that the runtime really runs in int8. INCONCLUSIVE where
            only the plan or a stand-in tells.
    """

    drop_pp: float | None = None
    drops: dict[str, float] = Field(default_factory=dict)
    worst_slice_drop_pp: float | None = None
    latency_ratio: float | None = None
    latency_p99_ratio: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    cold_start_ms: float | None = None
    agreement: float | None = None
    size_mib: float | None = None
    peak_memory_mib: float | None = None
    int8_macs: Annotated[float, Field(ge=0, le=1)] | None = None
