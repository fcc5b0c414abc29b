"""``edgeopt lint``: what a runtime will do with a graph, before it is asked."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from edgeopt.core.errors import EdgeOptError

if TYPE_CHECKING:
    from edgeopt.backends.lint.document import LintResult

__all__ = ["lint"]

_EXAMPLES = """\b
Examples:
  edgeopt lint model.onnx --target jetson
  edgeopt lint model.onnx --target local --runtime onnxruntime --fix fixed.onnx
  edgeopt lint dist/model-local --target local --format sarif -o lint.sarif
  edgeopt lint --rules --target jetson
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("-t", "--target", metavar="NAME", help="A target's name, alias or YAML file.")
@click.option("-r", "--runtime", metavar="NAME", help="One of the target's runtimes.  [default: all of them]")
@click.option("-f", "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write.  [default: stdout]"
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option(
    "--fix",
    metavar="OUT.onnx",
    type=click.Path(path_type=Path),
    help="Write the model with what can be fixed fixed, each rewrite verified. The input stays as it is.",
)
@click.option(
    "--inputs",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="For --fix: an .npz to verify on, beside random inputs.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of --fix's random inputs.")
@click.option("--rules", "list_them", is_flag=True, help="List the rules, of a target or of all, and stop.")
def lint(
    model: Path | None,
    target: str | None,
    runtime: str | None,
    form: str,
    output: Path | None,
    fix: Path | None,
    inputs: Path | None,
    seed: int,
    *,
    as_json: bool,
    strict: bool,
    list_them: bool,
) -> int:
    """Say what a target's runtimes will refuse, compute wrongly or run in float, with the node, why, and what to do.

    MODEL is an ONNX file, looked at as it stands, or a bundle, whose graph is looked at as it is compiled. Exits 0, or 4
    where there is an error (with --strict also a warning).
    """
    form = "json" if as_json else form
    if list_them:
        _write(_rules(target, runtime, form), output)
        return 0
    if model is None or target is None:
        raise click.UsageError("Give MODEL and --target; or --rules.")
    if fix is None:
        from edgeopt.pipeline.lint import lint_model

        result = lint_model(model, target=target, runtime=runtime)
    else:
        from edgeopt.pipeline.lint_fix import fix_model

        result = fix_model(model, fix, target=target, runtime=runtime, inputs=inputs, seed=seed)
    if form == "text" and output is None:
        from edgeopt.report.terminal_lint import render_lint

        render_lint(result, Console(highlight=False))
    else:
        _write(_text(result, form, strict=strict), output)
    return result.exit_code(strict=strict)


def _rules(target: str | None, runtime: str | None, form: str) -> str:
    from edgeopt.pipeline.lint import list_rules
    from edgeopt.report.terminal_lint import render_rules

    rules = list_rules(target, runtime)
    if form == "sarif":
        raise click.UsageError("Rules are listed as text or JSON.")
    if form == "json":
        return json.dumps([rule.model_dump() for rule in rules], indent=2) + "\n"
    text = io.StringIO()
    render_rules(rules, Console(file=text, highlight=False, width=120, no_color=True))
    return text.getvalue()


def _text(result: "LintResult", form: str, *, strict: bool) -> str:
    if form == "json":
        return result.model_dump_json(indent=2) + "\n"
    if form == "sarif":
        from edgeopt.report.lint_sarif import lint_sarif

        return lint_sarif(result, strict=strict)
    from edgeopt.report.terminal_lint import render_lint

    text = io.StringIO()
    render_lint(result, Console(file=text, highlight=False, width=120, no_color=True))
    return text.getvalue()


def _write(text: str, place: Path | None) -> None:
    if place is None:
        sys.stdout.write(text)
        return
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeOptError("The outcome cannot be written.", got=f"{place} ({error.strerror})") from error
