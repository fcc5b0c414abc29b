"""``edgeopt analyze``: what each layer of a model costs, and what could be removed from it."""

from collections.abc import Sequence
from pathlib import Path

import click

from edgeopt.cli.groups import GroupedCommand

__all__ = ["analyze"]

_FILES = (".svg", ".html", ".json")


class _AnalyzeCommand(GroupedCommand):
    groups = (
        ("What is looked at", ("data", "sizes", "importance", "samples", "every")),
        ("Where it goes", ("output", "as_json")),
        ("How the model is loaded", ("inputs", "factory", "factory_args", "trust_model")),
        ("How it is run", ("seed", "no_cache", "help")),
    )


@click.command(
    cls=_AnalyzeCommand, epilog="Example: edgeopt analyze model.pt2 --data calibration/mine.yaml -o analysis.html"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-d", "--data", metavar="DATA", help="As for compile; sensitivities are measured on its tuning split.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N",
    help="Of an open dimension; without it the batch is 1, another one as it was exported.",
)
@click.option(
    "--importance",
    metavar="WHAT",
    type=click.Choice(["l1", "l2", "bn_scale", "taylor", "random"]),
    default="l2",
    show_default=True,
    help="Which units of a group go first: l1, l2, bn_scale, taylor or random.",
)
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Of the tuning split, at most.",
)
@click.option("--all", "every", is_flag=True, help="List ops without multiplications and weights too.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="FILE.svg, FILE.html or FILE.json; or a folder, for all three.",
)
@click.option("--input", "inputs", multiple=True, metavar="SPEC", help="An input as NAME:DTYPE[DIMS], as for compile.")
@click.option("--factory", metavar="MODULE:CALLABLE", help="What makes the module that a state dict belongs to.")
@click.option("--factory-arg", "factory_args", multiple=True, metavar="K=V", help="A keyword argument of the factory.")
@click.option("--trust-model", is_flag=True, help="Load a file that can execute code.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--no-cache", is_flag=True, help="Make every stage anew, and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON.")
def analyze(  # one parameter per option
    model: Path,
    data: str | None,
    sizes: Sequence[str],
    importance: str,
    samples: int,
    output: Path | None,
    inputs: Sequence[str],
    factory: str | None,
    factory_args: Sequence[str],
    seed: int,
    *,
    every: bool,
    trust_model: bool,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Show what each layer of MODEL costs, what memory it needs, and what could be removed from it.

    Nothing is trained, and nothing is changed. With data, each group of channels is scored with a quarter, a half and
    three quarters of it removed.
    """
    from typing import cast

    from edgeopt.cli.progress import progress_bars
    from edgeopt.core.errors import EdgeOptError
    from edgeopt.core.spec import parse_input
    from edgeopt.pipeline.analyze import analyze_model
    from edgeopt.pipeline.options import CompileOptions
    from edgeopt.recipes.pruning import Importance
    from edgeopt.report.analysis_page import analysis_files
    from edgeopt.report.terminal_analysis import print_analysis

    if output is not None and output.suffix and output.suffix not in _FILES:
        raise EdgeOptError(
            "The picture is an SVG or HTML file.",
            got=str(output),
            fix="Name it FILE.svg, FILE.html or FILE.json, or give a folder.",
        )
    options = CompileOptions(
        model=model,
        target="local",
        data=data,
        inputs=[parse_input(text) for text in inputs],
        factory=factory,
        factory_args=_pairs("--factory-arg", factory_args),
        trust_model=trust_model,
        seed=seed,
        use_cache=not no_cache,
    )
    with progress_bars(quiet=as_json) as progress:
        found = analyze_model(
            options,
            sizes=_numbers(sizes),
            importance=cast("Importance", importance),
            samples=samples,
            progress=progress,
        )
    written = analysis_files(found, output) if output is not None else {}
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    from rich.console import Console

    print_analysis(found, Console(highlight=False), every=every)
    for event in found.events:
        if event.kind != "note":
            click.echo(f"{event.kind.capitalize()}: {event.message}", err=True)
    if written:
        click.echo(f"Written: {', '.join(map(str, written))}")


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    from edgeopt.core.errors import EdgeOptError

    pairs = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise EdgeOptError(f"A {option} has no value.", got=repr(text), fix="Write it as NAME=VALUE.")
        pairs[name] = value
    return pairs


def _numbers(given: Sequence[str]) -> dict[str, int]:
    from edgeopt.core.errors import EdgeOptError

    pairs = _pairs("--size", given)
    for name, value in pairs.items():
        if not value.isdecimal():
            raise EdgeOptError(f"The size of {name} is no number.", got=repr(value), fix="Write it as NAME=N.")
    return {name: int(value) for name, value in pairs.items()}
