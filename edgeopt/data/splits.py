"""Splits that share no sample, drawn by content: the same data and seed give the same splits, whatever the row order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Split, SplitName
from edgeopt.data.manifest import SplitPlan
from edgeopt.data.scan import Pool, Scan

__all__ = ["make_splits", "overlaps"]

Share = Callable[[int], int]
_MISSING: tuple[SplitName, ...] = ("calibration", "tune", "train")
_DEFAULTS: dict[SplitName, tuple[float, int]] = {"calibration": (0.1, 1024), "tune": (0.1, 2048)}
_PAIRS: tuple[tuple[SplitName, SplitName], ...] = (
    ("calibration", "test"),
    ("tune", "test"),
    ("calibration", "tune"),
    ("train", "test"),
)
_ORDER: tuple[SplitName, ...] = ("train", "calibration", "tune", "test")


def make_splits(
    pools: Mapping[SplitName, Pool],
    scans: Mapping[SplitName, Scan],
    *,
    plan: SplitPlan,
    seed: int,
    inputs: Sequence[TensorSpec],
) -> dict[SplitName, Split]:
    """Take given splits as they are and split off what is missing.

    A missing calibration split comes off ``train`` where that is given, everything else off ``test``. Byte-identical
    samples stay together, so no content is on both sides. Within a split the order is drawn from the seed.

    Raises:
        DataError: A split would be empty, or is both given and asked to be split off.
    """
    indices: dict[SplitName, np.ndarray] = {}
    how: dict[SplitName, str] = {}
    for name, scan in scans.items():
        if name != "test" and getattr(plan, name) is not None:
            raise DataError(f"The split {name} is given, and the manifest wants it split off.", got=pools[name].where)
        indices[name] = _drawn_order(scan.digests, seed)
        how[name] = f"given as {pools[name].where}: {len(scan.digests)} samples"
    origin: dict[SplitName, SplitName] = {name: name for name in scans}
    for source_name in tuple(scans):
        wanted: dict[SplitName, Share] = {}
        for name in _MISSING:
            share = _share(name, plan)
            if name not in scans and _origin(name, scans) == source_name and share is not None:
                wanted[name] = share
        parts = _split_off(
            source_name, indices[source_name], scans[source_name], wanted, where=pools[source_name].where
        )
        for name, (members, sentence) in parts.items():
            origin[name], indices[name], how[name] = source_name, members, sentence
    return {
        name: Split(
            name=name,
            source=pools[origin[name]],
            indices=indices[name],
            how=f"{how[name]}; order drawn with seed {seed}",
            fingerprint=_fingerprint(scans[origin[name]], indices[name], inputs),
        )
        for name in _ORDER
        if name in indices
    }


def overlaps(
    splits: Mapping[SplitName, Split], pools: Mapping[SplitName, Pool], scans: Mapping[SplitName, Scan]
) -> tuple[Event, ...]:
    """A warning for each pair of splits from different sources that hold byte-identical samples.

    Raises:
        DataError: Every calibration or tune sample is also in another split: nothing would be held out.
    """
    contents: dict[SplitName, np.ndarray] = {}
    for name, split in splits.items():
        origin = next(key for key, pool in pools.items() if pool is split.source)
        contents[name] = scans[origin].contents[split.indices]
    events = []
    for name, other in _PAIRS:
        if name not in splits or other not in splits or splits[name].source is splits[other].source:
            continue
        same = np.isin(contents[name], contents[other])
        count, total = int(same.sum()), len(same)
        if count == total and name != "train":
            raise DataError(
                f"The {name} split is inside the {other} split: nothing is held out.",
                got=f"{count} of {total} {name} samples that are also {other} samples",
                fix=f"Leave the {name} data out: edgeopt splits it off, so that the splits share nothing.",
            )
        if count:
            text = (
                f"{count} of {total} {name} samples are byte-identical to {other} samples: the data gives them twice."
            )
            events.append(Event(kind="warning", stage="data", message=text))
    return tuple(events)


def _origin(name: SplitName, scans: Mapping[SplitName, Scan]) -> SplitName:
    return "train" if name == "calibration" and "train" in scans else "test"


def _drawn_order(digests: np.ndarray, seed: int) -> np.ndarray:
    """Indices sorted by a hash of seed and content: a random order that no library's generator can change."""
    prefix = hashlib.sha256(f"edgeopt split {seed}".encode())
    keys = np.empty(len(digests), np.uint64)
    for index, row in enumerate(digests):
        key = prefix.copy()
        key.update(row.tobytes())
        keys[index] = int.from_bytes(key.digest()[:8], "big")
    return np.argsort(keys, kind="stable").astype(np.int64)


def _split_off(
    source: SplitName, order: np.ndarray, scan: Scan, wanted: Mapping[SplitName, Share], *, where: str
) -> dict[SplitName, tuple[np.ndarray, str]]:
    """Members (in drawn order) and a sentence for each wanted split and, if there are any, for what is left."""
    if not wanted:
        return {}
    _, first, group_of = np.unique(scan.contents[order], return_index=True, return_inverse=True)
    groups = np.sort(first)  # one per distinct content, by its first sample in drawn order
    owner = np.searchsorted(groups, first)[group_of]  # which group each sample belongs to
    labels = None if scan.labels is None else scan.labels[order][groups]
    sizes = {name: share(len(groups)) for name, share in wanted.items()}
    if min(sizes.values()) < 1 or sum(sizes.values()) >= len(groups):
        numbers = ", ".join(f"{size} for {name}" for name, size in sizes.items())
        raise DataError(
            "Empty split: there are too few samples to go round.",
            got=f"{len(groups)} distinct samples in {where}, of which {numbers} and the rest for {source}",
            fix="Give more samples, or say the sizes in a manifest: splits: {calibration: 10, tune: 0}.",
        )
    free = np.ones(len(groups), bool)
    means = "stratified by label" if labels is not None else "drawn without labels"
    twins = f", {len(order) - len(groups)} identical samples kept with their twins" if len(order) > len(groups) else ""
    parts: dict[SplitName, tuple[np.ndarray, str]] = {}
    for name, size in sizes.items():
        chosen = _draw(np.flatnonzero(free), size, labels)
        free[chosen] = False
        members = order[np.isin(owner, chosen)]
        parts[name] = (members, f"split off {where}: {len(members)} of its {len(order)} samples, {means}{twins}")
    rest = order[free[owner]]
    parts[source] = (rest, f"what {' and '.join(sizes)} left of {where}: {len(rest)} of its {len(order)} samples")
    return parts


def _share(name: SplitName, plan: SplitPlan) -> Share | None:
    """How many of so many samples make the split ``name``; None for no such split."""
    asked: int | float | None = getattr(plan, name)
    default = _DEFAULTS.get(name)
    if asked == 0 or (asked is None and default is None):
        return None
    if asked is None:
        share, most = default or (0.0, 0)
        return lambda count: max(1, min(most, round(share * count)))
    return lambda count: asked if isinstance(asked, int) else round(asked * count)


def _draw(candidates: np.ndarray, size: int, labels: np.ndarray | None) -> np.ndarray:
    """The first ``size`` candidates, or with labels the first of each class in proportion (largest remainders)."""
    if labels is None:
        return candidates[:size]
    classes, first, counts = np.unique(labels[candidates], return_index=True, return_counts=True)
    exact = counts * size  # share of a class times the number of candidates: whole numbers, no rounding
    takes = exact // len(candidates)
    remainders = exact % len(candidates)
    for position in np.lexsort((first, -remainders))[: size - int(takes.sum())]:
        takes[position] += 1
    mine = [candidates[labels[candidates] == c][:take] for c, take in zip(classes, takes, strict=True)]
    return np.sort(np.concatenate(mine))


def _fingerprint(scan: Scan, indices: np.ndarray, inputs: Sequence[TensorSpec]) -> str:
    digest = hashlib.sha256("\n".join(f"{spec.dtype}{spec.shape[1:]}" for spec in inputs).encode())
    for start in range(0, len(indices), 4096):
        part = indices[start : start + 4096]
        digest.update(scan.digests[part].tobytes())
        if scan.labels is not None:
            digest.update(scan.labels[part].astype("<i8").tobytes())
        if scan.targets is not None:
            digest.update(scan.targets[part].tobytes())
    return digest.hexdigest()
