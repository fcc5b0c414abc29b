"""``edgeopt compile``: the whole story."""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from edgeopt.bundle.layout import report_json
from edgeopt.cli.progress import progress_bars
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.spec import parse_input
from edgeopt.pipeline.compile import compile_model, dry_run
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.plan import Plan

__all__ = ["compile_"]

_EXAMPLES = """\b
Examples:
  edgeopt compile model.pt2 --target jetson --data calibration/mine.yaml
  edgeopt compile weights.pt --factory my.models:resnet --input x:float32[batch,3,224,224] --target local --data test.npz
  edgeopt compile model.pt2 --target openvino-cpu --data digits --set steps.quantize.observer=histogram --dry-run
"""


@click.command("compile", epilog=_EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-t", "--target", required=True, help="The device: a name (edgeopt targets), or your own YAML file.")
@click.option(
    "-d", "--data", help="A calibration set's manifest or name, .npz, folder of class folders, or module:callable."
)
@click.option("-r", "--recipe", help="A recipe's name or file; without one, the target's default.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value of the recipe, e.g. steps.quantize.observer=histogram.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder.  [default: dist/MODEL-TARGET]"
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME:DTYPE[DIMS]",
    help="An input, where the model does not say; a dimension may be a name.",
)
@click.option(
    "--factory", metavar="PACKAGE.MODULE:CALLABLE", help="What makes the module that a state dict belongs to."
)
@click.option("--factory-arg", "factory_args", multiple=True, metavar="K=V", help="A keyword argument of the factory.")
@click.option(
    "--trust-model", is_flag=True, help="Load a file that can execute code. Only for files you made yourself."
)
@click.option(
    "--objective",
    type=click.Choice(["latency", "size", "accuracy"]),
    help="What the shipped candidate is best at.  [default: the recipe's]",
)
@click.option("--require-engine", is_flag=True, help="Exit 4 if the engine can only be built on the device.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--no-cache", is_flag=True, help="Make every stage anew, and keep nothing.")
@click.option("--dry-run", "dry", is_flag=True, help="Check everything, print the plan, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report (or the plan) as JSON.")
@click.option("-v", "--verbose", count=True, help="Say what happens; twice for details.")
def compile_(  # one parameter per option
    model: Path,
    target: str,
    data: str | None,
    recipe: str | None,
    overrides: Sequence[str],
    output: Path | None,
    inputs: Sequence[str],
    factory: str | None,
    factory_args: Sequence[str],
    objective: str | None,
    seed: int,
    verbose: int,
    *,
    trust_model: bool,
    require_engine: bool,
    no_cache: bool,
    dry: bool,
    as_json: bool,
) -> int:
    """Take MODEL to a bundle for a target: compress, export, compile, measure, judge.

    MODEL is a torch.export archive (.pt2), a state dict with --factory, a TorchScript archive, an ONNX file, or, with
    --trust-model, a pickled nn.Module.
    """
    _log_to_stderr(verbose)
    options = CompileOptions(
        model=model,
        target=target,
        data=data,
        recipe=recipe,
        overrides=[*overrides, *([f"objective={objective}"] if objective else [])],
        inputs=[parse_input(text) for text in inputs],
        factory=factory,
        factory_args=_pairs(factory_args),
        trust_model=trust_model,
        output=output,
        seed=seed,
        use_cache=not no_cache,
        command=shlex.join(["edgeopt", *sys.argv[1:]]),
    )
    console = Console(highlight=False)
    with progress_bars(quiet=as_json) as progress:
        if dry:
            plan = dry_run(options, progress)
        else:
            bundle = compile_model(options, progress)
    if dry:
        _print_plan(plan, console, as_json=as_json)
        return 0
    report = bundle.report
    if as_json:
        click.echo(report_json(report), nl=False)
    else:
        from edgeopt.report.terminal import render

        render(report, console)
        console.print(f"Bundle: {bundle.directory}\nReport: {bundle.directory / 'report.html'}", soft_wrap=True)
    if require_engine and report.shipped.status == "not_built":
        click.echo(
            f"Error: the engine was not built here. On the device, in the bundle: {report.shipped.next_command}",
            err=True,
        )
        return 4
    return 4 if report.verdict.status == "FAIL" else 0


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    for argument in arguments:
        if "=" not in argument:
            raise EdgeOptError("A --factory-arg has no value.", got=repr(argument), fix="Write it as name=value.")
    return dict(argument.split("=", 1) for argument in arguments)


def _print_plan(plan: Plan, console: Console, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan.to_json(), indent=2))
        return
    recipe_note = f" ({plan.recipe_reason})" if plan.recipe_reason else ""
    console.print(f"Target  {plan.target.name}: {plan.target.title}")
    console.print(f"Recipe  {plan.recipe.name}{recipe_note}")
    console.print(f"Measure {'here' if plan.measured_here else 'not on the target'}: {plan.measured_reason}")
    for line in plan.left_out:
        console.print(f"Left out: {line}")
    for number, step in enumerate(plan.steps(), 1):
        console.print(f"{number:>3}. {step}")


def _log_to_stderr(verbose: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("edgeopt").setLevel(level)
