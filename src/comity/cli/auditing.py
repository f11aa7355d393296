"""The command `comity judge audit`, and the options of `comity judge attack`."""

import argparse
import datetime
import importlib.util
import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.cli.asked import AskedJudges
from comity.cli.attacking import check_block, prepare_attacked, run_attack_command
from comity.cli.judging import require_file, require_repeats
from comity.cli.tables import print_tables
from comity.config import ScoreConfig
from comity.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.judges.audit_run import AuditRequest

SHIPPED = "shipped"
JUDGE_HELP = "comity/embedded, comity/embedded:heldout, or another judge that answers the judges' prompts"


def add_audit(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Add `audit` and `attack` to the commands of `comity judge` and return their parsers."""
    audit = commands.add_parser("audit", help="compare judges with each other, with labels and with human ratings")
    audit.add_argument("--kind", choices=("agency", "agreement"), required=True, help="what is judged")
    audit.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where audit.json and audit.html go")
    audit.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="rows or dialogues, a folder of them too (default: shipped held-out rows)",
    )
    _add_repeated(audit, "judge", "NAME", f"a judge to ask: {JUDGE_HELP}")
    _add_repeated(audit, "verdicts", "NAME=FILE", "verdicts of a judge from `comity judge score`; again: a repeat")
    _add_repeated(audit, "column", "NAME=FIELD", "verdicts of a judge that stand in a field of the rows")
    audit.add_argument("--labels", metavar="FIELD", help="the field of the rows with labels")
    audit.add_argument("--human", metavar="FIELD", help="the field of the rows with human ratings, one or a list")
    audit.add_argument("--author", default="author", metavar="FIELD", help="who wrote the text (default: author)")
    _add_repeated(audit, "own", "JUDGE=AUTHOR", "the author that a judge is, where its name differs")
    _add_repeated(audit, "pairwise", "NAME=FILE", "verdicts of a judge that compares two answers, in both orders")
    _add_repeated(audit, "prefer", "NAME", "a judge to ask which of two answers of the rows is better, in both orders")
    shipped = "attack the judges that are asked: with a file of attacks, or the shipped ones"
    audit.add_argument("--attacks", nargs="?", const=SHIPPED, metavar="FILE", help=shipped)
    audit.add_argument("--casino", type=Path, metavar="FILE", help="human dialogues: a CaSiNo JSON file")
    audit.add_argument("--per-level", type=int, metavar="INTEGER", help="at most so many rows of each score")
    audit.add_argument("--balance", metavar="NAME", help="the rater whose scores --per-level balances (default: first)")
    audit.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="of sampling and intervals (default: 0)")
    audit.add_argument("--resamples", type=int, default=1000, metavar="INTEGER", help="of an interval (default: 1000)")
    audit.set_defaults(run_command=run_audit_command)
    attack = commands.add_parser("attack", help="try to fool a judge, and test prompts and parsers")
    _add_repeated(attack, "model", "NAME", f"{JUDGE_HELP} (default: both embedded heads)")
    attack.add_argument("--attacks", type=Path, metavar="FILE", help="attacks (default: the shipped ones)")
    attack.add_argument("--out", type=Path, metavar="FILE", help="where every outcome goes, as JSON")
    attack.set_defaults(run_command=run_attack_command)
    for command in (audit, attack):
        command.add_argument("--markdown", type=Path, metavar="FILE", help="a file whose generated block is renewed")
        images = "with --markdown: where the figures of the block go, as PNG"
        command.add_argument("--images", type=Path, metavar="FOLDER", help=images)
    return audit, attack


def run_audit_command(arguments: argparse.Namespace, config: ScoreConfig, console: "Console") -> None:
    """Audit judges, write the folder, print a short table."""
    if importlib.util.find_spec("krippendorff") is None:
        raise ConfigError("judge audit needs krippendorff: run `pip install comity[study]`")
    request = read_request(arguments)
    from comity.cli.progress import print_line
    from comity.judges.audit_run import run_audit
    from comity.report.audit_page import draw_audit, list_tables, publish_figures, write_audit_page
    from comity.report.audit_tables import describe_audit, shorten, to_markdown, write_block
    from comity.report.audit_words import word_audit

    block = f"audit:{request.kind}"
    check_block(arguments, block)
    with ExitStack() as opened:
        asked = AskedJudges(opened, config, str(request.out))
        attacked = partial(prepare_attacked, asked)
        today = datetime.date.today().isoformat()
        audit = run_audit(request, asked.build, today, asked.build_preference, attacked)
        asked.print_spend(console)
    tables = list_tables(audit)
    print_tables(console, shorten(tables))
    if arguments.markdown is not None:
        shown = [table for table in tables if table.name != "authors"]
        figures = ""
        if arguments.images is not None:
            folder = request.out / "figures"
            drawn = draw_audit(folder, audit)
            figures = publish_figures(drawn, folder, arguments.images, f"audit-{request.kind}", arguments.markdown)
        write_block(arguments.markdown, block, to_markdown(shown, describe_audit(audit), word_audit(audit), figures))
    print_line(
        console, f"{write_audit_page(request.out)} shows figures; {request.out / 'audit.json'} holds all numbers"
    )


def read_request(arguments: argparse.Namespace) -> "AuditRequest":
    """Check the options of an audit and return what it asks for; raise ConfigError or DataError for a bad one."""
    verdicts: dict[str, tuple[Path, ...]] = {}
    for name, path in _split_names("verdicts", arguments.verdicts):
        verdicts[name] = (*verdicts.get(name, ()), _existing("--verdicts", path))
    for option, number, least in (
        ("seed", arguments.seed, 0), ("resamples", arguments.resamples, 1), ("per-level", arguments.per_level, 1),
    ):  # fmt: skip
        if number is not None and number < least:
            raise ConfigError(f"--{option} is {number}: choose {least} or more")
    if arguments.rows is not None and not arguments.rows.is_dir():
        require_file("--rows", arguments.rows)
    if arguments.casino is not None:
        require_file("--casino", arguments.casino)
    require_repeats(arguments.repeats)
    if arguments.prefer and arguments.kind != "agency":
        raise ConfigError(f"--prefer {arguments.prefer[0]}: compares answers; they are for --kind agency")
    if arguments.casino is not None and arguments.kind != "agreement":
        raise ConfigError(f"--casino {arguments.casino}: these dialogues are for --kind agreement")
    if arguments.balance is not None and arguments.per_level is None:
        raise ConfigError(f"--balance {arguments.balance}: has no effect alone; give --per-level too")
    from comity.judges.audit_run import AuditRequest
    from comity.judges.audit_statistics import Resampling

    for option in ("judge", "prefer"):
        for name in getattr(arguments, option):
            _check_name(option, name)
    return AuditRequest(
        kind=arguments.kind,
        out=arguments.out,
        rows=arguments.rows,
        judges=tuple(arguments.judge) or None,
        verdicts=verdicts,
        columns=dict(_split_names("column", arguments.column)),
        labels=arguments.labels,
        human=arguments.human,
        author=arguments.author,
        own=dict(_split_names("own", arguments.own)),
        pairwise={n: _existing("--pairwise", path) for n, path in _split_names("pairwise", arguments.pairwise)},
        prefer=tuple(dict.fromkeys(arguments.prefer)),
        attacks=None if arguments.attacks is None else _find_attacks(arguments.attacks),
        casino=arguments.casino,
        repeats=arguments.repeats,
        per_level=arguments.per_level,
        balance=arguments.balance,
        resampling=Resampling(arguments.seed, arguments.resamples),
    )


def _add_repeated(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    parser.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=f"{text}; may be repeated")


def _split_names(option: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"--{option} {word}: write it as NAME=VALUE")
        _check_name(option, name)
        if option != "verdicts" and name in [known for known, _ in pairs]:
            raise ConfigError(f"--{option} {word}: {name} is named twice; give each its own name")
        pairs.append((name, value))
    return pairs


def _check_name(option: str, name: str) -> None:
    # Names stand in figures, pages and file names.
    if not re.fullmatch(r"[\w./:@+-]+", name):
        raise ConfigError(f"--{option} {name!r}: write the name in letters, digits and . / : @ + - _")


def _find_attacks(word: str) -> Path:
    from comity.judges.attacks import shipped_attacks

    return shipped_attacks() if word == SHIPPED else _existing("--attacks", word)


def _existing(option: str, word: str) -> Path:
    path = Path(word)
    require_file(option, path)
    return path
