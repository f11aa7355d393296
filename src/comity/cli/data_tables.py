"""What the commands of `comity data` print: tables, histograms and rows."""

import random
import statistics
from collections import Counter
from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comity.cli.negotiate_live import printable
from comity.scenarios.kinds import SPLITS, TIERS, Kind
from comity.scenarios.quality import Quality, find_nearest, read_text
from comity.scenarios.rows import Row
from comity.scenarios.words import split_words

BINS = 10
BAR_WIDTH = 40
DOMAINS_SHOWN = 10


def print_files(counts: Sequence[tuple[str, str, int, int]], console: Console) -> None:
    """Print one line a file: its kind, good rows and bad rows."""
    table = Table("file", "kind", title_justify="left")
    table.columns[0].overflow = "fold"
    table.add_column("rows", justify="right")
    table.add_column("bad rows", justify="right")
    for path, kind, rows, bad in counts:
        table.add_row(Text(path), kind, str(rows), str(bad), style="red" if bad else None)
    console.print(table)


def print_counts(title: str, kind: Kind, rows: Sequence[Row], console: Console) -> None:
    """Print rows by tier and split, and the largest domains, where the kind has them."""
    console.print(Text(title, style="bold"))
    if "tier" in kind.fields:
        has_split = "split" in kind.fields
        table = Table("tier")
        for heading in (*(SPLITS if has_split else ()), "all"):
            table.add_column(heading, justify="right")
        for tier in (*TIERS, "all"):
            own = [row for row in rows if tier in ("all", row["tier"])]
            splits = [str(sum(row["split"] == split for row in own)) for split in SPLITS] if has_split else []
            table.add_row(tier, *splits, str(len(own)))
        console.print(table)
    if "domain" in kind.fields:
        counts = Counter(row["domain"] for row in rows)
        shown = ", ".join(f"{printable(domain)} {count}" for domain, count in counts.most_common(DOMAINS_SHOWN))
        more = len(counts) - DOMAINS_SHOWN
        console.print(Text(f"{len(counts)} domains: {shown}" + (f" and {more} more" if more > 0 else "")))
    if kind.name == "transfer":
        parties = Counter(len(row["stakeholders"]) for row in rows)
        console.print(
            Text("stakeholders: " + ", ".join(f"{count} cases of {n}" for n, count in sorted(parties.items())))
        )


def print_lengths(kind: Kind, rows: Sequence[Row], console: Console) -> None:
    """Draw a histogram of the number of words in the texts."""
    lengths = [len(split_words(read_text(kind, row))) for row in rows]
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // BINS))
    counts = Counter((length - low) // width for length in lengths)
    table = Table(
        title=f"words: {low} to {high}, median {statistics.median(lengths):g}", title_justify="left", box=None
    )
    table.add_column("words", justify="right")
    table.add_column("", width=BAR_WIDTH)
    table.add_column("rows", justify="right")
    for place in range(max(counts) + 1):
        start = low + place * width
        label = str(start) if width == 1 else f"{start}–{min(start + width - 1, high)}"
        bar = Bar(max(counts.values()), 0, counts[place], width=BAR_WIDTH)
        table.add_row(label, bar, str(counts[place]))
    console.print(table)


def print_neighbours(kind: Kind, rows: Sequence[Row], count: int, console: Console) -> None:
    """Print the pairs of rows whose words are most alike."""
    texts = [read_text(kind, row) for row in rows]
    pairs = find_nearest(texts, count) if count else []
    if pairs:
        console.print(Text("\nnearest neighbours (cosine similarity of TF-IDF vectors)", style="bold"))
    for similarity, first, second in pairs:
        console.print(Text(f"{similarity:.2f}", style="cyan"))
        for place in (first, second):
            console.print(Text(f"  {printable(rows[place]['id'])}: {printable(texts[place])}"))


def print_rows(rows: Sequence[Row], count: int, seed: int, console: Console) -> None:
    """Print random rows, whole."""
    drawn = random.Random(seed).sample(range(len(rows)), min(count, len(rows)))
    if drawn:
        console.print(Text(f"\nrandom rows (seed {seed})", style="bold"))
    for place in sorted(drawn):
        row = rows[place]
        console.print(Text(printable(row["id"]), style="cyan"))
        for name, value in row.items():
            if name == "stakeholders":
                for party in value:
                    console.print(Text(f"  {printable(party['name'])}: {printable(party['interests'])}"))
            elif name != "id":
                console.print(Text(f"  {printable(name)}: {printable(str(value))}"))


def print_quality(name: str, figures: Sequence[Quality], console: Console) -> None:
    """Print the figures of a file's groups, one column a group."""
    table = Table(title=name, title_justify="left")
    table.add_column("measure", overflow="fold")
    for figure in figures:
        table.add_column(f"{figure.group} ({figure.rows})", justify="right")
    table.add_row("near-duplicate rate", *(f"{figure.near_duplicate_rate:.1%}" for figure in figures))
    for n in range(3):
        table.add_row(f"distinct-{n + 1}", *(f"{figure.distinct[n]:.3f}" for figure in figures))
    spreads = [("words", [figure.words for figure in figures])]
    hidden = [figure.hidden for figure in figures if figure.hidden is not None]
    if hidden:
        spreads.append(("hidden", hidden))
    for what, own in spreads:
        for label, values in (
            ("spread", [s.pairs for s in own]),
            ("spread in one domain", [s.pairs_of_one_domain for s in own]),
            ("nearest", [s.nearest for s in own]),
            ("nearest, words shuffled", [s.nearest_of_shuffled_words for s in own]),
        ):
            if any(value is not None for value in values):
                table.add_row(f"{what}: {label}", *("–" if value is None else f"{value:.3f}" for value in values))
    console.print(table)


def explain_quality() -> str:
    """Return how to read the figures."""
    return (
        "distinct-n: share of different word n-grams, at one number of n-grams for all columns of a file. "
        "spread: mean cosine distance of all pairs of rows; rows of one domain are its baseline. "
        "nearest: mean distance to the nearest row; rows of the same words, dealt out at random, are its baseline."
    )
