"""What models behind addresses have cost: beside a running command, at its end, and `comity spend`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.access import Spend
from comity.access.ledger import read_ledger
from comity.config import AccessConfig
from comity.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.report.audit_tables import Table

HEADINGS = ("run", "for", "model", "calls", "failed", "tokens in", "tokens out", "dollars")


class Spending:
    """The ledger of one run, read anew at each look: other processes of the run write to it too."""

    def __init__(self, access: AccessConfig, run: str) -> None:
        self._path, self._run = access.cache, access.book_under or run

    def read(self) -> list[Spend]:
        """Return what the run has paid so far, by account and model."""
        return read_ledger(self._path, self._run)

    def describe(self) -> str:
        """Return the dollars so far in words, by judge where there are several; empty when nothing was bought."""
        spends = self.read()
        if not spends:
            return ""
        models = {spend.model for spend in spends}
        parts = [
            f"{name_account(spend.account)}{f' {spend.model}' if len(models) > 1 else ''} {spend.dollars:.4f}"
            for spend in spends
        ]
        each = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        unpriced = sum(spend.unpriced for spend in spends)
        unknown = f", {unpriced} calls of unknown price" if unpriced else ""
        return f"spent {sum(spend.dollars for spend in spends):.4f} dollars{each}{unknown}"

    def print(self, console: "Console") -> None:
        """Print one line for each account and model of the run."""
        from comity.cli.progress import print_line

        for spend in self.read():
            print_line(console, describe_spend(spend))


def name_account(account: str) -> str:
    """Return what was paid for in one word: `agency` of `judge/agency`."""
    return account.rpartition("/")[2]


def describe_spend(spend: Spend) -> str:
    """Return what an account of a run spent on one model, over all processes, in one line."""
    dollars = f"{spend.dollars:.4f} dollars"
    if spend.unpriced:
        dollars = (
            f"{dollars} and {spend.unpriced} of unknown price"
            if spend.dollars
            else f"{spend.unpriced} of unknown price"
        )
    failed = f", {spend.failed} failed" if spend.failed else ""
    tokens = f"{spend.input_tokens} tokens in, {spend.output_tokens} out"
    return f"{name_account(spend.account)} by {spend.model}: {spend.calls} calls paid{failed}, {tokens}, {dollars}"


def add_spend(commands: Any) -> None:
    """Add `comity spend`."""
    text = "show what models behind addresses have cost, by run and judge"
    command = commands.add_parser("spend", help=text, description=text)
    shipped = AccessConfig().cache
    command.add_argument(
        "--cache", default=shipped, metavar="FILE", help=f"the access.cache of runs (default: {shipped})"
    )
    command.add_argument("--run", metavar="NAME", help="one run: its directory as it was given (default: all)")
    command.set_defaults(run_command=run_spend)


def run_spend(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Print the ledger; raise DataError when there is none, or nothing of the run in it."""
    if not Path(arguments.cache).is_file():
        raise DataError(
            f"--cache {arguments.cache}: no such file; give the access.cache of a run that paid for replies"
        )
    spends = read_ledger(arguments.cache, arguments.run)
    if not spends:
        known = list(dict.fromkeys(spend.run for spend in read_ledger(arguments.cache)))
        of_run = "nothing was paid for" if arguments.run is None else f"has no run {arguments.run!r}"
        choice = f"; choose among {', '.join(known)}" if known else ""
        raise DataError(f"--cache {arguments.cache}: {of_run}{choice}")
    from comity.cli.tables import print_tables

    print_tables(console, [tabulate_spends(spends)])


def tabulate_spends(spends: Sequence[Spend]) -> "Table":
    """Return the ledger as a table with the sum below; a call of unknown price is told beside the dollars."""
    from comity.report.audit_tables import Table

    rows = [(spend.run, name_account(spend.account), spend.model, *_count([spend])) for spend in spends]
    if len(spends) > 1:
        rows.append(("all", "", "", *_count(spends)))
    caption = "`failed` brought no reply and costs nothing here; what a provider bills for it may differ."
    return Table("spend", "What was paid", caption, 3, HEADINGS, tuple(rows))


def _count(spends: Sequence[Spend]) -> tuple[str, ...]:
    numbers = (
        sum(spend.calls for spend in spends),
        sum(spend.failed for spend in spends),
        sum(spend.input_tokens for spend in spends),
        sum(spend.output_tokens for spend in spends),
    )
    dollars = f"{sum(spend.dollars for spend in spends):.4f}"
    unpriced = sum(spend.unpriced for spend in spends)
    return (*(f"{number:,}" for number in numbers), dollars + (f" + {unpriced} unpriced" if unpriced else ""))
