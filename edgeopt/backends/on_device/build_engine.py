# ruff: noqa: T201
"""Builds a TensorRT engine from the ONNX file beside this script, on the device that will run it.

    python3 build_engine.py            # writes model.plan and layers.json
    python3 build_engine.py --verify   # then runs reference_inputs.npz and compares with reference_outputs.npz
    python3 build_engine.py --verify-only   # the engine that is here already, built earlier or elsewhere

Needs Python 3.8 and ``tensorrt`` (on a Jetson: ``sudo apt install python3-libnvinfer``; on a PC: ``pip install
tensorrt``) or ``tensorrt_rtx``. The precision is in the ONNX file (QuantizeLinear/DequantizeLinear): nothing is
calibrated here and no precision flag exists. Defaults come from ``build.json`` beside this script, which also says what
the bundle was made for: another kind of device, or a TensorRT that the target does not ask for, is refused.

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
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))  # last: nothing here may shadow an installed package

from engine_config import load_plugin, make_config, timing_cache, write_atomically  # type: ignore[import-not-found, unused-ignore]  # noqa: E402
from engine_failures import BuildError, failure  # type: ignore[import-not-found, unused-ignore]  # noqa: E402
from engine_passport import TEGRA_RELEASE, passport_of  # type: ignore[import-not-found, unused-ignore]  # noqa: E402
from engine_place import check_place, check_space  # type: ignore[import-not-found, unused-ignore]  # noqa: E402
from engine_verify import verify  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

DEFAULTS: dict[str, Any] = {
    "onnx": "model.onnx",
    "min_batch": 1,
    "opt_batch": 1,
    "max_batch": 1,
    "workspace_mib": 1024,
    "sparse_weights": False,
    "dla": None,
    "made_for": {},
}
MODULES = ("tensorrt", "tensorrt_rtx")


def main(arguments: list[str] | None = None) -> int:
    """Build, and verify where asked. Returns the exit code."""
    args = parse_arguments(arguments)
    report: dict[str, Any] = {"ok": False, "module": None, "version": None, "errors": [], "kernels": []}
    try:
        trt, module = import_tensorrt(args.module)
        report.update(module=module, version=str(trt.__version__))
        for library in args.plugin:
            load_plugin(library)
        if not args.verify_only:
            build(trt, args, report)
        report["ok"] = True
        if args.verify or args.verify_only:
            report["verify"] = verify(args, module)
    except BuildError as error:
        report["errors"] = [*report["errors"], str(error)]
        report["kind"] = error.kind
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
    parser.add_argument(
        "--dla",
        type=int,
        metavar="CORE",
        default=defaults["dla"],
        help="run what it takes on this DLA, the rest on the GPU",
    )
    parser.add_argument("--no-dla", dest="dla", action="store_const", const=None, help="everything on the GPU")
    parser.add_argument("--plugin", action="append", default=[], metavar="LIBRARY.so", help="a library of plug-ins")
    parser.add_argument("--any-version", action="store_true", help="build on another release or TensorRT too")
    parser.add_argument(
        "--tegra-release",
        default=TEGRA_RELEASE,
        metavar="FILE",
        help="Jetson Linux's number (in a container: the host's)",
    )
    parser.add_argument("--timing-cache", default=str(HERE / "timing.cache"), help="makes the next build faster")
    parser.add_argument("--verify", action="store_true", help="run the reference inputs and compare")
    parser.add_argument("--verify-only", action="store_true", help="build nothing; verify the engine that is here")
    parser.add_argument("--min-cosine", type=float, default=0.99, help="what --verify accepts per output")
    parser.add_argument("--parse-only", action="store_true", help="parse the model and stop")
    parser.add_argument(
        "--ahead-of-time", metavar="SM", help="tensorrt_rtx: build for this compute capability (86), without a GPU"
    )
    parser.add_argument("--report", help="write what happened to this file, as JSON")
    args = parser.parse_args(arguments)
    if not args.min_batch <= args.opt_batch <= args.max_batch:
        parser.error("the batches must be in order: --min-batch <= --opt-batch <= --max-batch")
    if not args.verify_only and not Path(args.onnx).is_file():
        parser.error(f"there is no file {args.onnx}")
    if args.dla is not None and args.min_batch != args.max_batch:
        parser.error("a DLA takes no dynamic shapes: --min-batch, --opt-batch and --max-batch must be equal")
    args.made_for = {} if args.ahead_of_time or args.parse_only else dict(defaults["made_for"])
    if args.any_version:
        args.made_for.pop("versions", None)
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
                "On a Jetson, upgrade to JetPack 6.1 or newer.",
                "wrong_version",
            )
        return trt, module
    raise BuildError(
        f"TensorRT is not installed for this Python ({sys.executable}): {'; '.join(failures)}. On a Jetson: sudo apt "
        "install python3-libnvinfer, and use the system's python3. On a PC: pip install tensorrt (or tensorrt-rtx).",
        "missing_package",
    )


def build(trt: Any, args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Parse, build, and write the engine and ``layers.json``. Fills ``report``.

    Raises:
        BuildError: TensorRT refused; its first message is in the error.
    """
    sm = int(args.ahead_of_time.replace(".", "")) if args.ahead_of_time else None
    here = passport_of(trt.__name__, str(trt.__version__), args.tegra_release, sm)
    check_place(args.made_for, here)
    if not args.parse_only:
        check_space(Path(args.onnx), Path(args.output))
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    if builder is None:
        raise failure("TensorRT cannot start", logger.errors)
    # From TensorRT 11 every network is strongly typed and the flag may be gone.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)  # the network must outlive it
    adjust = getattr(getattr(trt, "OnnxParserFlag", None), "ADJUST_FOR_DLA", None)
    if args.dla is not None and adjust is not None:
        parser.set_flag(adjust)
    if not parser.parse_from_file(str(args.onnx)):
        # Without a GPU every parser error is followed by a spurious CUDA one: only the first counts.
        raise failure("TensorRT cannot parse the model", parser_errors(parser) or logger.errors)
    report["layers"] = network.num_layers
    if args.parse_only:
        return
    config = make_config(trt, builder, network, args)
    cache = timing_cache(trt, config, args, here)
    print("Building; this can take minutes ...", file=sys.stderr)
    started = time.perf_counter()
    blob = builder.build_serialized_network(network, config)
    if blob is None:
        raise failure("TensorRT cannot build the engine", logger.errors)
    report["seconds"] = round(time.perf_counter() - started, 3)
    report["kernels"] = kernels_in(logger.layers)
    write_atomically(Path(args.output), bytes(blob), here)
    report["engine"] = {"file": Path(args.output).name, "bytes": Path(args.output).stat().st_size}
    if cache is not None:
        write_atomically(Path(args.timing_cache), bytes(config.get_timing_cache().serialize()), here)
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


def parser_errors(parser: Any) -> list[str]:
    """The parser's errors, the node first."""
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
        errors.append(node + error.desc())
    return errors


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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
