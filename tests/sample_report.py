"""A synthetic report, as test data: every figure in it is invented, none was measured."""

from __future__ import annotations

import random
from statistics import quantiles

from edgeopt.bundle.document import (
    Candidate,
    ClassRow,
    DataSection,
    DeviceInfo,
    LayerRow,
    LimitRow,
    ModelSection,
    ParityRow,
    Report,
    SplitRow,
    StageRow,
    TargetSection,
    Verdict,
)
from edgeopt.core.events import Event
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.core.spec import TensorSpec

HOST = "Synthetic CPU, 2 cores (test data)"
CLASSES = tuple(str(digit) for digit in range(10))


def measured(name, value, unit, low=None, high=None, n=None, method="paired bootstrap", **conditions):
    interval = None if low is None else Interval(low=low, high=high, method=method)
    return Measurement(name=name, value=value, unit=unit, interval=interval, n=n, device=HOST, conditions=conditions)


def _latencies(seed: int, centre_ms: float, count: int = 400) -> tuple[float, ...]:
    rng = random.Random(seed)
    tail = [rng.expovariate(1 / 0.25) if rng.random() < 0.04 else 0.0 for _ in range(count)]
    return tuple(round(centre_ms * (1 + abs(rng.gauss(0, 0.05)) + t), 6) for t in tail)


def _candidate(seed, runtime, precision, *, centre_ms, accuracy, size, memory, cold, rate, **more) -> Candidate:
    samples = _latencies(seed, centre_ms)
    cuts = quantiles(samples, n=100, method="inclusive")
    at = {"batch": 1, "threads": 1, "warmup": 30}
    correct = accuracy * 360 / 100
    half = 1.96 * (accuracy * (100 - accuracy) / 360) ** 0.5
    figures = [
        measured("accuracy_top1_pct", accuracy, "%", accuracy - half, accuracy + half, 360, "Wilson", split="test"),
        *more.pop("against_fp32", ()),
        measured("latency_p50_ms", cuts[49], "ms", cuts[49] * 0.985, cuts[49] * 1.012, 400, "order statistics", **at),
        measured("latency_p90_ms", cuts[89], "ms", n=400, **at),
        measured("latency_p95_ms", cuts[94], "ms", n=400, **at),
        measured("latency_p99_ms", cuts[98], "ms", cuts[98] * 0.93, cuts[98] * 1.2, 400, "order statistics", **at),
        measured("throughput_per_s", rate[0], "1/s", n=50, batch=1, threads=1),
        measured("throughput_per_s", rate[1], "1/s", n=50, batch=8, threads=1),
        measured("cold_start_ms", cold, "ms", n=1),
        measured("peak_memory_mib", memory, "MiB", n=1, how="VmHWM minus the runtime's baseline"),
        measured("size_mib", size, "MiB", n=1),
    ]
    assert 0 < correct <= 360
    return Candidate(
        id=f"{runtime}-{precision}",
        runtime=runtime,
        precision=precision,
        status="measured",
        measurements=tuple(figures),
        latency_ms=samples,
        **more,
    )


def _against_fp32(drop, low, high, agreement, ratio):
    return (
        measured("drop_pp", drop, "pp", low, high, 360, split="test"),
        measured("agreement_pct", agreement, "%", agreement - 0.9, min(100, agreement + 0.6), 360, "Wilson"),
        measured("latency_ratio", ratio, "1", ratio * 0.97, ratio * 1.03, 400, "bootstrap of interleaved blocks"),
    )


def _classes(seed: int) -> tuple[ClassRow, ...]:
    rng = random.Random(seed)
    rows = []
    for index, name in enumerate(CLASSES):
        drop = rng.choice([0.0, 0.0, 0.0, 2.78, -2.78, 5.56]) if index else 0.0
        rows.append(
            ClassRow(
                label=name,
                samples=36,
                accuracy=measured("accuracy_top1_pct", 97.22 - drop, "%", 85.8, 99.9, 36, "Wilson"),
                drop=measured("drop_pp", drop, "pp", drop - 4.1, drop + 4.6, 36),
            )
        )
    return tuple(rows)


def build_sample_report() -> Report:
    """Four measured candidates on two runtimes, and one that only its device could build."""
    ort, ov = {"runtime_version": "1.31.1"}, {"runtime_version": "2026.4.1"}
    candidates = (
        _candidate(
            1,
            "onnxruntime",
            "fp32",
            centre_ms=0.86,
            accuracy=98.61,
            size=1.09,
            memory=6.41,
            cold=21.7,
            rate=(1150.0, 1890.0),
            role="reference",
            dialect="float",
            **ort,
        ),
        _candidate(
            2,
            "onnxruntime",
            "int8",
            centre_ms=0.57,
            accuracy=98.33,
            size=0.302,
            memory=4.83,
            cold=24.9,
            rate=(1734.0, 3050.0),
            role="candidate",
            dialect="ort-x86",
            classes=_classes(2),
            against_fp32=_against_fp32(0.28, -0.56, 1.11, 99.44, 0.663),
            **ort,
        ),
        _candidate(
            3,
            "openvino",
            "fp32",
            centre_ms=0.84,
            accuracy=98.61,
            size=1.12,
            memory=11.2,
            cold=98.4,
            rate=(1180.0, 2011.0),
            role="reference",
            dialect="float",
            **ov,
        ),
        _candidate(
            4,
            "openvino",
            "int8",
            centre_ms=0.45,
            accuracy=98.33,
            size=0.334,
            memory=9.07,
            cold=131.0,
            rate=(2205.0, 4120.0),
            role="candidate",
            dialect="openvino",
            classes=_classes(4),
            shipped=True,
            against_fp32=_against_fp32(0.28, -0.28, 0.83, 99.72, 0.536),
            **ov,
            events=(
                Event(
                    kind="fallback",
                    stage="compile",
                    node="/head/MatMul",
                    message="The layer runs in float: its input has no Q/DQ.",
                ),
            ),
        ),
        Candidate(
            id="tensorrt-int8",
            runtime="tensorrt",
            runtime_version="10.3",
            precision="int8",
            dialect="tensorrt",
            role="candidate",
            status="not_built",
            reason="A TensorRT engine is built on its own device, and there is none here.",
            next_command="python build_engine.py --onnx model.onnx --save model.plan",
            measurements=(
                not_measured("latency_p50_ms", "ms", "the engine is not built"),
                measured("size_mib", 0.298, "MiB", n=1),
            ),
        ),
    )
    shipped = candidates[3]
    layers = [
        ("stem/conv", "Conv", "int8", "", 38.2),
        ("block1/conv1", "Conv", "int8", "", 36.4),
        ("block1/conv2", "Conv", "int8", "", 33.1),
        ("block1/add", "Add", "int8", "both inputs quantized", 32.7),
        ("block2/conv1", "Conv", "int8", "", 31.5),
        ("block2/conv2", "Conv", "int8", "", 27.9),
        ("block2/downsample", "Conv", "int8", "", 34.8),
        ("block2/add", "Add", "int8", "both inputs quantized", 28.3),
        ("pool", "GlobalAveragePool", "float", "not a weighted op", 29.6),
        ("head/fc", "Gemm", "float", "skipped by the recipe", 31.9),
    ]
    return Report(
        edgeopt_version="0.1.0",
        created="2026-01-02T03:04:05Z",
        command="edgeopt compile examples/digits/model.pt2 --target openvino-cpu --data calibration/digits.yaml",
        seed=0,
        headline=(
            "openvino-int8 is shipped: 1.87× faster than FP32 on the same runtime, at a drop of 0.28 pp [−0.28, 0.83].",
            "One layer left int8 on OpenVINO: /head/MatMul.",
            "The TensorRT engine is not built: its device is not here.",
        ),
        model=ModelSection(
            name="digits-cnn",
            format="pt2",
            sha256="ab" * 32,
            parameters=71_818,
            inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 1, 8, 8)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
        ),
        target=TargetSection(
            name="openvino-cpu",
            title="OpenVINO on an x86-64 CPU",
            measured_here=True,
            reason="This machine has the target's architecture and every instruction-set feature it asks for.",
        ),
        recipe={
            "schema_version": 1,
            "name": "int8-ptq",
            "steps": [{"quantize": {"precision": "int8", "observer": "histogram", "bias_correction": True}}],
            "limits": {"drop_pp": 1.0, "latency_ratio": 1.0},
        },
        objective="latency",
        data=DataSection(
            name="digits (scikit-learn)",
            task="classification",
            fingerprint="cd" * 32,
            classes=CLASSES,
            splits=(
                SplitRow(name="calibration", samples=256, how="split off x, stratified, seed 0", fingerprint="01" * 32),
                SplitRow(name="tune", samples=180, how="split off x, stratified, seed 0", fingerprint="02" * 32),
                SplitRow(name="test", samples=360, how="given as x, y", fingerprint="03" * 32),
            ),
        ),
        device=DeviceInfo(
            name=HOST,
            cpu="Synthetic CPU @ 2.10 GHz",
            arch="x86_64",
            isa=("avx2", "avx512f", "avx512_vnni"),
            cores=2,
            memory_mib=7812,
            system="Linux 6.1, Python 3.11.9",
            conditions={"governor": "unknown", "load at start": "0.31", "virtual machine": "yes"},
        ),
        candidates=candidates,
        verdict=Verdict(
            status="INCONCLUSIVE",
            summary="The drop's interval reaches past its limit with 360 test samples; every other limit holds.",
            limits=(
                LimitRow(
                    name="drop_pp",
                    limit=0.5,
                    figure=shipped.figure("drop_pp"),
                    status="INCONCLUSIVE",
                    message="0.28 pp is inside, the interval's upper end of 0.83 pp is not: about 1,900 samples would tell.",
                ),
                LimitRow(
                    name="latency_ratio",
                    limit=1.0,
                    figure=shipped.figure("latency_ratio"),
                    status="PASS",
                    message="The whole interval is below 1.",
                ),
            ),
        ),
        parity=(
            ParityRow(
                stage="export",
                against="PyTorch FP32",
                tolerance="max |Δ| ≤ 1e-3, cosine ≥ 0.9999",
                passed=True,
                figures=(measured("max_abs", 2.4e-6, "1", n=64), measured("cosine", 0.99999997, "1", n=64)),
            ),
            ParityRow(
                stage="quantize",
                against="PyTorch FP32",
                tolerance="SQNR ≥ 10 dB, agreement ≥ 90 %",
                passed=True,
                figures=(measured("sqnr_db", 27.4, "dB", n=64), measured("agreement_pct", 100.0, "%", n=64)),
            ),
            ParityRow(
                stage="engine openvino-int8",
                against="onnxruntime on the same graph",
                tolerance="SQNR ≥ 10 dB, agreement ≥ 90 %",
                passed=True,
                figures=(measured("sqnr_db", 41.9, "dB", n=64), measured("agreement_pct", 100.0, "%", n=64)),
            ),
        ),
        layers=(
            *(
                LayerRow(name=name, op=op, precision=precision, reason=why, sqnr=measured("sqnr_db", sqnr, "dB", n=64))
                for name, op, precision, why, sqnr in layers
            ),
            LayerRow(
                name="flatten",
                op="Flatten",
                precision="float",
                reason="moves data only",
                sqnr=not_measured("sqnr_db", "dB", "the layer computes nothing"),
            ),
        ),
        stages=tuple(
            StageRow(name=name, wall=measured("wall_s", wall, "s", n=1), cached=cached)
            for name, wall, cached in (
                ("load", 1.84, False),
                ("quantize", 6.31, False),
                ("export", 4.02, True),
                ("compile", 2.75, False),
                ("measure", 14.9, False),
                ("evaluate", 1.12, False),
                ("bundle", 0.38, False),
            )
        ),
        events=(
            Event(kind="warning", stage="data", message="360 test samples resolve drops of 0.5 pp or more."),
            Event(kind="note", stage="export", message="The batch is dynamic."),
        ),
    )
