# ruff: noqa: T201
"""Builds a TensorRT engine from the ONNX file beside this script, on the device that will run it.

    python3 build_engine.py            # writes model.plan and layers.json
    python3 build_engine.py --verify   # then runs reference_inputs.npz and compares with reference_outputs.npz

Needs Python 3.8 and ``tensorrt`` (on a Jetson: ``sudo apt install python3-libnvinfer``; on a PC: ``pip install
tensorrt``) or ``tensorrt_rtx``. The precision is in the ONNX file (QuantizeLinear/DequantizeLinear): nothing is
calibrated here and no precision flag exists. Defaults come from ``build.json`` beside this script.

Exit codes: 0 built (and verified); 1 not built; 4 built, but the outputs differ from the reference.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEFAULTS = {
    "onnx": "model.onnx",
    "min_batch": 1,
    "opt_batch": 1,
    "max_batch": 1,
    "workspace_mib": 1024,
    "sparse_weights": False,
}
MODULES = ("tensorrt", "tensorrt_rtx")
# What TensorRT says → what to do about it. The first match wins.
ADVICE = (
    (
        r"plugin not found|no importer|unsupported.*operator",
        "The operator is not in this TensorRT version's list: upgrade TensorRT, or replace the operator in the model.",
    ),
    (
        r"profile",
        "The input is dynamic and the profile does not cover it: set --min-batch, --opt-batch and --max-batch.",
    ),
    (
        r"out of memory|outofmemory|insufficient memory|cudamalloc|allocat",
        "Free memory (stop the desktop; on a Jetson add swap), or lower --workspace-mib or --max-batch.",
    ),
    (
        r"zero.?point|shiftisallzeros",
        "TensorRT takes symmetric int8 only: compile for this target with edgeopt, which writes that dialect.",
    ),
    (
        r"insufficient driver|cuda initialization|cuda.*error:? \(?(35|100|999)\b|no cuda|with error (35|100|999)\b",
        "No usable NVIDIA GPU or driver: run this on the device itself (in a container: with NVIDIA's runtime).",
    ),
    (
        r"unsupported sm|compute capability|not supported on this (gpu|platform)|target gpu",
        "This TensorRT version does not know this GPU: install the one that belongs to the device's JetPack or driver.",
    ),
    (
        r"version|serializ|platform|cannot read",
        "An engine belongs to one TensorRT version and one GPU: build it again here.",
    ),
    (
        r"opset|ir.?version",
        "This TensorRT version may be too old for the file's ONNX opset: upgrade it, or compile with a lower opset.",
    ),
)


class BuildError(Exception):
    """The engine cannot be built; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Build, and verify where asked. Returns the exit code."""
    args = parse_arguments(arguments)
    report: dict[str, Any] = {"ok": False, "module": None, "version": None, "errors": [], "kernels": []}
    try:
        trt, module = import_tensorrt(args.module)
        report.update(module=module, version=str(trt.__version__))
        build(trt, args, report)
        report["ok"] = True
        if args.verify:
            report["verify"] = verify(args, module)
    except BuildError as error:
        report["errors"] = [*report["errors"], str(error)]
        print(f"ERROR: {error}", file=sys.stderr)
    if args.report:
        write_atomically(Path(args.report), json.dumps(report, indent=1).encode())
    if not report["ok"] or report["errors"]:
        return 1
    return 0 if report.get("verify", {}).get("passed", True) else 4


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; ``build.json`` beside this script gives the defaults."""
    defaults = dict(DEFAULTS)
    settings = HERE / "build.json"
    if settings.is_file():
        stored = json.loads(settings.read_text())
        defaults.update({key: stored[key] for key in DEFAULTS if key in stored})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", default=str(HERE / str(defaults["onnx"])), help="the model (default: beside this)")
    parser.add_argument("--output", default=str(HERE / "model.plan"), help="the engine (default: model.plan)")
    parser.add_argument("--module", choices=("auto", *MODULES), default="auto", help="which TensorRT to use")
    parser.add_argument("--min-batch", type=_positive, default=defaults["min_batch"], help="for a dynamic batch")
    parser.add_argument("--opt-batch", type=_positive, default=defaults["opt_batch"], help="the batch to be fast at")
    parser.add_argument("--max-batch", type=_positive, default=defaults["max_batch"])
    parser.add_argument("--workspace-mib", type=_positive, default=defaults["workspace_mib"], help="scratch memory")
    parser.add_argument(
        "--sparse-weights",
        action="store_true",
        default=bool(defaults["sparse_weights"]),
        help="look for kernels that skip the zeros of 2:4 sparse weights",
    )
    parser.add_argument("--timing-cache", default=str(HERE / "timing.cache"), help="makes the next build faster")
    parser.add_argument("--verify", action="store_true", help="run the reference inputs and compare")
    parser.add_argument("--min-cosine", type=float, default=0.99, help="what --verify accepts per output")
    parser.add_argument("--parse-only", action="store_true", help="parse the model and stop")
    parser.add_argument(
        "--ahead-of-time", metavar="SM", help="tensorrt_rtx: build for this compute capability (86), without a GPU"
    )
    parser.add_argument("--report", help="write what happened to this file, as JSON")
    args = parser.parse_args(arguments)
    if not args.min_batch <= args.opt_batch <= args.max_batch:
        parser.error("the batches must be in order: --min-batch <= --opt-batch <= --max-batch")
    if not Path(args.onnx).is_file():
        parser.error(f"there is no file {args.onnx}")
    return args


def import_tensorrt(wanted: str) -> tuple[Any, str]:
    """Import the TensorRT asked for; ``auto`` takes the first that is here.

    Raises:
        BuildError: There is none, or it is too old.
    """
    failures = []
    for module in MODULES if wanted == "auto" else (wanted,):
        try:
            trt = importlib.import_module(module)
        except ImportError as error:
            failures.append(f"{module}: {error}")
            continue
        major = int(str(trt.__version__).split(".")[0])
        if module == "tensorrt" and major < 10:
            raise BuildError(
                f"TensorRT {trt.__version__} is too old: 10 or newer builds strongly typed networks. "
                "On a Jetson, upgrade to JetPack 6.1 or newer."
            )
        return trt, module
    raise BuildError(
        f"TensorRT is not installed for this Python ({sys.executable}): {'; '.join(failures)}. On a Jetson: sudo apt "
        "install python3-libnvinfer, and use the system's python3. On a PC: pip install tensorrt (or tensorrt-rtx)."
    )


def build(trt: Any, args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Parse, build, and write the engine and ``layers.json``. Fills ``report``.

    Raises:
        BuildError: TensorRT refused; its first message is in the error.
    """
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    if builder is None:
        raise failure("TensorRT cannot start", logger.errors)
    # From TensorRT 11 every network is strongly typed and the flag may be gone.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)  # the network must outlive it
    if not parser.parse_from_file(str(args.onnx)):
        # Without a GPU every parser error is followed by a spurious CUDA one: only the first counts.
        raise failure("TensorRT cannot parse the model", parser_errors(parser) or logger.errors)
    report["layers"] = network.num_layers
    if args.parse_only:
        return
    config = make_config(trt, builder, network, args)
    cache = timing_cache(trt, config, args)
    print("Building; this can take minutes ...", file=sys.stderr)
    started = time.perf_counter()
    blob = builder.build_serialized_network(network, config)
    if blob is None:
        raise failure("TensorRT cannot build the engine", logger.errors)
    report["seconds"] = round(time.perf_counter() - started, 3)
    report["kernels"] = kernels_in(logger.layers)
    write_atomically(Path(args.output), bytes(blob))
    report["engine"] = {"file": Path(args.output).name, "bytes": Path(args.output).stat().st_size}
    if cache is not None:
        write_atomically(Path(args.timing_cache), bytes(config.get_timing_cache().serialize()))
    layers = layer_information(trt, logger, blob) if not args.ahead_of_time else None
    text = layers or json.dumps({"Layers": report["kernels"]}, indent=1)
    write_atomically(Path(args.output).with_name("layers.json"), text.encode())
    print(f"Wrote {args.output} ({len(bytes(blob)) / 2**20:.1f} MiB) in {report['seconds']} s.", file=sys.stderr)


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors and the dump of layers, and prints warnings."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                print(f"TensorRT: {message}", file=sys.stderr)
            elif message.startswith("Layers:"):
                self.layers = message

    return Logger()


def make_config(trt: Any, builder: Any, network: Any, args: argparse.Namespace) -> Any:
    """The build configuration: a profile where the batch is dynamic, detailed layer names, scratch memory."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, args.workspace_mib << 20)
    if args.sparse_weights:
        # TensorRT looks at the weights itself, and takes a sparse kernel only where it is the faster one.
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = list(tensor.shape)
        if -1 in shape[1:]:
            raise BuildError(f"Input {tensor.name} varies beyond its batch ({shape}): export it with fixed sizes.")
        if shape and shape[0] == -1:
            dynamic = True
            sizes = [(batch, *shape[1:]) for batch in (args.min_batch, args.opt_batch, args.max_batch)]
            profile.set_shape(tensor.name, *sizes)
    if dynamic:
        config.add_optimization_profile(profile)
    if args.ahead_of_time:
        known = getattr(trt, "ComputeCapability", None)
        member = getattr(known, f"SM{args.ahead_of_time.replace('.', '')}", None)
        if member is None:
            names = [name for name in getattr(known, "__members__", {}) if name.startswith("SM")]
            raise BuildError(
                f"{trt.__name__} cannot build for SM {args.ahead_of_time} without that GPU. "
                f"It can for: {', '.join(names) or 'none (only tensorrt_rtx can)'}."
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(member, 0)
    return config


def timing_cache(trt: Any, config: Any, args: argparse.Namespace) -> Any:
    """Attach the timing cache. None where there is none: TensorRT-RTX times nothing."""
    if trt.__name__ != "tensorrt":
        return None
    file = Path(args.timing_cache)
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        print("The timing cache is from another version or device and is not used.", file=sys.stderr)
        return None
    return cache


def parser_errors(parser: Any) -> list[str]:
    """The parser's errors, the node first."""
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
        errors.append(node + error.desc())
    return errors


def failure(what: str, errors: list[str]) -> BuildError:
    """An error with TensorRT's first message and what to do about it."""
    first = next((line.strip() for error in errors for line in error.splitlines() if line.strip()), "it gave no reason")
    advice = next((text for pattern, text in ADVICE if re.search(pattern, first, re.IGNORECASE)), "")
    return BuildError(f"{what}: {first.rstrip('.')}. {advice}".strip())


def kernels_in(dump: str) -> list[dict[str, Any]]:
    """The kernels of a verbose ``Layers:`` dump.

    Returns:
        One per kernel: its name, its type (``correlation`` and ``gemm`` are convolutions and matrix products), the
        ONNX nodes that it came from, and whether all that it multiplies is int8.
    """
    kernels = []
    for line in dump.splitlines():
        match = re.match(r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: (?P<rest>.*)", line)
        if match is None:
            continue
        operands, _, rest = match["rest"].partition("Outputs: ")
        data, _, constants = operands.partition("Constants: ")
        types = re.findall(r"Datatype: (\w+)", data)
        # The first constant is the weight; those after it are bias and scales, which stay in float.
        types += re.findall(r"Datatype: (\w+)", constants)[: 0 if len(types) > 1 else 1]
        kernels.append(
            {
                "name": match["name"],
                "type": match["type"],
                "onnx": re.findall(r"\[ONNX Layer: ([^\]]*)\]", rest),
                "int8": bool(types) and all(kind == "Int8" for kind in types[:2]),
            }
        )
    return kernels


def layer_information(trt: Any, logger: Any, blob: Any) -> str | None:
    """What the engine inspector says of the engine, as JSON; None where the engine cannot be loaded here."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(blob)
    if engine is None:
        return None
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def verify(args: argparse.Namespace, module: str) -> dict[str, Any]:
    """Run ``reference_inputs.npz`` and compare with ``reference_outputs.npz``, both beside this script.

    Raises:
        BuildError: A file is missing, or the engine does not run.
    """
    try:
        import numpy as np  # noqa: PLC0415

        sys.path.insert(0, str(HERE))
        from tensorrt_execution import Execution  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise BuildError(f"--verify needs NumPy and tensorrt_execution.py beside this script: {error}.") from error
    files = [HERE / "reference_inputs.npz", HERE / "reference_outputs.npz"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BuildError(f"--verify needs {' and '.join(missing)} beside this script.")
    inputs, expected = (dict(np.load(file, allow_pickle=False)) for file in files)
    try:
        with Execution(args.output, module) as execution:
            got = run_all(execution, inputs)
    except (RuntimeError, ImportError, ValueError) as error:
        raise failure("The engine does not run", [str(error)]) from error
    rows, passed = [], True
    for name, want in expected.items():
        a, b = want.astype("float64").ravel(), got[name].astype("float64").ravel()
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = float(a @ b) / norm if norm else float(np.array_equal(a, b))
        rows.append({"output": name, "cosine": cosine, "max_abs": float(np.abs(a - b).max())})
        passed = passed and bool(np.isfinite(b).all()) and cosine >= args.min_cosine
        print(f"{name}: cosine {cosine:.6f}, largest difference {rows[-1]['max_abs']:.3g}")
    print("PASS" if passed else f"FAIL: an output's cosine is below {args.min_cosine}")
    return {"passed": passed, "outputs": rows, "samples": len(next(iter(inputs.values())))}


def run_all(execution: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run all samples in batches that the engine takes; the last is padded by repeating its last sample."""
    import numpy as np  # noqa: PLC0415

    count = len(next(iter(inputs.values())))
    fixed = [shape[0] for _, shape in execution.inputs.values() if shape and shape[0] > 0]
    batch = execution.batch_range[1] if execution.batch_range else fixed[0] if fixed else count
    parts: dict[str, list[Any]] = {}
    for start in range(0, count, batch):
        take = [min(index, count - 1) for index in range(start, start + batch)]
        for name, array in execution.run({name: array[take] for name, array in inputs.items()}).items():
            parts.setdefault(name, []).append(array[: count - start])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, then rename: a half-written file never has the final name."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise BuildError(f"Cannot write {path}: {error}.") from error
    finally:
        if part.exists():
            part.unlink()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
