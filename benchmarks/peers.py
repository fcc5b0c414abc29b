"""edgeopt beside its peers: accuracy, latency and time to quantize, all tools in one interleaved run per net.

python benchmarks/peers.py --prepare            # environments, the peers' files, all outputs: what costs time and needs no clock
python benchmarks/peers.py > peers.md           # on a quiet machine: the rest, and the tables
python benchmarks/peers.py --nets resnet20,vit --peers nncf,onnxruntime --json peers.json

Every peer is installed into an environment of its own under --work, quantizes the same FP32 ONNX file with the same
calibration samples, and its files run on ONNX Runtime and on OpenVINO in edgeopt's own runners, with edgeopt's options; on
OpenVINO also with the bfloat16 that it takes unasked for what is float, where the CPU has it.
The zoo is a folder of nets: NAME/model.pt2, NAME/data.npz or NAME/…/manifest.yaml, NAME/model.onnx (optional).
Without one, the shipped example is used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from peers.artifacts import compile_with_edgeopt, quantize_with
from peers.engines import list_entries
from peers.environments import PEERS, python_of
from peers.evaluation import evaluate, measure
from peers.nets import find_nets, open_net
from peers.rematch import play_again
from peers.table import notes, summary, to_json, to_markdown
from peers.verdict import Rematch

from edgeopt.devices.registry import open_device

ROOT = Path(__file__).parents[1]


def main() -> None:
    arguments = _arguments()
    usable = [name for name in arguments.peers if _installed(name, arguments.work)]
    results: list[dict[str, Any]] = []
    failed = []
    if not arguments.prepare:
        print(f"{notes(arguments.calibration_samples)}\n\nMeasured on {open_device('local').name}.\n")
    for name in arguments.nets:
        begun = time.perf_counter()
        try:
            results.append(_one(name, usable, arguments))
        except Exception as error:  # noqa: BLE001 - the other nets' results must not be lost
            traceback.print_exc()
            failed.append(name)
            print(f"### {name}\n\nfailed: {' '.join(str(error).split())}\n", flush=True)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    if not arguments.prepare:
        print(summary(results))
    sys.exit(1 if failed else 0)


def _one(name: str, peers: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    work, runs = arguments.work, 0 if arguments.prepare else arguments.compile_runs
    net = open_net(name, arguments.found[name], work, arguments.calibration_samples)
    owns = {recipe: compile_with_edgeopt(recipe, net, work, runs=max(1, runs)) for recipe in arguments.recipes}
    ways = [(peer, variant, made.timed) for peer in peers for variant, made in PEERS[peer].variants.items()]
    with ThreadPoolExecutor(2 if arguments.prepare else 1) as pool:  # alone on the machine where a time is taken
        artifacts = list(
            pool.map(lambda way: quantize_with(way[0], way[1], net, work, runs=runs if way[2] else 0), ways)
        )
    rows = evaluate(net, list_entries(net, owns, artifacts, work), work)
    rematches: dict[str, Rematch] = {}
    if not arguments.prepare:
        measure(net, rows, arguments.latency_samples, arguments.starts)
        rematches = play_again(net, rows, arguments.latency_samples, arguments.pairs)
    print(f"{to_markdown(net, rows, owns, rematches)}\n", flush=True)
    return to_json(net, rows, owns, artifacts, rematches)


def _installed(name: str, work: Path) -> bool:
    try:
        python_of(name, work)
    except RuntimeError as error:
        print(f"{error}\n", flush=True)
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=ROOT / "build/zoo")
    parser.add_argument("--nets", type=_names, help="comma-separated; all of the zoo by default")
    parser.add_argument("--peers", type=_names, default=list(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--recipes", type=_names, default=["int8-ptq"], help="edgeopt's, comma-separated")
    parser.add_argument("--calibration-samples", type=int, default=300, help="for every tool (300: NNCF's own default)")
    parser.add_argument("--latency-samples", type=int, default=200, help="timed inferences per start")
    parser.add_argument("--starts", type=int, default=4, help="processes per engine; the fastest counts")
    parser.add_argument(
        "--pairs", type=int, default=10, help="of processes, in which edgeopt and the best peer are timed again"
    )
    parser.add_argument("--compile-runs", type=int, default=1, help="timed runs of edgeopt and of NNCF's defaults")
    parser.add_argument("--work", type=Path, default=ROOT / "build/peers", help="environments and intermediate files")
    parser.add_argument("--prepare", action="store_true", help="everything but the clock")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    (arguments.work / "outputs").mkdir(parents=True, exist_ok=True)
    arguments.found = find_nets(arguments.zoo)
    arguments.nets = arguments.nets or list(arguments.found)
    for given, known in ((arguments.nets, arguments.found), (arguments.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return arguments


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
