"""A progress bar for anything that takes longer than two seconds; plain lines where stderr is not a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from edgeopt.core.events import Progress, ProgressListener

__all__ = ["progress_bars"]

_PATIENCE_S = 2.0


class _PatientBars(Bars):
    """Bars of running tasks only, and only of those that have run for longer than two seconds."""

    def get_renderables(self) -> Iterable[RenderableType]:
        shown = [task for task in self.tasks if not task.finished and (task.elapsed or 0.0) > _PATIENCE_S]
        yield self.make_tasks_table(shown)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressListener]:
    """A listener that draws the running stages on stderr."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _lines(quiet=quiet)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with _PatientBars(*columns, console=console, transient=True) as bars:

        def listen(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        yield listen


def _lines(*, quiet: bool) -> ProgressListener:
    """One line for each stage that took longer than two seconds, when it is done."""
    begun: dict[str, float] = {}
    console = Console(stderr=True)

    def listen(progress: Progress) -> None:
        start = begun.setdefault(progress.stage, perf_counter())
        took = perf_counter() - start
        if progress.total is not None and progress.done >= progress.total and took > _PATIENCE_S and not quiet:
            console.print(f"{progress.stage}: {took:.1f} s", highlight=False)
            del begun[progress.stage]

    return listen
