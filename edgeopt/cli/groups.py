"""Help whose options stand under headings."""

from typing import ClassVar

import click

__all__ = ["GroupedCommand"]


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
