"""The commands `comity judge audit` and `comity judge attack`."""

import argparse
import datetime
import functools
import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from comity.cli.judging import build_asked, describe_spend, require_file, require_repeats
from comity.config import ScoreConfig
from comity.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.engines.local import LocalEngine
    from comity.judges.audit_run import AuditRequest, BuildJudge
    from comity.judges.labels import Kind
    from comity.judges.named import JudgeSources
    from comity.report.audit_tables import Table
    from comity.types import AgencyJudge, AgreementJudge

LONGEST_NUMBER = 16
"""Characters of a cell that still holds a number or an interval and no sentence."""
JUDGE_HELP = "comity/embedded, comity/embedded:heldout, or another judge that answers the judges' prompts"


def add_audit(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Add `audit` and `attack` to the commands of `comity judge` and return their parsers."""
    audit = commands.add_parser("audit", help="compare judges with each other, with labels and with human ratings")
    audit.add_argument("--kind", choices=("agency", "agreement"), required=True, help="what is judged")
    audit.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where audit.json and audit.html go")
    audit.add_argument("--rows", type=Path, metavar="FILE", help="rows or dialogues (default: shipped held-out rows)")
    _add_repeated(audit, "judge", "NAME", f"a judge to ask: {JUDGE_HELP}")
    _add_repeated(audit, "verdicts", "NAME=FILE", "verdicts of a judge from `comity judge score`; again: a repeat")
    _add_repeated(audit, "column", "NAME=FIELD", "verdicts of a judge that stand in a field of the rows")
    audit.add_argument("--labels", metavar="FIELD", help="the field of the rows with labels")
    audit.add_argument("--human", metavar="FIELD", help="the field of the rows with human ratings, one or a list")
    audit.add_argument("--author", default="author", metavar="FIELD", help="who wrote the text (default: author)")
    _add_repeated(audit, "own", "JUDGE=AUTHOR", "the author that a judge is, where its name differs")
    _add_repeated(audit, "pairwise", "NAME=FILE", "verdicts of a judge that compares two answers, in both orders")
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
    from comity.report.audit_page import draw_audit, publish_figures, write_audit_page
    from comity.report.audit_tables import describe_audit, shorten, tabulate_audit, to_markdown, write_block
    from comity.report.audit_words import word_audit

    block = f"audit:{request.kind}"
    _check_block(arguments, block)
    with ExitStack() as opened:
        build, sources = make_builder(opened, config, str(request.out))
        audit = run_audit(request, build, datetime.date.today().isoformat())
        print_spend(console, sources)
    tables = tabulate_audit(audit)
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


def run_attack_command(arguments: argparse.Namespace, config: ScoreConfig, console: "Console") -> None:
    """Attack judges, print how often it works, and whether prompts and parsers hold."""
    if arguments.attacks is not None:
        require_file("--attacks", arguments.attacks)
    from comity.cli.progress import print_line
    from comity.judges.attack_prompts import check_prompts
    from comity.judges.attacks import KINDS, describe_outcomes, read_attacks, run_attacks, summarize_attacks
    from comity.judges.audit_run import EMBEDDED_JUDGES
    from comity.report.attack_tables import describe_attacks, tabulate_attacks
    from comity.report.audit_page import draw_attack_suite, publish_figures
    from comity.report.audit_tables import to_markdown, write_block
    from comity.report.audit_words import word_attacks
    from comity.runs import write_json

    _check_block(arguments, "audit:attacks")
    attacks = read_attacks(arguments.attacks)
    kinds = [kind for kind in KINDS if any(attack.kind == kind for attack in attacks)]
    names = list(dict.fromkeys(arguments.model or EMBEDDED_JUDGES))
    with ExitStack() as opened:
        build, sources = make_builder(opened, config, str(arguments.out or "judge attack"))
        judges = {name: {kind: build(kind, name, 0) for kind in kinds} for name in names}
        outcomes = {name: run_attacks(attacks, judges[name]) for name in names}
        print_spend(console, sources)
    found = {
        "date": datetime.date.today().isoformat(),
        "prompts": check_prompts(attacks),
        "rows": [row for name in names for row in summarize_attacks(name, outcomes[name])],
        "outcomes": [row for name in names for row in describe_outcomes(name, outcomes[name])],
    }
    tables = tabulate_attacks(found)
    print_tables(console, tables)
    if arguments.out is not None:
        write_json(arguments.out, found)
        print_line(console, f"{arguments.out} holds every outcome")
    if arguments.markdown is not None:
        figures = ""
        if arguments.images is not None:
            with tempfile.TemporaryDirectory() as name:
                drawn = draw_attack_suite(Path(name), found)
                figures = publish_figures(drawn, Path(name), arguments.images, "audit-attacks", arguments.markdown)
        text = to_markdown(tables, describe_attacks(found), word_attacks(found), figures)
        write_block(arguments.markdown, "audit:attacks", text)


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
    for option, path in (("--rows", arguments.rows), ("--casino", arguments.casino)):
        if path is not None:
            require_file(option, path)
    require_repeats(arguments.repeats)
    if arguments.casino is not None and arguments.kind != "agreement":
        raise ConfigError(f"--casino {arguments.casino}: these dialogues are for --kind agreement")
    if arguments.balance is not None and arguments.per_level is None:
        raise ConfigError(f"--balance {arguments.balance}: has no effect alone; give --per-level too")
    from comity.judges.audit_run import AuditRequest
    from comity.judges.audit_statistics import Resampling

    for name in arguments.judge:
        _check_name("judge", name)
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
        casino=arguments.casino,
        repeats=arguments.repeats,
        per_level=arguments.per_level,
        balance=arguments.balance,
        resampling=Resampling(arguments.seed, arguments.resamples),
    )


def make_builder(opened: ExitStack, config: ScoreConfig, run: str) -> "tuple[BuildJudge, dict[str, JudgeSources]]":
    """Return a function that builds judges by kind, name and number of the ask, and what it has opened, by name.

    Both embedded heads share one base model. What judges behind an address cost is booked under `run`; what they need
    is closed with `opened`.
    """
    sources: dict[str, JudgeSources] = {}

    @functools.cache
    def base() -> "LocalEngine":
        from comity.engines.local import LocalEngine
        from comity.engines.models import EMBEDDED, load_model, load_tokenizer

        return LocalEngine(load_model(EMBEDDED), load_tokenizer(EMBEDDED))

    def build(kind: "Kind", name: str, repeat: int) -> "AgreementJudge | AgencyJudge":
        from comity.judges.audit_run import EMBEDDED_JUDGES
        from comity.judges.embedded import build_agency_judge, build_agreement_judge, load_shipped_head
        from comity.judges.named import open_sources

        if name not in EMBEDDED_JUDGES:
            if name not in sources:
                sources[name] = open_sources([name], config.judges.to_judges(name), {}, config.access, run)
                opened.enter_context(closing(sources[name]))
            return build_asked(sources[name], kind, name, repeat)
        head = load_shipped_head(kind, "training" if name == EMBEDDED_JUDGES[0] else "heldout")
        limit = config.judges.copy_limit
        if kind == "agency":
            return build_agency_judge(base(), head, limit)
        return build_agreement_judge(base(), head, limit)

    return build, sources


def print_spend(console: "Console", sources: "Mapping[str, JudgeSources]") -> None:
    """Print what each judge behind an address has cost."""
    from comity.cli.progress import print_line

    for spend in [spend for opened in sources.values() for spend in opened.read_spend()]:
        print_line(console, describe_spend(spend))


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


def _check_block(arguments: argparse.Namespace, block: str) -> None:
    # Before a judge is asked: a page that cannot be renewed shall not cost its verdicts.
    from comity.report.audit_tables import find_block

    if arguments.markdown is not None:
        find_block(arguments.markdown, block)
    elif arguments.images is not None:
        raise ConfigError(f"--images {arguments.images}: belongs to a page; give --markdown FILE too")


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


def _existing(option: str, word: str) -> Path:
    path = Path(word)
    require_file(option, path)
    return path
