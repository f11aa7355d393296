"""The command `comity judge attack`, and the judges of an audit that are attacked."""

import argparse
import datetime
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from comity.cli.asked import AskedJudges, answers_prompts
from comity.cli.judging import require_file
from comity.cli.tables import print_tables
from comity.config import ScoreConfig
from comity.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.judges.attack_run import AttackedJudge
    from comity.judges.attacks import Attack


def run_attack_command(arguments: argparse.Namespace, config: ScoreConfig, console: "Console") -> None:
    """Attack judges, print how often it works, and whether prompts and parsers hold."""
    if arguments.attacks is not None:
        require_file("--attacks", arguments.attacks)
    from comity.cli.progress import print_line
    from comity.judges.attack_run import attack_judges
    from comity.judges.attacks import read_attacks
    from comity.judges.audit_run import EMBEDDED_JUDGES
    from comity.report.attack_tables import describe_attacks, tabulate_attacks
    from comity.report.audit_page import draw_attack_suite, publish_figures
    from comity.report.audit_tables import to_markdown, write_block
    from comity.report.audit_words import word_attacks
    from comity.runs import write_json

    check_block(arguments, "audit:attacks")
    attacks = read_attacks(arguments.attacks)
    names = list(dict.fromkeys(arguments.model or EMBEDDED_JUDGES))
    with ExitStack() as opened:
        asked = AskedJudges(opened, config, str(arguments.out or "judge attack"))
        judges = [prepare_attacked(asked, name, attacks) for name in names]
        found = attack_judges(attacks, judges, datetime.date.today().isoformat())
        asked.print_spend(console)
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


def prepare_attacked(asked: AskedJudges, name: str, attacks: "Sequence[Attack]") -> "AttackedJudge":
    """Return a judge for the attacks that there are; one that answers prompts is attacked as a judge of pairs too."""
    from comity.judges.attack_run import AttackedJudge
    from comity.judges.attacks import KINDS

    kinds = [kind for kind in KINDS if any(attack.kind == kind for attack in attacks)]
    compares = "agency" in kinds and answers_prompts(name)
    pairs = asked.build_preference(name) if compares else None
    return AttackedJudge(name, {kind: asked.build(kind, name) for kind in kinds}, pairs)


def check_block(arguments: argparse.Namespace, block: str) -> None:
    """Raise DataError or ConfigError for a page that cannot be renewed: before a judge is asked, which costs."""
    from comity.report.audit_tables import find_block

    if arguments.markdown is not None:
        find_block(arguments.markdown, block)
    elif arguments.images is not None:
        raise ConfigError(f"--images {arguments.images}: belongs to a page; give --markdown FILE too")
