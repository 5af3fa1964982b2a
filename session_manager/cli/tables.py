"""Tables as every command prints them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

WIDE = 10_000


def plain(*columns: str) -> Table:
    """A table without lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print it on standard output, its cells as plain text; in a file or pipe a row stays one line."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=WIDE)
    console.print(table)
