"""The commands `comity evaluate --models ...` and `comity study`: progress, then a table for each task and decoding."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from comity.cli.progress import describe_step, print_line
from comity.cli.spending import Spending
from comity.config import EvaluateConfig, StudyConfig
from comity.report.contest_tables import PlainTable, tabulate_ability, tabulate_entry
from comity.types import Negotiation

MOST_COLUMNS = 5
"""A table with more columns is printed as lines."""


def run_comparison(config: EvaluateConfig, console: Console) -> None:
    """Play and compare the models, print the tables and say where everything lies."""
    from comity.evaluation.models import evaluate_models

    spending = Spending(config.access, str(config.out))
    try:
        results = evaluate_models(config, BatchProgress(console, spending).on_batch)
    finally:
        spending.print(console)
    print_results(console, results)
    print_line(console, f"written to {config.out}; `comity report {config.out}` makes the page")


def run_study_command(config: StudyConfig, console: Console) -> None:
    """Run a study, print the tables of its arms and say where everything lies."""

    warned: set[str] = set()

    def on_step(arm: str, step: int, metrics: dict[str, float]) -> None:
        print_line(console, f"{arm}: step {step}  {describe_step(metrics)}")
        if metrics.get("judges/parted") and arm not in warned:
            warned.add(arm)
            print_line(console, f"warning: {arm}: the judges part; read its last dialogues, see docs/judges.md")

    from comity.study.run import run_study

    results = run_study(config, on_step, BatchProgress(console).on_batch)
    print_results(console, results)
    published = "" if config.page == "none" else f"; published in {config.page}"
    print_line(console, f"{config.run}: study.md holds all of it, arms/report.html compares the arms{published}")


class BatchProgress:
    """Print one line for each batch of dialogues when it begins; `on_batch` is a callback of `play_contest`."""

    def __init__(self, console: Console, spending: Spending | None = None) -> None:
        self.console, self.spending = console, spending
        self.told: set[tuple[str, int]] = set()

    def on_batch(self, players: str, done: int, count: int, states: Sequence[Negotiation]) -> None:
        """Tell which batch is played."""
        if (players, done) not in self.told:
            self.told.add((players, done))
            words = f"{done} of {count} dialogues written; now {len(states)} of {players}"
            spent = self.spending.describe() if self.spending is not None else ""
            print_line(self.console, "; ".join(filter(None, [words, spent])))


def print_results(console: Console, results: dict[str, Any]) -> None:
    """Print every table of a comparison of models."""
    for entry in results["entries"]:
        for plain in tabulate_entry(entry):
            _print_table(console, plain)
    if "ifeval" in results:
        _print_table(console, tabulate_ability(results["ifeval"]))


def _print_table(console: Console, plain: PlainTable) -> None:
    if len(plain.headings) > MOST_COLUMNS:
        # Wider than a terminal: one line a row.
        print_line(console, f"\n{plain.title}")
        for row in plain.rows:
            figures = (f"{heading} {cell}" for heading, cell in zip(plain.headings[1:], row[1:], strict=True))
            print_line(console, f"  {row[0]}: {', '.join(figures)}")
        return
    table = Table(title=plain.title, title_justify="left")
    for place, heading in enumerate(plain.headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for row in plain.rows:
        table.add_row(*row)
    console.print(table)
