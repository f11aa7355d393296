"""Tables of words in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from comity.report.audit_tables import Table

LONGEST_NUMBER = 16
"""Characters of a cell that still holds a number or an interval and no sentence."""


def print_tables(console: "Console", tables: Sequence["Table"]) -> None:
    """Print tables of words."""
    from rich import box
    from rich import table as rich_table
    from rich.text import Text

    for table in tables:
        shown = rich_table.Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        shown.caption, shown.caption_justify = table.caption, "left"
        for place, heading in enumerate(table.headings):
            # Numbers stay whole in a narrow terminal: names are what may be broken.
            is_short = all(len(row[place]) <= LONGEST_NUMBER for row in table.rows)
            justify: Literal["left", "right"] = "left" if place < table.words else "right"
            shown.add_column(heading, justify=justify, overflow="fold", no_wrap=is_short and place >= table.words)
        for row in table.rows:
            shown.add_row(*map(Text, row))  # as text: a name in brackets is no markup
        console.print(shown)
