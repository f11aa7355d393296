"""The command `comity evaluate --models ...`: progress, then a table for each task and decoding."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from comity.cli.progress import print_line
from comity.config import EvaluateConfig
from comity.report.contest_tables import PlainTable, tabulate_entry
from comity.types import Negotiation


def run_comparison(config: EvaluateConfig, console: Console) -> None:
    """Play and compare the models, print the tables and say where everything lies."""
    told: set[tuple[str, int]] = set()

    def show(players: str, done: int, count: int, states: Sequence[Negotiation]) -> None:
        # One line a batch, when it begins.
        if (players, done) not in told:
            told.add((players, done))
            print_line(console, f"{done} of {count} dialogues written; now {len(states)} of {players}")

    from comity.evaluation.models import evaluate_models

    print_results(console, evaluate_models(config, show))
    print_line(console, f"written to {config.out}; `comity report {config.out}` makes the page")


def print_results(console: Console, results: dict[str, Any]) -> None:
    """Print every table of a comparison of models."""
    for entry in results["entries"]:
        for plain in tabulate_entry(entry):
            console.print(_draw(plain))


def _draw(plain: PlainTable) -> Table:
    table = Table(title=plain.title, title_justify="left")
    for place, heading in enumerate(plain.headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for row in plain.rows:
        table.add_row(*row)
    return table
