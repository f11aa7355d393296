"""The commands `comity data ...`: their options, and the functions that they call."""

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comity.cli.data_generate import add_generate
from comity.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.scenarios.hygiene import Duplicate, Text
    from comity.scenarios.kinds import Kind
    from comity.scenarios.quality import Encoder
    from comity.scenarios.rows import Row

MOST_SHOWN = 20
"""Findings that are printed; the rest is counted."""
FILE_HELP = "a JSONL file, or the name of a shipped kind such as conflict-tasks"


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the commands of `comity data` to their parser."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    validate = commands.add_parser("validate", help="check rows, and duplicates within and across files and splits")
    validate.add_argument("files", nargs="*", metavar="FILE", help=f"{FILE_HELP} (default: all shipped files)")
    validate.add_argument("--rows-only", action="store_true", help="leave out the search for duplicates")
    validate.add_argument("--with-shipped", action="store_true", help="look for duplicates among shipped rows too")
    validate.set_defaults(run_command=run_validate)
    show = commands.add_parser("show", help="counts, lengths, nearest neighbours and some rows of a file")
    show.add_argument("file", nargs="?", default="dilemmas", metavar="FILE", help=f"{FILE_HELP} (default: dilemmas)")
    show.add_argument("--rows", type=int, default=3, metavar="INTEGER", help="rows to show (default: 3)")
    show.add_argument("--neighbours", type=int, default=3, metavar="INTEGER", help="closest pairs (default: 3)")
    show.set_defaults(run_command=run_show)
    quality = commands.add_parser("quality", help="near-duplicates, distinct n-grams and spread, by tier")
    quality.add_argument("files", nargs="*", metavar="FILE", help=f"{FILE_HELP} (default: all shipped files)")
    quality.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    quality.add_argument("--model", metavar="NAME", help="measure the spread of this model's hidden states too")
    quality.set_defaults(run_command=run_quality)
    for command in (show, quality):
        command.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="(default: 0)")
    for command in (validate, show, quality):
        command.add_argument("--kind", metavar="KIND", help="the kind of the files (default: by their fields)")
    for command in (validate, quality):
        text = "similarity of word 3-grams from which texts are near duplicates (default: 0.3)"
        command.add_argument("--threshold", type=float, default=0.3, metavar="NUMBER", help=text)
    add_generate(commands.add_parser("generate", help="write new rows with a model; a stopped run continues"))
    _add_import(commands.add_parser("import", help="bring data of another format into a scenario file"))


def _add_import(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(metavar="FORMAT", required=True)
    casino = formats.add_parser("casino", help="CaSiNo's JSON file, as conflict tasks")
    casino.set_defaults(run_command=run_import_casino)
    games = formats.add_parser("deliberation-games", help="a folder of LLM-Deliberation games, as transfer cases")
    games.set_defaults(run_command=run_import_games)
    rows = formats.add_parser("jsonl", help="a JSONL file with other field names")
    rows.add_argument("--kind", required=True, metavar="KIND", help="the kind of rows to make, such as dilemmas")
    rows.add_argument(
        "--field", action="append", default=[], metavar="NAME=SOURCE", help="take field NAME from the file's SOURCE"
    )
    rows.add_argument("--set", action="append", default=[], metavar="NAME=TEXT", help="give every row this field")
    rows.set_defaults(run_command=run_import_rows)
    for command in (casino, games, rows):
        command.add_argument("--input", type=Path, required=True, metavar="PATH", help="what to read")
        command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSONL file to write")


def run_validate(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Check every row of the files, then look for duplicates; raise DataError when anything was found."""
    from comity.cli.data_tables import print_files
    from comity.cli.progress import print_line
    from comity.scenarios.hygiene import collect_texts, find_duplicates, require_search
    from comity.scenarios.kinds import scan_kind

    if not arguments.rows_only:
        require_search(arguments.threshold)
    problems: list[str] = []
    texts: list[Text] = []
    counts = []
    for path, kind in _open_files(arguments):
        scanned = list(scan_kind(path, kind))
        bad = [str(found) for found in scanned if isinstance(found, DataError)]
        rows = [found for found in scanned if not isinstance(found, DataError)]
        counts.append((_label(path, kind), kind.name, len(rows), len(bad)))
        problems += bad
        texts += collect_texts(_label(path, kind), kind, rows)
    print_files(counts, console)
    if not arguments.rows_only:
        known = _shipped_texts() if arguments.with_shipped and arguments.files else []
        own = set(texts)
        pairs = find_duplicates([*known, *texts], arguments.threshold)
        duplicates = [pair for pair in pairs if pair.second in own]
        problems += [pair.describe() for pair in duplicates]
        print_line(console, _describe_hygiene(texts, duplicates, arguments.threshold))
    for problem in problems[:MOST_SHOWN]:
        print_line(console, problem)
    if problems:
        more = len(problems) - MOST_SHOWN
        hidden = f"; {more} more are not shown" if more > 0 else ""
        raise DataError(f"{len(problems)} problems in the data, listed above{hidden}: mend or remove these rows")


def run_show(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Print counts, a histogram of lengths, the nearest neighbours and random rows of one file."""
    for name in ("rows", "neighbours", "seed"):
        if getattr(arguments, name) < 0:
            raise ConfigError(f"--{name} is {getattr(arguments, name)}: choose 0 or more")
    from comity.cli.data_tables import print_counts, print_lengths, print_neighbours, print_rows

    arguments.files = [arguments.file]
    ((path, kind),) = _open_files(arguments)
    rows = _read(path, kind)
    print_counts(f"{_label(path, kind)}: {len(rows)} rows", kind, rows, console)
    print_lengths(kind, rows, console)
    print_neighbours(kind, rows, arguments.neighbours, console)
    print_rows(rows, arguments.rows, arguments.seed, console)


def run_quality(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Measure how varied each file is; print the figures and write them as JSON."""
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}: choose 0 or more")
    from comity.cli.data_tables import explain_quality, print_quality
    from comity.cli.progress import print_line
    from comity.runs import write_json
    from comity.scenarios.quality import measure_quality

    files = [(path, kind, _read(path, kind)) for path, kind in _open_files(arguments)]
    encode = None if arguments.model is None else _build_encoder(arguments.model)
    found = []
    for path, kind, rows in files:
        figures = measure_quality(kind, rows, encode, arguments.threshold, arguments.seed)
        print_quality(_label(path, kind), figures, console)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        groups = [dataclasses.asdict(figure) for figure in figures]
        found.append({"file": str(path), "sha256": digest, "kind": kind.name, "groups": groups})
    print_line(console, explain_quality())
    if arguments.out is not None:
        settings = {"threshold": arguments.threshold, "seed": arguments.seed, "model": arguments.model}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, {**settings, "files": found})
        print_line(console, f"{arguments.out} written")


def run_import_casino(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Write CaSiNo's dialogues as conflict tasks."""
    from comity.scenarios.import_casino import import_casino

    _write_import(import_casino(arguments.input), "conflict-tasks", arguments, console)


def run_import_games(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Write scoreable games as transfer cases."""
    from comity.scenarios.import_games import import_games

    _write_import(import_games(arguments.input), "transfer", arguments, console)


def run_import_rows(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Write the rows of a JSONL file under the names of a kind's fields."""
    from comity.scenarios.import_rows import import_rows
    from comity.scenarios.kinds import find_kind

    pairs = [_split_pairs(option, getattr(arguments, option)) for option in ("field", "set")]
    kind = find_kind(arguments.kind)
    _write_import(import_rows(arguments.input, kind, *pairs), kind.name, arguments, console)


def _write_import(rows: "Sequence[Row]", kind: str, arguments: argparse.Namespace, console: "Console") -> None:
    from comity.cli.progress import print_line
    from comity.scenarios.kinds import check_scenario_row, find_kind
    from comity.scenarios.rows import write_rows

    if arguments.out.resolve() == arguments.input.resolve():
        raise ConfigError(f"--out {arguments.out}: is the input; give another file")
    for number, row in enumerate(rows, 1):
        check_scenario_row(find_kind(kind), row, f"{arguments.input}, row {number}")
    write_rows(arguments.out, rows)
    print_line(console, f"{arguments.out}: {len(rows)} {kind}; see `comity data show {arguments.out}`")


def _split_pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"--{option} {word}: has no name and value; give --{option} NAME=VALUE")
        pairs[name] = value
    return pairs


def _open_files(arguments: argparse.Namespace) -> "list[tuple[Path, Kind]]":
    from comity.scenarios.kinds import KINDS, detect_kind, find_kind

    if not arguments.files:
        return [(kind.shipped, kind) for kind in KINDS]
    opened = []
    for word in dict.fromkeys(arguments.files):
        shipped = next((kind for kind in KINDS if kind.name == word), None)
        path = shipped.shipped if shipped is not None else Path(word)
        opened.append((path, find_kind(arguments.kind) if arguments.kind else shipped or detect_kind(path)))
    return opened


def _label(path: Path, kind: "Kind") -> str:
    return f"shipped {kind.name}" if path == kind.shipped else str(path)


def _read(path: Path, kind: "Kind") -> "list[Row]":
    from comity.scenarios.kinds import read_kind

    return read_kind(str(path), kind.name)


def _shipped_texts() -> "list[Text]":
    from comity.scenarios.hygiene import collect_texts
    from comity.scenarios.kinds import KINDS

    files = [(kind, _read(kind.shipped, kind)) for kind in KINDS]
    return [text for kind, rows in files for text in collect_texts(_label(kind.shipped, kind), kind, rows)]


def _describe_hygiene(texts: "Sequence[Text]", duplicates: "Sequence[Duplicate]", threshold: float) -> str:
    exact = sum(pair.exact for pair in duplicates)
    across = sum(bool(pair.across) for pair in duplicates)
    near = len(duplicates) - exact
    return (
        f"{len(texts)} texts compared: {exact} exact and {near} near duplicates (similarity {threshold} or more), "
        f"{across} of them across files or splits"
    )


def _build_encoder(name: str) -> "Encoder":
    import functools

    from comity.engines.embedding import embed_texts
    from comity.engines.local import LocalEngine
    from comity.engines.models import load_model, load_tokenizer

    return functools.partial(embed_texts, LocalEngine(load_model(name), load_tokenizer(name)))
