"""``edgeopt sensitivity``: what each group of layers costs in int8."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

__all__ = ["sensitivity"]


@click.command(
    epilog="Example: edgeopt sensitivity model.pt2 --data calibration/mine.yaml --latency -o sensitivity.svg"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-d", "--data", metavar="DATA", required=True, help="As for compile; its tuning split is scored on.")
@click.option(
    "-t", "--target", metavar="NAME", default="local", show_default=True, help="Whose rules decide what is quantized."
)
@click.option(
    "-r",
    "--recipe",
    metavar="NAME",
    default="int8-mixed",
    show_default=True,
    help="A recipe with a mixed step: observer, candidates, samples.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, e.g. steps.mixed.tune_samples=99.",
)
@click.option("--latency", is_flag=True, help="Also time each group in float against all int8, on this machine.")
@click.option("--complement", is_flag=True, help="Also score everything but each group.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the plot: FILE.svg or FILE.html."
)
@click.option("--input", "inputs", multiple=True, metavar="SPEC", help="An input as NAME:DTYPE[DIMS], as for compile.")
@click.option("--factory", metavar="MODULE:CALLABLE", help="What makes the module that a state dict belongs to.")
@click.option("--trust-model", is_flag=True, help="Load a file that can execute code.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--no-cache", is_flag=True, help="Make every stage anew, and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def sensitivity(  # one parameter per option
    model: Path,
    data: str,
    target: str,
    recipe: str,
    overrides: Sequence[str],
    output: Path | None,
    inputs: Sequence[str],
    factory: str | None,
    seed: int,
    *,
    latency: bool,
    complement: bool,
    trust_model: bool,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Score MODEL with one group of layers after another quantized, the rest in float.

    What comes first in the table is what a mixed recipe would leave in float first.
    """
    from edgeopt.cli.progress import progress_bars
    from edgeopt.core.errors import EdgeOptError
    from edgeopt.core.spec import parse_input
    from edgeopt.pipeline.options import CompileOptions
    from edgeopt.pipeline.sensitivity_run import run_sensitivity
    from edgeopt.report.sensitivity import page, table

    if output is not None and output.suffix not in (".svg", ".html"):
        raise EdgeOptError("The plot is an SVG or HTML file.", got=str(output), fix="Name it FILE.svg or FILE.html.")
    options = CompileOptions(
        model=model,
        target=target,
        data=data,
        recipe=recipe,
        overrides=overrides,
        inputs=[parse_input(text) for text in inputs],
        factory=factory,
        trust_model=trust_model,
        seed=seed,
        use_cache=not no_cache,
    )
    with progress_bars(quiet=as_json) as progress:
        section, events = run_sensitivity(options, latency=latency, complement=complement, progress=progress)
    if output is not None:
        output.write_text(page(section, model.name, html=output.suffix == ".html"), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(section.model_dump(mode="json"), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    heads, rows = table(section)
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    console.print(f"\nScored on {section.split}, most sensitive first. Time: {section.timed}.", markup=False)
    for event in events:
        if event.kind != "note":
            click.echo(f"{event.kind.capitalize()}: {event.message}", err=True)
    if output is not None:
        console.print(f"Plot: {output}", markup=False)
