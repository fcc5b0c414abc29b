"""Every backend on one net: what it made, whether that ran here, how close int8 is to FP32, and what installing it costs.

    python benchmarks/backends.py build/zoo --nets resnet20 [--targets local browser-wasm android-xnnpack …] [--untimed]

Each target is compiled for as ``edgeopt compile`` does it (recipe ``int8-ptq``; ``fp32`` where a target is float only). A
target whose runtimes are not installed in this environment is a row that names the extra. Without ``--untimed`` latency is
read too: run it on a quiet machine. The installation is what the backend's extra brings beside edgeopt's own requirements.
Exit code 1 where a target's compile failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from zoo_folder import Net, add_arguments, find_nets, use_own_cache

import edgeopt
from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.document import Candidate
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.measurement import Measurement
from edgeopt.targets.load import find_target, list_targets

HEAD = (
    "net",
    "target",
    "engine",
    "made, run",
    "agreement with FP32, %",
    "MACs in int8, %",
    "latency / FP32",
    "size, MiB",
    "installed, MiB",
)
# Which extra brings a backend; the browser's runtime comes with `edgeopt device setup browser`.
EXTRAS = {"ort-mobile": "onnxruntime", "tensorrt": "tensorrt-rtx"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="default: every target of the catalog")
    parser.add_argument("--untimed", action="store_true", help="read no clock")
    chosen = parser.parse_args()
    targets = chosen.targets or [target.name for target in list_targets()]
    nets = find_nets(chosen.zoo, chosen.nets)
    cache = use_own_cache(chosen.zoo)
    failed = False
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for net in nets:
        for target in targets:
            try:
                rows = list(rows_of(net, target, cache.parent / ".bundles", timed=not chosen.untimed))
            except EdgeOptError as error:
                rows = [(target, "", f"FAILED: {error}")]
                failed = True
            for row in rows:
                print(f"| {' | '.join([net.name, *row, *[''] * (len(HEAD) - 1 - len(row))])} |", flush=True)
    return 1 if failed else 0


def rows_of(net: Net, name: str, folder: Path, *, timed: bool) -> Iterator[tuple[str, ...]]:
    """One row per engine of a target, without the net's name."""
    target = find_target(name)
    missing = [rules.name for rules in target.runtimes if BACKENDS[rules.name].available().version is None]
    if len(missing) == len(target.runtimes) and missing != ["tensorrt"]:  # its folder is built on the device
        yield name, ", ".join(missing), f"not installed here: {BACKENDS[missing[0]].available().how_to_get}"
        return
    recipe = "fp32" if target.default_recipe == "fp32" else "int8-ptq"
    samples = 400 if timed else 10
    bundle = edgeopt.compile(
        net.model,
        target=name,
        data=str(net.data),
        recipe=recipe,
        overrides=[f"measure.latency_samples={samples}", "measure.roofline=false"],
        output=folder / f"{net.name}-{name}-{recipe}",
    )
    for candidate in bundle.report.candidates:
        if candidate.role != "candidate" and recipe != "fp32":
            continue
        yield (
            name,
            f"{candidate.runtime} {candidate.runtime_version} {candidate.precision}",
            candidate.status.replace("_", " ") + (f": {candidate.reason}" if candidate.reason else ""),
            words(candidate, "agreement_pct", 2),
            int8_share(candidate),
            words(candidate, "latency_ratio", 2) if timed else "–",
            words(candidate, "size_mib", 2),
            installed(EXTRAS.get(candidate.runtime, candidate.runtime)),
        )


def int8_share(candidate: Candidate) -> str:
    """Percent of the multiplications; said to be a plan or a proxy where no runtime of the device told it."""
    share = words(candidate, "int8_macs_pct", 1)
    if share == "–":
        return share
    if candidate.coverage is None:
        return f"{share} planned"
    return f"{share} (another runtime's word)" if candidate.coverage.proxy else share


def words(candidate: Candidate, name: str, digits: int) -> str:
    figure: Measurement | None = candidate.figure(name)
    if figure is None or figure.value is None:
        return "–"
    text = f"{figure.value:.{digits}f}"
    if figure.interval is not None:
        text += f" [{figure.interval.low:.{digits}f}, {figure.interval.high:.{digits}f}]"
    return text


def installed(extra: str) -> str:
    """MiB on disk of the distributions that an extra brings and edgeopt alone does not; – where none is known here."""
    own, more = closure("edgeopt", ""), closure("edgeopt", extra)
    size = sum(size_of(name) for name in more - own) / 2**20
    return f"{size:,.0f}" if size else "–"


def closure(name: str, extra: str) -> set[str]:
    """Every installed distribution that ``name[extra]`` requires."""
    found: set[str] = set()
    todo = [(name, extra)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, requires):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in {"", extra}):
                todo += [(requirement.name, ""), *((requirement.name, more) for more in requirement.extras)]
    return found


def size_of(name: str) -> int:
    """Bytes of a distribution's files."""
    files = importlib.metadata.distribution(name).files or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
