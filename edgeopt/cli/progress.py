"""A progress bar for anything that takes longer than two seconds; plain lines where stderr is not a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from edgeopt.cli import interrupt
from edgeopt.core.events import Progress, ProgressListener

__all__ = ["progress_bars"]

_PATIENCE_S = 2.0


class _CountColumn(ProgressColumn):
    """``128/512``; nothing where the number of units is not known."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed)}/{int(task.total)}", style="progress.download")


class _PatientBars(Bars):
    """Bars of running tasks only, and only of those that have run for longer than two seconds."""

    def get_renderables(self) -> Iterable[RenderableType]:
        shown = [task for task in self.tasks if (task.elapsed or 0.0) > _PATIENCE_S]
        if shown:
            yield self.make_tasks_table(shown)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressListener]:
    """A listener that draws the running stages on stderr."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield _lines(console, quiet=quiet)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        _CountColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with _PatientBars(*columns, console=console, transient=True) as bars:

        def listen(progress: Progress) -> None:
            interrupt.check()
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=None)
            if _done(progress):
                bars.remove_task(tasks.pop(progress.stage))
                return
            says_more = progress.part and not progress.stage.startswith(progress.part)
            title = f"{progress.stage}: {progress.part}" if says_more else progress.stage
            bars.update(tasks[progress.stage], description=title, completed=progress.done, total=progress.total)

        yield listen


def _lines(console: Console, *, quiet: bool) -> ProgressListener:
    """One line for each stage that took longer than two seconds, when it is done."""
    begun: dict[str, float] = {}

    def listen(progress: Progress) -> None:
        interrupt.check()
        start = begun.setdefault(progress.stage, perf_counter())
        if not _done(progress):
            return
        took = perf_counter() - start
        del begun[progress.stage]
        if took > _PATIENCE_S and not quiet:
            console.print(f"{progress.stage}: {took:.1f} s", highlight=False, markup=False, soft_wrap=True)

    return listen


def _done(progress: Progress) -> bool:
    """Whether the whole stage is done, not just a part of it."""
    return not progress.part and progress.total is not None and progress.done >= progress.total
