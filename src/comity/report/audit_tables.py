"""Turn an audit into tables of words, for the terminal, for a page and for a block of a Markdown file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comity.errors import DataError
from comity.report.tables import show

Audit = Mapping[str, Any]
"""What audit.json holds, or one row of it."""

PAIR_FIGURES = (
    ("exact", "exact", "share"),
    ("within_one", "within one", "share"),
    ("pearson", "Pearson", "number"),
    ("spearman", "Spearman", "number"),
    ("kappa", "kappa", "number"),
    ("alpha", "alpha", "number"),
)
"""Figure, heading and kind of number of a pair of raters."""
PAIRWISE_FIGURES = (
    ("order_flips", "verdict changes with the order"),
    ("first_shown", "prefers the answer shown first"),
    ("longer", "prefers the longer answer"),
    ("better", "prefers the answer that is rated better"),
    ("own", "prefers its own answer"),
    ("own_by_rivals", "others prefer its answer, same pairs"),
)
CASINO_FIGURES = (("recall", "accepted deals seen"), ("false_agreement", "agreed midway"), ("f1", "F1"))
MAIN_KINDS = ("agreed", "not agreed", "capitulation")
SHORT = ("casino", "pairwise", "self_preference", "prompts", "agency", "agreement", "preference")
"""Tables that a terminal gets whole; the last four are of the attack suite."""
MEASURED = ("value", "95 % interval", "n", "unscored")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of words; `name` is that of its section in audit.json, `caption` says how to read it.

    The first `words` columns name what a row is about, the others hold numbers.
    """

    name: str
    title: str
    caption: str
    words: int
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tabulate_audit(audit: Audit) -> list[Table]:
    """Return every table of an audit that has rows."""
    share = "share" if audit["kind"] == "agreement" else "number"
    tables = [
        Table(
            "raters", "Raters", "The share of YES." if share == "share" else "The mean score.",
            1, ("rater", *MEASURED),
            tuple((row["rater"], *_measured(row["mean"], share)) for row in audit["raters"]),
        ),
        _tabulate_pairs("pairs", "How far two raters agree", audit["pairs"], ("first", "second")),
        _tabulate_pairs("retest", "The same row again, by the same or another", audit["retest"], ("rater",)),
        Table(
            "length", "Length", "Rank correlation with the number of words; given another rater, what is left of it.",
            2, ("rater", "given", *MEASURED),
            tuple(_tabulate_length(audit["length"])),
        ),
        Table(
            "authors", "Means by author", "", 2, ("author", "rater", *MEASURED),
            tuple((row["author"], row["rater"], *_measured(row["mean"], share)) for row in audit["authors"]),
        ),
        Table(
            "self_preference", "Preference for itself",
            "What a judge adds to texts of its own author beyond what the other raters see in them.",
            2, ("judge", "author", *MEASURED),
            tuple(
                (row["rater"], row["author"], *_measured(row["preference"], "number"))
                for row in audit["self_preference"]
            ),
        ),
        Table(
            "endings", "Endings taken for agreements, by kind",
            "The share of YES. That of all endings that are not agreed is the false-agreement rate; that of "
            "capitulations says how many unwilling acceptances pass; that of agreed ones how many agreements are seen.",
            2, ("judge", "kind", *MEASURED),
            tuple((row["judge"], row["kind"], *_measured(row["said_yes"])) for row in audit.get("endings", ())),
        ),
        Table(
            "casino", "Human dialogues (CaSiNo)", _caption_casino(audit.get("casino", ())),
            2, ("judge", "figure", *MEASURED),
            tuple(
                (row["judge"], label, *_measured(row[figure], "number" if figure == "f1" else "share"))
                for row in audit.get("casino", ())
                for figure, label in CASINO_FIGURES
            ),
        ),
        Table(
            "pairwise", "Judges that compare two answers", "Shares of verdicts; ties count in the first line only.",
            2, ("judge", "figure", *MEASURED),
            tuple(
                (row["judge"], label, *_measured(row[figure]))
                for row in audit.get("pairwise", ())
                for figure, label in PAIRWISE_FIGURES
                if figure in row and (row[figure]["n"] or row[figure]["n_unscored"])
            ),
        ),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def shorten(tables: Sequence[Table]) -> list[Table]:
    """Return the tables that fit a terminal: agreement without intervals, few kinds of ending, what was asked for."""
    short = []
    for table in tables:
        if table.name in ("pairs", "retest"):
            rows = tuple(
                ("\n".join(row[: table.words]), *(cell.split(" [")[0] for cell in row[table.words :]))
                for row in table.rows
            )
            headings = (" / ".join(table.headings[: table.words]), *table.headings[table.words :])
            caption = "The intervals stand in audit.html."
            short.append(replace(table, caption=caption, words=1, headings=headings, rows=rows))
        elif table.name == "endings":
            short.append(replace(table, rows=tuple(row for row in table.rows if row[1] in MAIN_KINDS)))
        elif table.name in SHORT:
            short.append(table)
    return short


def to_markdown(tables: Sequence[Table], lead: str, findings: Sequence[str] = (), figures: str = "") -> str:
    """Return tables as Markdown below a line of lead, a list of findings and the Markdown of figures."""
    listed = "\n".join(f"- {finding}" for finding in findings)
    parts = [part for part in (lead, listed, figures) if part]
    for table in tables:
        dashes = ["---" if place < table.words else "---:" for place in range(len(table.headings))]
        rows = [table.headings, dashes, *table.rows]
        lines = ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows]
        parts.append(f"**{table.title}.** {table.caption}".strip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def find_block(path: Path, name: str) -> tuple[int, int]:
    """Return where the generated block `name` of a Markdown file begins and ends; raise DataError when it has none."""
    opening, closing = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--markdown {path}: cannot be read; give a Markdown file") from error
    if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
        raise DataError(f"--markdown {path}: has no block {name}; write the lines {opening} and {closing} in it once")
    return text.index(opening) + len(opening), text.index(closing)


def write_block(path: Path, name: str, text: str) -> None:
    """Replace what stands between the lines of the generated block `name`; raise DataError when there is none."""
    start, end = find_block(path, name)
    whole = path.read_text(encoding="utf-8")
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(whole[:start] + "\n" + text + "\n" + whole[end:], encoding="utf-8")
    scratch.replace(path)


def describe_audit(audit: Audit) -> str:
    """Return what was audited, in one sentence."""
    intervals = f"intervals from {audit['resamples']:,} resamples of whole dilemmas, seed {audit['seed']}."
    if not audit["rows"]:
        return f"{audit['date']}: verdicts on pairs from {audit['source']}; {intervals}"
    drawn = f", at most {audit['per_level']} of each score" if audit["per_level"] else ""
    rows = f"{audit['rows']} rows on {audit['dilemmas']} dilemmas from {audit['source']}{drawn}"
    return f"{audit['date']}: {rows}; {intervals}"


def _tabulate_pairs(name: str, title: str, rows: Sequence[Audit], raters: tuple[str, ...]) -> Table:
    shown = [figure for figure in PAIR_FIGURES if rows and figure[0] in rows[0]]
    caption = (
        "In brackets the 95 % interval. Exact, within one, quadratic kappa and Krippendorff's alpha read whole "
        "scores, the correlations scores as they are."
        if any(figure[0] == "within_one" for figure in shown)
        else "In brackets the 95 % interval."
    )
    for row in rows:
        if row.get("readers_alpha") is not None:
            caption += f" Krippendorff's alpha over all readers of {row['rater']}: {show(row['readers_alpha'])}."
    cells = tuple(
        (
            *(row[key] for key in raters),
            *(_cell(row[figure], kind) for figure, _, kind in shown),
            str(row["exact"]["n"]),
            str(row["exact"]["n_unscored"]),
        )
        for row in rows
    )
    return Table(
        name, title, caption, len(raters), (*raters, *(heading for _, heading, _ in shown), "n", "unscored"), cells
    )


def _tabulate_length(rows: Sequence[Audit]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield row["rater"], "–", *_measured(row["spearman"], "number")
        for other, figure in row["given"].items():
            yield row["rater"], other, *_measured(figure, "number")


def _caption_casino(rows: Sequence[Audit]) -> str:
    if not rows:
        return ""
    return (
        f"{rows[0]['dialogues']} dialogues: the last words before an accepted deal against words midway. The labels "
        f"are rough. F1 of always saying YES is {rows[0]['f1_of_always_yes']:.2f}."
    )


def _measured(figure: Audit, kind: str = "share") -> tuple[str, str, str, str]:
    return show(figure["value"], kind), _interval(figure, kind), str(figure["n"]), str(figure["n_unscored"])


def _cell(figure: Audit, kind: str) -> str:
    return (
        show(figure["value"], kind)
        if figure["low"] is None
        else f"{show(figure['value'], kind)} [{_interval(figure, kind)}]"
    )


def _interval(figure: Audit, kind: str) -> str:
    if figure["low"] is None:
        return "–"
    return f"{show(figure['low'], kind).removesuffix(' %')} to {show(figure['high'], kind)}"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
