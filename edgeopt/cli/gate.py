"""``edgeopt gate``: whether a bundle ships."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from edgeopt.cli.progress import progress_bars
from edgeopt.core.errors import EdgeOptError

if TYPE_CHECKING:
    from edgeopt.bundle.gate import GateResult

__all__ = ["gate"]

_FORMATS = ("text", "json", "junit", "sarif", "markdown")
_EXAMPLES = """\b
Examples:
  edgeopt gate dist/model-local --limits limits.yaml
  edgeopt gate dist/model-local --baseline current --limits limits.yaml
  edgeopt gate dist/model-local --format junit -o gate.xml --format markdown -o gate.md
"""


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-b", "--baseline", metavar="WHAT", help="A bundle, a baseline's file or folder, or its name (current) in --folder."
)
@click.option(
    "-l",
    "--limits",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What must hold.  [default: the limits of the bundle's recipe]",
)
@click.option(
    "--on-inconclusive",
    type=click.Choice(["pass", "fail"]),
    help="Exit 0 or 5 where the figures cannot tell.  [default: the limits file's, else fail]",
)
@click.option(
    "-f",
    "--format",
    "formats",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="Repeatable; the first -o belongs to the first --format, and so on.  [default: text]",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Where to write, - for stdout. A format without one is printed.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("baselines"),
    show_default=True,
    help="Of the baselines.",
)
@click.option("--device", default="local", show_default=True, help="Where engines are timed.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of bootstraps and of the turns.")
def gate(
    bundle: Path,
    baseline: str | None,
    limits: Path | None,
    on_inconclusive: Literal["pass", "fail"] | None,
    formats: Sequence[str],
    outputs: Sequence[Path],
    folder: Path,
    device: str,
    seed: int,
    *,
    as_json: bool,
) -> int:
    """Judge BUNDLE by its limits: exit 0 (they hold), 4 (one is missed) or 5 (the figures cannot tell).

    A limit holds where the figure's whole 95 % interval is inside it, is missed where none of it is, and is
    INCONCLUSIVE where the interval straddles it.
    """
    wanted = (*formats, *(["json"] if as_json and "json" not in formats else [])) or ("text",)
    places = _places(wanted, outputs)
    from edgeopt.pipeline.gate import gate_bundle

    with progress_bars(quiet="json" in wanted) as progress:
        result = gate_bundle(
            bundle,
            baseline=baseline,
            limits=limits,
            on_inconclusive=on_inconclusive,
            folder=folder,
            device=device,
            seed=seed,
            progress=progress,
        )
    for form, place in zip(wanted, places, strict=True):
        _write(result, form, place)
    if not any(place is None for place in places):
        click.echo(result.summary, err=True)
    return result.exit_code


def _places(formats: Sequence[str], outputs: Sequence[Path]) -> list[Path | None]:
    """A file per format, None for stdout; at most one is printed."""
    if len(outputs) > len(formats):
        raise click.UsageError(f"{len(outputs)} times -o, and only {len(formats)} --format.")
    places = [None if str(path) == "-" else path for path in outputs]
    places += [None] * (len(formats) - len(places))
    if places.count(None) > 1:
        raise click.UsageError("Only one format can be printed; give the others a file with -o.")
    return places


def _write(result: "GateResult", form: str, place: Path | None) -> None:
    if form == "text" and place is None:
        from edgeopt.report.terminal_gate import render_gate

        render_gate(result, Console(highlight=False))
        return
    text = _RENDERERS[form](result)
    if place is None:
        sys.stdout.write(text)
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeOptError(
            "The gate's outcome cannot be written.", got=f"{place} ({error.strerror})", fix="Give another file with -o."
        ) from error


def _text(result: "GateResult") -> str:
    import io

    from edgeopt.report.terminal_gate import render_gate

    text = io.StringIO()
    render_gate(result, Console(file=text, highlight=False, width=120, no_color=True))
    return text.getvalue()


def _json(result: "GateResult") -> str:
    return result.model_dump_json(indent=2) + "\n"


def _junit(result: "GateResult") -> str:
    from edgeopt.report.gate_junit import gate_junit

    return gate_junit(result)


def _sarif(result: "GateResult") -> str:
    from edgeopt.report.gate_sarif import gate_sarif

    return gate_sarif(result)


def _markdown(result: "GateResult") -> str:
    from edgeopt.report.gate_markdown import gate_markdown

    return gate_markdown(result)


_RENDERERS: dict[str, Callable[["GateResult"], str]] = {
    "text": _text,
    "json": _json,
    "junit": _junit,
    "sarif": _sarif,
    "markdown": _markdown,
}
