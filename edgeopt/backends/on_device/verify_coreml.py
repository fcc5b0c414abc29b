# ruff: noqa: T201, PLC0415 (a script whose every failure is one sentence)
"""Runs the Core ML package beside this script on a Mac, and compares with the reference outputs of the bundle.

    python3 verify_coreml.py                             # Core ML chooses among CPU, GPU and Neural Engine
    python3 verify_coreml.py --compute-units CPU_ONLY    # or CPU_AND_GPU, CPU_AND_NE
    python3 verify_coreml.py --report report.json        # the figures as JSON too

Needs macOS, Python 3.8, NumPy and ``coremltools`` (pip install coremltools). Core ML compiles the package first.
The times are those of ``predict`` called from Python, one sample batch at a time: an app in Swift has less overhead.

Exit codes: 0 the outputs are the bundle's; 1 they differ, or the package was not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FILES = ("reference_inputs.npz", "reference_outputs.npz")
UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")


class VerifyError(Exception):
    """One sentence: what is missing, or what Core ML said."""


def main(arguments: list[str] | None = None) -> int:
    """Verify, then time; every failure is one sentence on stderr."""
    parser = argparse.ArgumentParser(description="Run the Core ML package beside this script, and compare.")
    parser.add_argument(
        "--compute-units", choices=UNITS, default="ALL", help="what Core ML may use (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=100, help="timed predictions (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, help="share of an output's range (default: that of the precision)")
    parser.add_argument("--report", type=Path, help="write the figures here, as JSON")
    args = parser.parse_args(arguments)
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    try:
        told = verify(args)
    except VerifyError as error:
        print(error, file=sys.stderr)
        return 1
    if args.report is not None:
        args.report.write_text(json.dumps(told, indent=2) + "\n")
    print("PASS" if told["passed"] else "FAIL: an output differs by more than the tolerance, or is not finite")
    return 0 if told["passed"] else 1


def verify(args: argparse.Namespace) -> dict[str, Any]:
    """Run all reference samples and compare; time the first batch.

    Raises:
        VerifyError: Something is missing, or Core ML does not take the package.
    """
    settings = json.loads((HERE / "coreml.json").read_text())
    tolerance = settings["tolerance"] if args.tolerance is None else args.tolerance
    inputs, expected = references()
    missing = sorted({port["name"] for port in settings["inputs"]} - set(inputs))
    missing += sorted({port["name"] for port in settings["outputs"]} - set(expected))
    if missing:
        msg = "The reference files lack {}.".format(", ".join(missing))
        raise VerifyError(msg)
    model = load(settings, args.compute_units)
    batches = split(settings, inputs)
    got = [predict(model, settings, batch) for batch in batches]
    rows = [compare(port["name"], expected, got, tolerance) for port in settings["outputs"]]
    for row in rows:
        said = "largest difference {max_abs:.3g}, {share:.3g} of the range (allowed {allowed:.3g})"
        print("{}: {}".format(row["output"], "not finite" if row["share"] is None else said.format(**row)))
    times = timed(model, settings, batches[0], args.runs)
    median, p90 = statistics.median(times), sorted(times)[int(0.9 * (len(times) - 1))]
    size = len(next(iter(batches[0].values())))
    where = f"{platform.machine()}, macOS {platform.mac_ver()[0] or '?'}, {args.compute_units}"
    print(f"{where}: median {median:.3f} ms, p90 {p90:.3f} ms ({len(times)} predictions of batch {size})")
    return {
        "passed": all(row["passed"] for row in rows),
        "outputs": rows,
        "samples": len(next(iter(inputs.values()))),
        "compute_units": args.compute_units,
        "median_ms": median,
        "p90_ms": p90,
        "times_ms": times,
    }


def references() -> list[dict[str, Any]]:
    """The reference inputs and outputs."""
    try:
        import numpy as np
    except ImportError as error:
        msg = f"NumPy cannot be imported ({error}): pip install numpy"
        raise VerifyError(msg) from error
    found = []
    for name in FILES:
        if not (HERE / name).is_file():
            msg = f"{name} must lie beside this script; `edgeopt compile` puts it there."
            raise VerifyError(msg)
        try:
            with np.load(HERE / name, allow_pickle=False) as archive:
                found.append({key: archive[key] for key in archive.files})
        except Exception as error:
            msg = f"{name} cannot be read: {error}"
            raise VerifyError(msg) from error
    return found


def load(settings: dict[str, Any], units: str) -> Any:
    """The package, compiled by Core ML."""
    try:
        import coremltools
    except ImportError as error:
        msg = f"coremltools cannot be imported ({error}): pip install coremltools"
        raise VerifyError(msg) from error
    try:
        return coremltools.models.MLModel(
            str(HERE / settings["package"]), compute_units=getattr(coremltools.ComputeUnit, units)
        )
    except Exception as error:
        msg = "Core ML cannot load {}: {}".format(settings["package"], first_line(error))
        raise VerifyError(msg) from error


def split(settings: dict[str, Any], inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The samples in batches of the package's size; the last is padded by repeating its last sample."""
    first = settings["inputs"][0]
    count, size = len(inputs[first["name"]]), first["shape"][0]
    parts = [[min(index, count - 1) for index in range(start, start + size)] for start in range(0, count, size)]
    return [{name: array[part] for name, array in inputs.items()} for part in parts]


def predict(model: Any, settings: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """One prediction, outputs by the graph's names."""
    import numpy as np

    given = {port["feature"]: np.asarray(batch[port["name"]], dtype=port["dtype"]) for port in settings["inputs"]}
    try:
        made = model.predict(given)
    except Exception as error:
        msg = f"Core ML did not run the package: {first_line(error)}"
        raise VerifyError(msg) from error
    missing = [port["feature"] for port in settings["outputs"] if port["feature"] not in made]
    if missing:
        msg = "Core ML gave no output {}, only {}.".format(", ".join(missing), ", ".join(made))
        raise VerifyError(msg)
    return {port["name"]: np.asarray(made[port["feature"]]) for port in settings["outputs"]}


def compare(name: str, expected: dict[str, Any], got: list[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """The largest difference, also as a share of the output's range."""
    import numpy as np

    want = expected[name].astype(np.float64)
    made = np.concatenate([one[name] for one in got])[: len(want)].astype(np.float64)
    if made.shape != want.shape:
        msg = f"The output {name} has shape {list(made.shape)}, expected {list(want.shape)}."
        raise VerifyError(msg)
    if not want.size:
        msg = f"The output {name} has no elements, so nothing was compared."
        raise VerifyError(msg)
    reach = float(want.max() - want.min()) or float(np.abs(want).max()) or 1.0
    largest = float(np.abs(made - want).max())
    finite = bool(np.isfinite(made).all())
    share = largest / reach
    return {
        "output": name,
        "max_abs": largest if finite else None,
        "share": share if finite else None,
        "allowed": tolerance,
        "passed": finite and share <= tolerance,
    }


def timed(model: Any, settings: dict[str, Any], batch: dict[str, Any], runs: int) -> list[float]:
    """Milliseconds per prediction, after ten that are not counted."""
    for _ in range(10):
        predict(model, settings, batch)
    times = []
    for _ in range(runs):
        begun = time.perf_counter_ns()
        predict(model, settings, batch)
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return times


def first_line(error: BaseException) -> str:
    """The first line that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    sys.exit(main())
