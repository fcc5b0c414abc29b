"""edgeopt's pruning beside torch-pruning's: the same multiply-accumulates, the same recovery, accuracy and latency.

python benchmarks/zoo/train.py build/zoo resnet20 mobilenetv2
python benchmarks/pruning.py build/zoo --search                     # on a quiet machine: widths by latency, anew
python benchmarks/pruning.py build/zoo                              # hours of training on two cores; goes on where it was stopped
python benchmarks/pruning.py build/zoo --time --json pruning.json   # on a quiet machine: the clock, and the tables

edgeopt prunes by its step ``prune`` (Taylor); torch-pruning, in an environment of its own, by MetaPruner with global
ranking and its group importances, at edgeopt's multiply-accumulates. edgeopt also prunes to the widths that its search by
measured latency ended in: they are written in a file, as no two machines find the same; torch-pruning then prunes to the
multiply-accumulates of those, too. Each result is recovered by edgeopt's step
``distil``, taught by the FP32 original. A seed decides the order of the training data and which samples Taylor reads.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pruning.answers import right_answers
from pruning.clock import BLOCK, WHOLE, time_graphs
from pruning.plan import (
    MACS,
    ROUND_TO,
    SEARCHED,
    TOLERANCE,
    Run,
    comparable,
    list_ways,
    original_of,
    plan,
    read,
    times_of,
)
from pruning.search import WIDTHS, read_widths, search, write_widths
from pruning.table import NOTES, Ratio, Row, to_markdown
from pruning.training import train
from zoo_folder import Net, add_arguments, find_nets, use_own_cache

from edgeopt.model.load import load_model

ROOT = Path(__file__).parents[1]


def main() -> int:
    arguments = parse()
    nets = find_nets(arguments.zoo, arguments.nets or list(MACS))
    use_own_cache(arguments.zoo)
    if arguments.search:
        for net in nets:
            found = search(net, SEARCHED[net.name])
            write_widths(arguments.widths, net.name, found)
            print(f"{net.name}: {found['summary']}")
        return 0
    widths = read_widths(arguments.widths)
    runs = [
        plan(net, way, seed, arguments, widths.get(net.name))
        for net in nets
        for seed in arguments.seeds
        for way in list_ways(arguments.round_to, searched=net.name in widths)
    ]
    failed = [] if arguments.time else train(nets, runs, arguments.work, arguments.jobs)
    if arguments.time:
        for net in nets:
            take_times(net, runs, arguments)
    raw = [result_of(net, runs, arguments.work) for net in nets]
    right = {net.name: answers_of(net, runs) for net in nets}
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    print(f"Recovery: {arguments.epochs} epochs. {NOTES}")
    for net in raw:
        rows = [row_of(run, net) for run in net["runs"]]
        print(f"\n{to_markdown(net['net'], net['unpruned'], rows, right[net['net']])}")
    for name in failed:
        print(f"\nFAILED {name}")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--epochs", type=int, default=4, help="of recovery (default: %(default)s)")
    parser.add_argument("--train-samples", type=int, metavar="N", help="recover on so many (default: all)")
    parser.add_argument(
        "--round-to",
        type=int,
        default=ROUND_TO,
        metavar="N",
        help="what widths are multiples of (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="processes at a time, one thread each (default: %(default)s)"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build/pruning", help="results, kept from run to run")
    parser.add_argument("--search", action="store_true", help="train nothing: search widths by latency, write --widths")
    parser.add_argument(
        "--widths", type=Path, default=WIDTHS, metavar="FILE", help="that a search ended in (default: those shipped)"
    )
    parser.add_argument("--time", action="store_true", help="train nothing: time what is there, alone on the machine")
    parser.add_argument(
        "--runs", type=int, default=40, help=f"turns of {BLOCK} timed inferences per engine (default: 40)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    if arguments.runs < 5:
        parser.error("--runs: five turns at least, or there is no interval")
    if unknown := set(arguments.nets) - set(MACS):
        parser.error(f"no such net: {', '.join(sorted(unknown))}; there are {', '.join(MACS)}")
    return arguments


def take_times(net: Net, runs: list[Run], arguments: argparse.Namespace) -> None:
    """Time whatever of a net is recovered, beside the unpruned."""
    done = [run for run in runs if run.net == net and (run.recovered / "recover.json").is_file()]
    if not (original_of(net, arguments.work) / "original.json").is_file():
        sys.exit(f"{net.name} is not evaluated yet: run this without --time first")
    folders = {WHOLE: original_of(net, arguments.work), **{run.recovered.name: run.recovered for run in done}}
    with np.load(net.data) as arrays:
        sample = {load_model(net.model).inputs[0].name: arrays["x"][:1]}
    times = time_graphs(folders, sample, arguments.runs, arguments.work / "engines")
    times_of(net, arguments.work).write_text(json.dumps(times, indent=1), encoding="utf-8")


def result_of(net: Net, runs: list[Run], work: Path) -> dict[str, Any]:
    """All figures of a net, for the table and for whoever wants to count again."""
    times = times_of(net, work)
    timed = read(times) if times.is_file() else {}
    found = []
    for run in (run for run in runs if run.net == net):
        pruned, recovered = run.pruned / "prune.json", run.recovered / "recover.json"
        found.append(
            {
                "way": run.way.name,
                "title": run.way.title,
                "own": run.way.own,
                "searched": run.way.searched,
                "seed": run.seed,
                "pruned": read(pruned) if pruned.is_file() else None,
                "comparable": pruned.is_file() and comparable(run),
                "recovered": read(recovered) if recovered.is_file() else None,
                "latency": {key: column.get(run.recovered.name) for key, column in timed.items()},
            }
        )
    whole = read(original_of(net, work) / "original.json")
    whole["latency"] = {key: column[WHOLE] for key, column in timed.items()}
    return {"net": net.name, "unpruned": whole, "runs": found}


def answers_of(net: Net, runs: list[Run]) -> dict[tuple[str, int], np.ndarray]:
    """(title, seed) → which test samples the recovered net gets right."""
    done = [run for run in runs if run.net == net and (run.recovered / "recover.json").is_file()]
    return {(run.way.title, run.seed): right_answers(run.recovered, net.data) for run in done}


def row_of(run: Mapping[str, Any], net: Mapping[str, Any]) -> Row:
    """A run as the table has it."""
    start = {name: run[name] for name in ("title", "own", "searched", "seed")}
    done = run["recovered"]
    if run["pruned"] is None:
        return Row(**start, macs=math.nan, reason="not pruned")
    if not run["comparable"]:
        return Row(**start, macs=run["pruned"]["macs"], reason=f"no ratio leaves edgeopt's MACs within {TOLERANCE:.0%}")
    if done is None:
        return Row(**start, macs=run["pruned"]["macs"], reason="not recovered")
    return Row(
        **start,
        macs=done["macs"],
        parameters=done["parameters"],
        pruned=done["accuracy_pruned"],
        recovered=done["accuracy_recovered"],
        drop=net["unpruned"]["accuracy"] - done["accuracy_recovered"],
        ratios={
            key: Ratio(value=one["ratio"], low=one["low"], high=one["high"])
            for key, one in run["latency"].items()
            if one and "ratio" in one
        },
    )


if __name__ == "__main__":
    sys.exit(main())
