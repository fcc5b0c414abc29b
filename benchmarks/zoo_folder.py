"""Where the benchmarks find the nets: ``build/zoo/NAME`` with a model and its data, as ``zoo/train.py`` writes it."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Net", "add_arguments", "find_nets", "use_own_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A trained net. ``data``: what ``--data`` takes."""

    name: str
    model: Path
    data: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which nets."""
    parser.add_argument("zoo", type=Path, help="the folder that zoo/train.py wrote")
    parser.add_argument("--nets", nargs="+", metavar="NAME", default=[], help="which of its nets (default: all)")


def find_nets(folder: Path, names: list[str]) -> list[Net]:
    """The nets of ``folder`` with those names, or all of them; stops the program where one is not there."""
    found = {}
    for each in sorted(path for path in folder.glob("*") if path.is_dir()):
        models = sorted(each.glob("*.pt2"))
        data = next((each / name for name in ("photos", "data.npz") if (each / name).exists()), None)
        if len(models) == 1 and data is not None:
            found[each.name] = Net(name=each.name, model=models[0], data=data)
    missing = sorted(set(names) - set(found))
    if missing or not found:
        there = ", ".join(found) or "none"
        sys.exit(f"{folder} has no net {' or '.join(missing)} (there: {there}). Run: benchmarks/zoo/train.py {folder}")
    return [found[name] for name in names or found]


def use_own_cache(folder: Path) -> Path:
    """Keep quantized graphs from one run to the next beside the nets, unless the user has chosen a cache."""
    return Path(os.environ.setdefault("EDGEOPT_CACHE_DIR", str((folder / ".cache").resolve())))
