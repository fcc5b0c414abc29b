"""The ``edgeopt`` command: a group whose commands are imported when they are called."""

import gc
import sys

import click

from edgeopt.version import __version__

__all__ = ["cli", "main"]

# name → (module:command, one line for --help). Help needs no import of the command itself.
COMMANDS = {
    "compile": ("edgeopt.cli.compile:compile_", "Take a trained model to a measured bundle for a target."),
    "build": ("edgeopt.cli.build:build", "Build a bundle's engine on its device, and measure it there."),
    "inspect": ("edgeopt.cli.bundle:inspect", "Show what a bundle holds and what it costs."),
    "verify": ("edgeopt.cli.bundle:verify", "Check a bundle's hashes and re-run its reference inputs."),
    "bench": ("edgeopt.cli.bench:bench", "Measure a bundle's latency, throughput and memory again."),
    "eval": ("edgeopt.cli.bench:eval_", "Measure a bundle's accuracy again, on data of yours."),
    "plan-test": ("edgeopt.cli.plan_test:plan_test", "Say how many samples a gate on the accuracy drop needs."),
    "lint": ("edgeopt.cli.lint:lint", "Say what a target's runtimes will refuse, misread or run in float."),
    "gate": ("edgeopt.cli.gate:gate", "Judge a bundle by limits, alone or against a baseline; made for CI."),
    "baseline": ("edgeopt.cli.baseline:baseline", "Keep a bundle's figures as a baseline; show and promote baselines."),
    "diff": ("edgeopt.cli.diff:diff", "Show what changed between two bundles."),
    "sensitivity": ("edgeopt.cli.sensitivity:sensitivity", "Score a model with one group of layers in int8 at a time."),
    "analyze": ("edgeopt.cli.analyze:analyze", "Show what each layer of a model costs, and what could be removed."),
    "sample": ("edgeopt.cli.sample:sample", "Write an Android or iOS application around a bundle."),
    "devices": ("edgeopt.cli.devices:devices", "List the devices, ask each what it is, or set a kind of them up."),
    "targets": ("edgeopt.cli.targets:targets", "List, explain and compare targets; describe this machine as one."),
    "recipes": ("edgeopt.cli.recipes:recipes", "List the shipped recipes, or print one."),
    "doctor": ("edgeopt.cli.doctor:doctor", "Say which runtimes are here, and how to get the others."),
    "cache": ("edgeopt.cli.cache:cache", "Show or clear the cache of earlier runs' stages."),
    "completion": ("edgeopt.cli.completion:completion", "Print the shell completion script."),
}


ALIASES = {"device": "devices"}

_COLLECTED_AFTER = (20_000, 10, 10)
"""Of new objects, and of collections of the younger ones. With Python's 700 the collector walks the million objects that torch and
the exporter bring nine times in a compile, for 1.2 of the seconds before the first measurement; peak memory is the same."""


class LazyGroup(click.Group):
    """Commands named in ``COMMANDS``, each imported on its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; an unknown name gets the nearest ones."""
        if args and ALIASES.get(args[0], args[0]) not in COMMANDS and not args[0].startswith("-"):
            from edgeopt.core.errors import nearest_first

            near = ", ".join(nearest_first(args[0], COMMANDS)[:3])
            ctx.fail(f"No such command {args[0]!r}. Nearest: {near}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: edgeopt compile model.pt2 --target jetson --data calibration/mine.yaml",
)
@click.version_option(__version__, prog_name="edgeopt")
def cli() -> None:
    """Take a trained PyTorch model to an artifact an edge device can run, with proof of what it costs."""


def main() -> None:
    """Run the command line and exit with its code."""
    from edgeopt.cli.edge import run

    gc.set_threshold(*_COLLECTED_AFTER)
    sys.exit(run(cli, sys.argv[1:]))
