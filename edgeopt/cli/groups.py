"""Groups and commands as this command line wants them: help under headings, a list by default."""

from typing import ClassVar

import click

__all__ = ["DefaultGroup", "GroupedCommand"]


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists its options by heading.

    Attributes:
        groups: Heading and the names of its parameters, in order; what is in none of them comes last.
    """

    groups: ClassVar[tuple[tuple[str, tuple[str, ...]], ...]] = ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per heading."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {p.name: record for p in options if (record := p.get_help_record(ctx)) is not None}
        grouped = [(title, [records.pop(name) for name in names if name in records]) for title, names in self.groups]
        for title, rows in [*grouped, ("Other options", list(records.values()))]:
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=26)


class DefaultGroup(click.Group):
    """A group that lists when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option without a command is one of ``list``; the group itself has only help."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)
