"""``edgeopt completion``: the script that makes a shell complete edgeopt's commands and options."""

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(epilog="Example: echo 'eval \"$(edgeopt completion bash)\"' >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL."""
    from edgeopt.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:  # the choices above are click's own
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(kind(cli, {}, "edgeopt", "_EDGEOPT_COMPLETE").source())
