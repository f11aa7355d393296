"""The options of `comity judge` and `comity warm-start`; `judging.py` does the work."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.cli.auditing import add_audit
from comity.cli.options import add_settings
from comity.config import ScoreConfig

if TYPE_CHECKING:
    from rich.console import Console


def add_judge(parsers: Any, chosen: str) -> None:
    """Add `judge` and its commands; they know their settings when `judge` is the chosen one."""
    text = "judge a file, audit or attack judges, or fit the shipped ones anew"
    parser = parsers.add_parser("judge", help=text)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    score = commands.add_parser("score", help="judge every row of a JSONL file")
    score.add_argument("--input", type=Path, required=True, metavar="FILE", help="rows to judge")
    score.add_argument("--output", type=Path, required=True, metavar="FILE", help="the same rows with verdicts")
    judge_help = "as in judges.agency: comity/embedded, head:PATH, a local model, PROVIDER/MODEL, head:PATH+NAME"
    score.add_argument("--model", default="comity/embedded", metavar="NAME", help=judge_help)
    score.set_defaults(run_command=_score)
    calibrate = commands.add_parser("calibrate", help="fit reward heads on labelled rows, of any judge or of people")
    calibrate.add_argument("--labels", type=Path, metavar="FILE", help="labelled rows (default: the shipped ones)")
    calibrate.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the heads are written")
    encoder = "the encoder: embedded, a folder or a Hugging Face name (default: embedded)"
    calibrate.add_argument("--model", default="embedded", metavar="NAME", help=encoder)
    single = "fit one head on all training rows, and no second one that only watches"
    calibrate.add_argument("--single", action="store_true", help=single)
    calibrate.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    calibrate.add_argument("--quantization", choices=("none", "nf4"), default="none", help="(default: none)")
    calibrate.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="(default: 0)")
    calibrate.set_defaults(run_command=_calibrate)
    for command in (score, calibrate):
        command.add_argument("--kind", choices=("agency", "agreement"), required=True, help="what is judged")
    audit, attack = add_audit(commands)
    if chosen == "judge":
        for command in (score, audit, attack):
            add_settings(command, ScoreConfig)
    for command in (score, audit):
        repeats = "how often each row is asked, and paid for (default: 1)"
        command.add_argument("--repeats", type=int, default=1, metavar="INTEGER", help=repeats)


def add_warm_start(parsers: Any) -> None:
    """Add `warm-start`."""
    parser = parsers.add_parser("warm-start", help="fit the warm-start adapter on the demonstrations")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the adapter is written")
    parser.add_argument("--model", default="embedded", metavar="NAME", help="the base model (default: embedded)")
    parser.add_argument("--demonstrations", type=Path, metavar="FILE", help="dialogues (default: the shipped ones)")
    numbers = (
        ("share", float, 1.0, "the share of demonstrated messages to learn from"),
        ("learning-rate", float, 1e-3, "the highest learning rate"),
        ("epochs", float, 1.0, "how often each message is seen in each pass"),
        ("seed", int, 0, ""),
    )
    for name, kind, default, text in numbers:
        shown = f"{text} (default: {default})".strip()
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=shown)
    parser.set_defaults(run_command=_warm_start)


def _score(arguments: argparse.Namespace, config: ScoreConfig, console: "Console") -> None:
    from comity.cli.judging import run_score

    run_score(arguments, config, console)


def _calibrate(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.judging import run_calibrate

    run_calibrate(arguments, console)


def _warm_start(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.judging import run_warm_start

    run_warm_start(arguments, console)
