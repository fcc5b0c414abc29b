"""Which units go: as many as it takes, the least important first, in widths that the target's kernels are good at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from edgeopt.compress.pruning.channels import ChannelGroup, ChannelMap
from edgeopt.core.errors import RecipeError, nearest_first
from edgeopt.recipes.pruning import Prune

__all__ = ["Room", "choose", "least", "rooms", "stairs"]

_STEPS = 60  # of bisection


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A group that may be pruned, and how far.

    Attributes:
        group: The group.
        counts: How many units may stay, descending; the first is all of them.
    """

    group: ChannelGroup
    counts: tuple[int, ...]


def rooms(
    channels: ChannelMap,
    config: Prune,
    *,
    multiple: int,
    original: Mapping[str, int] | None = None,
    branches: bool = False,
) -> tuple[Room, ...]:
    """The groups that the recipe lets be pruned.

    Args:
        channels: All groups.
        config: Its ``skip`` and ``floor``.
        multiple: What a width is kept a multiple of.
        original: By group: the units that its floor is a share of; None: those it has.
        branches: Whether a group counts that can only go as a whole, with its residual branch.

    Raises:
        RecipeError: A pattern of ``skip`` matches no layer; or nothing is left to prune, with the reasons.
    """
    _check_skip(channels, config.skip)
    found = []
    for group in channels.groups:
        if any(fnmatchcase(layer, pattern) for layer in group.layers for pattern in config.skip):
            continue
        whole = group.units if original is None else original.get(group.name, group.units)
        counts = stairs(group, multiple=multiple, least=max(1, math.ceil(config.floor * whole - 1e-9)))
        if len(counts) > 1 or (branches and group.branches):
            found.append(Room(group=group, counts=counts))
    if not found:
        reasons = [f"{pinned.name}: {pinned.reason}" for pinned in channels.pinned]
        narrow = [f"{group.name}: {group.units} units, {group.width} channels" for group in channels.groups]
        raise RecipeError(
            "Nothing of this model can be pruned.",
            got="; ".join([*reasons[:6], *narrow[:6]]) or "a model without layers that have channels",
            fix=f"Every group is pinned, skipped, or no wider than multiples of {multiple} and the floor allow: lower "
            "steps.prune.round_to or floor, or leave the prune step out.",
        )
    return tuple(found)


def stairs(group: ChannelGroup, *, multiple: int, least: int) -> tuple[int, ...]:
    """How many units of a group may stay, descending: all of them, and what makes the width a multiple."""
    each = group.width // group.units
    step = multiple // math.gcd(multiple, each)
    return (group.units, *(count for count in range(group.units - 1, least - 1, -1) if count % step == 0))


def choose(
    channels: ChannelMap,
    config: Prune,
    scores: Mapping[str, Any],
    *,
    multiple: int,
    start: ChannelMap | None = None,
    share: float = 1.0,
) -> dict[str, int]:
    """How many units of each group stay.

    Args:
        channels: All groups.
        config: ``ratio``, ``macs_ratio`` or ``widths``.
        scores: As ``score_units`` gives them.
        multiple: As ``rooms`` takes it.
        start: The groups of the model as it came, which the recipe's shares are of; None: ``channels``.
        share: How much of the way to go by now: 0.5 after the second of four rounds. Each shrinks it by the same factor.

    Raises:
        RecipeError: As ``rooms``; a group of ``widths`` is none; what is asked for cannot be reached.
    """
    start = channels if start is None else start
    original = {group.name: group.units for group in start.groups}
    if config.widths is not None:
        return _given(channels, config.widths, original, share)
    free = rooms(channels, config, multiple=multiple, original=original)
    if config.ratio is not None:
        whole, wanted, what = sum(original[room.group.name] for room in free), 1.0 - config.ratio, "units"

        def left(kept: Mapping[str, int]) -> float:
            return sum(kept.values()) / whole
    else:
        whole, wanted, what = start.macs({}), config.macs_ratio or 1.0, "multiply-accumulates"

        def left(kept: Mapping[str, int]) -> float:
            return channels.macs(least(scores, kept)) / whole

    wanted **= share
    kept = _bisect(_uniform(free) if config.scope == "uniform" else _global(free, scores), left, wanted)
    if left(kept) > wanted * 1.02:
        raise RecipeError(
            f"So few {what} cannot be reached.",
            got=f"{100 * wanted:.1f} % asked for, {100 * left(kept):.1f} % is the least",
            fix=f"It ends where every group is at its floor ({config.floor:g}), in multiples of {multiple}: ask for less, "
            "lower steps.prune.floor or round_to, or skip fewer layers.",
        )
    return _give_back(free, kept, scores, left, wanted)


def least(scores: Mapping[str, Any], kept: Mapping[str, int]) -> dict[str, list[int]]:
    """The least important units of each group, all but ``kept`` of them."""
    return {
        name: np.sort(np.argsort(scores[name], kind="stable")[: len(scores[name]) - count]).tolist()
        for name, count in kept.items()
    }


def _bisect(
    plan: Callable[[float], dict[str, int]], left: Callable[[dict[str, int]], float], wanted: float
) -> dict[str, int]:
    """The least pruning, on a scale from 0 (none) to 1 (all that is allowed), that leaves no more than ``wanted``."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if left(plan(middle)) > wanted:
            low = middle
        else:
            high = middle
    return plan(high)


def _give_back(
    free: Sequence[Room],
    kept: dict[str, int],
    scores: Mapping[str, Any],
    left: Callable[[Mapping[str, int]], float],
    wanted: float,
) -> dict[str, int]:
    """Use up what rounding left: as long as one fits, the group grows by a stair whose units are worth most for it."""
    while True:
        best, worth = None, 0.0
        now = left(kept)
        for room in free:
            name, place = room.group.name, room.counts.index(kept[room.group.name])
            if place == 0:
                continue
            larger = kept | {name: room.counts[place - 1]}
            more = left(larger)
            if more > wanted:
                continue
            ordered = np.sort(scores[name])[::-1]
            gained = float(ordered[kept[name] : larger[name]].sum()) / max(more - now, 1e-12)
            if best is None or gained > worth:
                best, worth = larger, gained
        if best is None:
            return kept
        kept = best


def _global(free: Sequence[Room], scores: Mapping[str, Any]) -> Callable[[float], dict[str, int]]:
    """Units below a threshold go; each count is rounded to the nearest that is allowed."""
    ordered = {room.group.name: np.sort(scores[room.group.name]) for room in free}
    every = np.sort(np.concatenate(list(ordered.values())))

    def plan(pressure: float) -> dict[str, int]:
        place = min(int(pressure * len(every)), len(every) - 1)
        threshold = np.inf if pressure >= 1 else every[place]
        return {
            room.group.name: _nearest(room.counts, len(mine) - int(np.searchsorted(mine, threshold)))
            for room, mine in ((room, ordered[room.group.name]) for room in free)
        }

    return plan


def _uniform(free: Sequence[Room]) -> Callable[[float], dict[str, int]]:
    def plan(pressure: float) -> dict[str, int]:
        return {room.group.name: _nearest(room.counts, (1 - pressure) * room.group.units) for room in free}

    return plan


def _nearest(counts: Sequence[int], wanted: float) -> int:
    return min(counts, key=lambda count: (abs(count - wanted), -count))


def _given(channels: ChannelMap, widths: Mapping[str, int], known: Mapping[str, int], share: float) -> dict[str, int]:
    there = {group.name: group for group in channels.groups}
    for name, count in widths.items():
        if name not in known:
            raise RecipeError(
                "A group in steps.prune.widths is none of the model's.",
                got=repr(name),
                fix=f"Groups with the nearest names: {', '.join(nearest_first(name, known)[:8])}."
                if known
                else "The model has no group that can be pruned.",
            )
        if count > known[name] or (count == 0 and not there[name].branches):
            raise RecipeError(
                f"Group {name!r} cannot keep as many units as steps.prune.widths says.",
                got=f"{count} of {known[name]}",
                fix=f"Give 1 to {known[name]}"
                + (", or 0: its residual branch then goes as a whole." if there[name].branches else "."),
            )
    return {
        name: min(there[name].units, round(known[name] * (count / known[name]) ** share)) if count or share < 1 else 0
        for name, count in widths.items()
        if name in there
    }


def _check_skip(channels: ChannelMap, patterns: Sequence[str]) -> None:
    names = [layer for group in channels.groups for layer in group.layers] + [one.name for one in channels.pinned]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            nearest = ", ".join(nearest_first(pattern, names)[:8])
            raise RecipeError(
                "A pattern in the prune step's skip matches no layer.",
                got=repr(pattern),
                fix=f"Layers with the nearest names: {nearest}." if names else "The model has no layer with channels.",
            )
