"""What every stage of one run shares: the cache, the listener, and the record of what was done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeopt.bundle.document import MixedSection, ParityRow, PrunedSection, PruningSection, StageRow
from edgeopt.core.events import Event, Progress, ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline.cache import StageCache

__all__ = ["RunContext"]

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RunContext:
    """One run of the pipeline.

    Attributes:
        cache: Where stages are found or made.
        host: The name that stage times carry as their device.
        seed: Of every random choice.
        listener: Told of every stage, and of the samples within it.
        stages: One row per stage so far.
        events: What the report's reader must know.
        parity: One row per comparison so far.
        mixed: One section per search for mixed precision so far.
        pruning: One section per search for channel counts so far.
        pruned: One section per prune step so far.
        deadline: When steps that can end early are to do so, seconds of ``time.monotonic``; None: never.
    """

    cache: StageCache
    host: str
    seed: int = 0
    listener: ProgressListener = ignore_progress
    stages: list[StageRow] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    parity: list[ParityRow] = field(default_factory=list)
    mixed: list[MixedSection] = field(default_factory=list)
    pruning: list[PruningSection] = field(default_factory=list)
    pruned: list[PrunedSection] = field(default_factory=list)
    deadline: float | None = None
    _running: str = ""
    _told: float = 0.0  # seconds of the rows that were recorded within the running stage

    def stage(self, kind: str, label: str, inputs: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """Find or make a stage's result, and record its time but for what was recorded within it.

        Args:
            kind: The cache's name for this kind of stage.
            label: What the report and the progress bar call it.
            inputs: See ``StageCache.stage``.
            build: Likewise.

        Returns:
            The stage's folder, to be read only.
        """
        outer, self._running = self._running, label
        before, self._told = self._told, 0.0
        self.listener(Progress(stage=label, done=0, total=None))
        try:
            outcome = self.cache.stage(kind, inputs, build)
        finally:
            self._running, within = outer, self._told
            self._told += before
        self.listener(Progress(stage=label, done=1, total=1))
        _log.info("%s: %.2f s%s", label, outcome.wall_s, " (cached)" if outcome.cached else "")
        self.record(label, outcome.wall_s - within, cached=outcome.cached)
        return outcome.directory

    def progress(self, progress: Progress) -> None:
        """Pass on how far the work inside a stage is, as a part of that stage."""
        if self._running:
            progress = replace(progress, stage=self._running, part=progress.stage)
        self.listener(progress)

    def record(self, label: str, seconds: float, *, cached: bool = False) -> None:
        """Note the time of a stage or of a part of it; one that is found again in the same run has its row already."""
        self._told += seconds
        if cached and any(row.name == label for row in self.stages):
            return
        wall = Measurement(name="wall_s", value=seconds, unit="s", n=1, device=self.host, conditions={"cached": cached})
        self.stages.append(StageRow(name=label, wall=wall, cached=cached))

    def note(self, events: tuple[Event, ...] | list[Event]) -> None:
        """Add events to the report."""
        for event in events:
            _log.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s: %s", event.stage, event.message)
            self.events.append(event)
