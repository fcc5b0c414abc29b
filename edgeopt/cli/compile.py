"""``edgeopt compile``: the whole story."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from edgeopt.bundle.layout import report_json
from edgeopt.cli.device_options import chosen_device, device_options
from edgeopt.cli.groups import GroupedCommand
from edgeopt.cli.plan import show_plan
from edgeopt.cli.progress import progress_bars
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.spec import parse_input
from edgeopt.pipeline.compile import compile_model, dry_run
from edgeopt.pipeline.options import NUMERICS_SAMPLES, CompileOptions
from edgeopt.targets.load import find_target

__all__ = ["compile_"]

_EXAMPLES = """\b
Examples:
  edgeopt compile model.pt2 --target jetson --data calibration/mine.yaml
  edgeopt compile model.pt2 --target openvino-cpu --data digits \\
    --set steps.quantize.observer=histogram --dry-run
  edgeopt compile weights.pt --target local --data test.npz \\
    --factory my.models:resnet --input x:float32[batch,3,224,224]
"""


class _CompileCommand(GroupedCommand):
    groups = (
        ("What and where to", ("target", "data", "recipe", "overrides", "objective", "output")),
        ("How the model is loaded", ("inputs", "factory", "factory_args", "trust_model")),
        ("Which machine measures", ("device", "accept_new_host_key", "devices_file", "numerics", "numerics_samples")),
        ("How it is run", ("dry", "max_minutes", "require_engine", "seed", "no_cache", "as_json", "verbose", "help")),
    )


@click.command("compile", cls=_CompileCommand, epilog=_EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-t", "--target", metavar="NAME", required=True, help="The device: a name (edgeopt targets), or your own YAML file."
)
@click.option(
    "-d",
    "--data",
    metavar="DATA",
    help="A calibration set's manifest or name, .npz, folder of class folders, or module:callable.",
)
@click.option("-r", "--recipe", metavar="NAME", help="A recipe's name or file; without one, the target's default.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value of the recipe, e.g. steps.quantize.observer=histogram.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The bundle's folder.  [default: dist/MODEL-TARGET]",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="An input as NAME:DTYPE[DIMS], where the model does not say; a dimension may be a name.",
)
@click.option("--factory", metavar="MODULE:CALLABLE", help="What makes the module that a state dict belongs to.")
@click.option("--factory-arg", "factory_args", multiple=True, metavar="K=V", help="A keyword argument of the factory.")
@click.option(
    "--trust-model", is_flag=True, help="Load a file that can execute code. Only for files you made yourself."
)
@click.option(
    "--objective",
    metavar="WHAT",
    type=click.Choice(["latency", "size", "accuracy"]),
    help="What the shipped candidate is best at: latency, size or accuracy.  [default: the recipe's]",
)
@click.option(
    "--max-minutes",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="When this is over, ship the best so far; training ends early. The first rung is always tried.",
)
@device_options(of_target=True)
@click.option(
    "--numerics",
    metavar="CPU,CPU",
    help="Run what is shipped there too, and compare its outputs: qemu:cortex-a53,qemu:max (edgeopt devices).",
)
@click.option(
    "--numerics-samples",
    metavar="N",
    type=click.IntRange(min=1),
    default=NUMERICS_SAMPLES,
    show_default=True,
    help="Of the test split, on each; emulation is slow.",
)
@click.option("--require-engine", is_flag=True, help="Exit 4 if the engine can only be built on the device.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of every random choice.")
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
    max_minutes: float | None,
    device: str | None,
    devices_file: Path | None,
    numerics: str | None,
    numerics_samples: int,
    seed: int,
    verbose: int,
    *,
    accept_new_host_key: bool,
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
        max_minutes=max_minutes,
        use_cache=not no_cache,
        numerics=[name.strip() for name in (numerics or "").split(",") if name.strip()],
        numerics_samples=numerics_samples,
        command=shlex.join(["edgeopt", *sys.argv[1:]]),
    )
    with (
        progress_bars(quiet=as_json) as progress,
        chosen_device(
            device or find_target(target).device,
            progress,
            accept_new_host_key=accept_new_host_key,
            devices_file=devices_file,
        ) as where,
    ):
        options = dataclasses.replace(options, device=where)
        if dry:
            plan = dry_run(options, progress)
        else:
            bundle = compile_model(options, progress)
    if dry:
        show_plan(plan, options.destination(model.stem, plan.target.name), as_json=as_json)
        return 0
    report = bundle.report
    if as_json:
        click.echo(report_json(report), nl=False)
    else:
        from edgeopt.report.terminal import render

        render(report, Console(highlight=False), bundle.directory)
    if report.ladder is not None and report.ladder.ended == "interrupted":
        click.echo(
            f"\nInterrupted. The best so far is in {bundle.directory}; the next run resumes from the cache.", err=True
        )
        return 130
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


def _log_to_stderr(verbose: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("edgeopt").setLevel(level)
    for talkative in ("torchao", "torch.utils._pytree"):  # of each CUDA library that a CPU has no use for
        logging.getLogger(talkative).setLevel(logging.ERROR)
