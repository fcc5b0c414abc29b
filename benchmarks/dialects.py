"""Every dialect on every runtime that is here, against the neutral graph computed as it is written.

    python benchmarks/zoo/train.py build/zoo
    python benchmarks/dialects.py build/zoo --json build/dialects.json

Per net: quantized once, written in every dialect, each compiled and run on ONNX Runtime (all optimizations) and OpenVINO
(static batch 1), on the test split and on noise. What they are compared with runs on ONNX Runtime with its optimizations
off, where every Q/DQ is computed in float32 as the file says. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from zoo_folder import Net, add_arguments, find_nets, use_own_cache

import edgeopt
from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.load import Bundle
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.dialects.registry import DIALECTS
from edgeopt.graph.io import load_onnx
from edgeopt.graph.parity import sqnr_db
from edgeopt.graph.passes.round_bfloat16 import has_bfloat16, write_rounded
from edgeopt.pipeline.serve import run_in_batches
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules

RUNTIMES = ("onnxruntime", "openvino")
NOISE = 256  # samples
OVERRIDES = (
    # nothing is timed here
    *("measure.latency_samples=10", "measure.block=10", "measure.batch_sizes=[1]", "measure.forms=false"),
    *("objective=size", "limits.drop_pp=100"),  # ship the quantized graph, be it slow or wrong: that is to be shown
)
HEAD = (
    *("net", "dialect", "runtime", "points", "Δ neutral: max", "> 1, %", "Δ itself: max", "> 1, %", "on noise: max"),
    *("SQNR, dB", "top-1, %", "drop, pp"),
)
NOTES = """\
Δ counts in quanta of the scores: the step of a symmetric int8 grid that just holds FP32's scores on the test split, max
|score| / 127. Neutral: the portable graph. Itself: the same dialect's file. Both as written, on ONNX Runtime without
optimizations. Points: `same` where the dialect only encodes the neutral grids in another way, so that it must compute what
neutral computes; `finer` where a grid has smaller steps in the same range, another rounding of the same tensors, or what is float is
bfloat16, which its SQNR and top-1 must not suffer from; `coarser` where the runtime has or likes only larger ones. On noise: Δ itself on 256 random inputs. SQNR, drop: against FP32.
"""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net in one dialect on one runtime. None: not run; ``why`` says why.

    Attributes:
        neutral_max: Largest difference from the neutral graph, quanta; ``neutral_over_pct``: share of scores > 1.
        own_max: Likewise from the dialect's own file as written; ``noise_max`` on random inputs.
    """

    net: str
    dialect: str
    runtime: str
    points: str = ""
    neutral_max: float | None = None
    neutral_over_pct: float | None = None
    own_max: float | None = None
    own_over_pct: float | None = None
    noise_max: float | None = None
    sqnr_db: float | None = None
    top1_pct: float | None = None
    drop_pp: float | None = None
    samples: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A quantized net with what its dialects are compared with.

    Attributes:
        graph: The neutral graph.
        x: Test samples, and ``noise`` random ones, by input name.
        fp32: Scores of the float graph on ``x``, and ``neutral`` of the neutral one as written, [N, classes].
        quantum: Of the scores.
    """

    net: str
    graph: Path
    x: Arrays
    noise: Arrays
    labels: np.ndarray
    fp32: np.ndarray
    neutral: np.ndarray
    quantum: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare every dialect with the neutral graph, on every runtime.")
    add_arguments(parser)
    parser.add_argument("--recipe", default="int8-ptq", metavar="NAME", help="default: int8-ptq")
    parser.add_argument("--samples", type=int, metavar="N", help="only the first N test samples (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    arguments = parser.parse_args()
    use_own_cache(arguments.zoo)
    runtimes = [name for name in RUNTIMES if BACKENDS[name].available().version is not None]
    rows: list[Row] = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for net in find_nets(arguments.zoo, arguments.nets):
        for row in rows_of(net, runtimes, arguments.recipe, arguments.samples):
            rows.append(row)
            print(line(row), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    print(f"\n{NOTES}")
    return 0


def rows_of(net: Net, runtimes: list[str], recipe: str, samples: int | None) -> Iterator[Row]:
    """The neutral graph's row, then one per dialect and runtime."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-dialects-") as scratch:
        folder = Path(scratch)
        case = make_case(net, folder, recipe, samples)
        yield row_of(case, "neutral", "as written", case.neutral)
        for dialect in DIALECTS:
            path = folder / f"{dialect}.onnx"
            try:
                made = apply_dialect(dialect, case.graph, path)
            except EdgeOptError as error:
                yield Row(net=net.name, dialect=dialect, runtime="–", why=f"refused: {error.what}")
                continue
            own = run(path, "onnxruntime", case, as_written=True)
            for runtime in runtimes:
                try:
                    outputs, on_noise = run(path, runtime, case)
                except EdgeOptError as error:
                    yield Row(net=net.name, dialect=dialect, runtime=runtime, why=error.what)
                    continue
                yield row_of(
                    case,
                    dialect,
                    runtime,
                    outputs,
                    points="same" if made.same_points else "coarser" if made.coarser else "finer",
                    own=quanta(outputs, own[0], case.quantum),
                    noise=quanta(on_noise, own[1], case.quantum),
                )


def row_of(
    case: Case,
    dialect: str,
    runtime: str,
    outputs: np.ndarray,
    *,
    points: str = "",
    own: np.ndarray | None = None,
    noise: np.ndarray | None = None,
) -> Row:
    """The figures of one run. ``own``, ``noise``: differences from the dialect's file as written, in quanta."""
    neutral = quanta(outputs, case.neutral, case.quantum)
    return Row(
        net=case.net,
        dialect=dialect,
        runtime=runtime,
        points=points,
        neutral_max=float(neutral.max()),
        neutral_over_pct=float(100 * (neutral > 1).mean()),
        own_max=None if own is None else float(own.max()),
        own_over_pct=None if own is None else float(100 * (own > 1).mean()),
        noise_max=None if noise is None else float(noise.max()),
        sqnr_db=sqnr_db(case.fp32, outputs),
        top1_pct=top1(outputs, case.labels),
        drop_pp=top1(case.fp32, case.labels) - top1(outputs, case.labels),
        samples=len(case.labels),
    )


def make_case(net: Net, folder: Path, recipe: str, samples: int | None) -> Case:
    """Quantize a net once, and run what its dialects are compared with."""
    compiled = {
        name: edgeopt.compile(
            net.model, target="local", data=str(net.data), recipe=name, overrides=OVERRIDES, output=folder / name
        )
        for name in ("fp32", recipe)
    }
    if compiled[recipe].manifest.precision in {"fp32", "fp16"}:
        sys.exit(f"{recipe} left {net.name} in {compiled[recipe].manifest.precision}: there is no dialect to compare")
    x, labels = test_split(net, compiled[recipe], samples)
    random = np.random.default_rng(0)
    noise = {k: random.normal(v.mean(), v.std(), (NOISE, *v.shape[1:])).astype(np.float32) for k, v in x.items()}
    empty = np.empty(0)
    graph = compiled[recipe].directory / "model.onnx"
    bare = Case(
        net=net.name, graph=graph, x=x, noise=noise, labels=labels, fp32=empty, neutral=empty, quantum=float("nan")
    )
    fp32, _ = run(compiled["fp32"].directory / "model.onnx", "onnxruntime", bare)
    neutral, _ = run(graph, "onnxruntime", bare, as_written=True)
    return replace(bare, fp32=fp32, neutral=neutral, quantum=float(np.abs(fp32).max()) / 127)


def run(path: Path, runtime: str, case: Case, *, as_written: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Compile a graph as edgeopt does, at batch 1; its first output on the case's samples, and on its noise.

    ONNX Runtime, which has no bfloat16 kernels, computes what is bfloat16 as float32, each value rounded.
    """
    target = find_target("local")
    rules = next(rules for rules in target.runtimes if rules.name == runtime)
    if as_written:
        off = {"graph_optimization_level": "disable"}
        rules = RuntimeRules.model_validate(rules.model_dump() | {"options": dict(rules.options) | off})
    with tempfile.TemporaryDirectory(prefix="edgeopt-dialects-") as folder:
        source, place = path, Path(folder) / "engine"
        place.mkdir()
        if runtime == "onnxruntime" and has_bfloat16(model := load_onnx(path)):
            source = write_rounded(model, Path(folder) / "rounded.onnx")
        engine = BACKENDS[runtime].compile(source, target, rules, place, 1)
        with BACKENDS[runtime].load(engine, 1) as runner:
            return in_pieces(runner, engine, case.x), in_pieces(runner, engine, case.noise)


def in_pieces(runner: Runner, engine: Engine, x: Arrays, size: int = 100) -> np.ndarray:
    """The first output; a dynamic engine would take all samples at once, and the memory for them."""
    count, name = len(next(iter(x.values()))), engine.outputs[0].name
    pieces = [{k: v[start : start + size] for k, v in x.items()} for start in range(0, count, size)]
    return np.concatenate([run_in_batches(runner, engine, piece)[name] for piece in pieces])


def test_split(net: Net, compiled: Bundle, samples: int | None) -> tuple[Arrays, np.ndarray]:
    """The first test samples by input name, and their labels."""
    contract = compiled.manifest.contract
    inputs = tuple(TensorSpec(name=i.name, dtype=i.dtype, shape=i.shape) for i in contract.inputs)
    outputs = tuple(TensorSpec(name=o.name, dtype=o.dtype, shape=o.shape) for o in contract.outputs)
    split = load_data(str(net.data), inputs=inputs, outputs=outputs).splits["test"]
    batch = next(split.batches(samples or len(split), samples))
    if batch.targets is None:
        sys.exit(f"{net.data} has no labels")
    return {spec.name: array for spec, array in zip(inputs, batch.inputs, strict=True)}, batch.targets


def quanta(outputs: np.ndarray, reference: np.ndarray, quantum: float) -> np.ndarray:
    return np.abs(outputs.astype(np.float64) - reference) / quantum


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of right predictions, in percent."""
    return float(100 * (scores.argmax(1) == labels).mean())


def line(row: Row) -> str:
    """A row of the table in Markdown."""
    names = [row.net, row.dialect, row.runtime]
    if row.why:
        return f"| {' | '.join([*names, row.why, *[''] * (len(HEAD) - 4)])} |"
    differences = [row.neutral_max, row.neutral_over_pct, row.own_max, row.own_over_pct, row.noise_max]
    texts = ["–" if figure is None else f"{figure:.2f}" for figure in differences]
    sqnr = "∞" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
    return f"| {' | '.join([*names, row.points, *texts, sqnr, f'{row.top1_pct:.2f}', f'{row.drop_pp:.2f}'])} |"


if __name__ == "__main__":
    sys.exit(main())
