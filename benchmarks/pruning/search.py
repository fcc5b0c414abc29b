"""edgeopt's search for channel counts by latency, alone: its outcome is written down, for ``pruning.py`` to train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_folder import Net

from edgeopt.core.events import ignore_progress
from edgeopt.pipeline.compile import prepared
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.prune_search import resolve_pruning
from edgeopt.pipeline.samples import parity_inputs
from edgeopt.recipes.schema import Prune

__all__ = ["WIDTHS", "read_widths", "search", "write_widths"]

WIDTHS = Path(__file__).parent / "widths.json"
_RECIPE = "prune-int8-ptq"


def search(net: Net, ratio: float) -> dict[str, Any]:
    """Search on this machine, which should do nothing else meanwhile; train nothing.

    Args:
        net: What is to be pruned.
        ratio: Of the unpruned's int8 latency that is to be left.

    Returns:
        ``widths`` by group, and where they come from: ``latency_ratio``, ``machine``, and ``summary``, which tells the
        runtime and what was measured.
    """
    options = CompileOptions(
        model=net.model,
        target="local",
        data=str(net.data),
        recipe=_RECIPE,
        overrides=(
            "steps.prune.macs_ratio=null",
            f"steps.prune.latency_ratio={ratio}",
        ),
    )
    with prepared(options, ignore_progress, writes=False) as run:
        samples = parity_inputs(run.loaded.model, run.data, run.plan.recipe.parity.samples, options.seed)
        plan = resolve_pruning(run, run.plan, samples)
        step = plan.recipe.step(Prune)
        machine = run.device.info()
        return {
            "latency_ratio": ratio,
            "machine": f"{machine.name}, {machine.system}",
            "summary": run.context.pruning[-1].summary,
            "widths": dict(step.widths or {}) if step else {},
        }


def write_widths(path: Path, net: str, found: Mapping[str, Any]) -> None:
    """Keep a net's outcome, beside those of others."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[net] = {"command": "python benchmarks/pruning.py build/zoo --search", **found}
    path.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_widths(path: Path) -> dict[str, dict[str, int]]:
    """By net: how many units of each group stay; a net that was not searched is absent."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {net: found["widths"] for net, found in known.items()}
