"""The command line: parse, then call one function per command.

Nothing heavy is imported here or for `--help`: tensor libraries load when a command begins to work.
"""

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity import __version__
from comity.cli.negotiate_live import NegotiateConfig
from comity.cli.options import Parser, add_settings, join_values, read_settings
from comity.config import DemoConfig, EvaluateConfig, TrainConfig
from comity.engines.allocator import keep_freed_memory
from comity.errors import ComityError
from comity.viewer.settings import ViewConfig

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "negotiate": NegotiateConfig,
    "evaluate": EvaluateConfig,
    "demo": DemoConfig,
    "view": ViewConfig,
}
"""Commands that take `--config` and settings."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a user's error, 130 when interrupted."""
    words = list(sys.argv[1:] if words is None else words)
    keep_freed_memory()
    quiet_libraries()
    try:
        run_command(words)
    except ComityError as error:
        return _complain("error: " + str(error))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        return _complain(f"error: {error.filename}: {error.strerror}; check the path and its permissions")
    except KeyboardInterrupt:
        return _complain(f"interrupted: {how_to_resume(words)}", 130)
    return 0


def run_command(words: Sequence[str]) -> None:
    """Parse the words and call the function of their command; raise ComityError for a user's error."""
    parser = build_parser(words[0] if words else "")
    kind = SETTINGS.get(words[0]) if words else None
    if kind is None:
        arguments, settings = parser.parse_args(words), None
    else:
        arguments, unknown = parser.parse_known_args(join_values(words, kind))
        settings = read_settings(kind, arguments, unknown)
    from rich.console import Console

    arguments.run_command(arguments, settings, Console())


def build_parser(chosen: str) -> Parser:
    """Return the parser of all commands; the chosen one knows its settings."""
    parser = Parser(prog="comity", description="Train language models to negotiate.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"comity {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    texts = {
        "train": (_train, "train a policy to negotiate"),
        "negotiate": (_negotiate, "play one dialogue live: comity negotiate DILEMMA --a GOAL --b GOAL"),
        "evaluate": (_evaluate, "compare two adapters on held-out scenarios, paired"),
        "demo": (_demo, "train, evaluate and report in one go"),
        "view": (_view, "look at runs in a browser, play negotiations, rate them"),
    }
    for name, (function, text) in texts.items():
        place = {"negotiate": " DILEMMA", "view": " [RUNS]"}.get(name, "")
        usage = f"comity {name}{place} [--config FILE] [--SETTING VALUE ...]"
        command = commands.add_parser(name, help=text, description=text, usage=usage, allow_abbrev=False)
        command.set_defaults(run_command=function)
        if name == "negotiate":
            command.add_argument("dilemma", metavar="DILEMMA", help="what the two sides negotiate about")
        if name == "view":
            text = "the folder that holds the run directories (default: runs)"
            command.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=text)
        if name == chosen:
            add_settings(command, SETTINGS[name])
    command = commands.add_parser("report", help="write RUN/report.html from a run directory")
    command.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    command.set_defaults(run_command=_report)
    _add_judge(commands.add_parser("judge", help="judge a file, or fit the shipped judges anew"))
    _add_warm_start(commands.add_parser("warm-start", help="fit the warm-start adapter on the demonstrations"))
    return parser


def _add_judge(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    score = commands.add_parser("score", help="judge every row of a JSONL file")
    score.add_argument("--input", type=Path, required=True, metavar="FILE", help="rows to judge")
    score.add_argument("--output", type=Path, required=True, metavar="FILE", help="the same rows with verdicts")
    judge_help = "comity/embedded, or a local model that answers the judges' prompts (default: comity/embedded)"
    score.add_argument("--model", default="comity/embedded", metavar="NAME", help=judge_help)
    score.set_defaults(run_command=_score)
    calibrate = commands.add_parser("calibrate", help="fit the training and the held-out head on labelled rows")
    calibrate.add_argument("--labels", type=Path, metavar="FILE", help="labelled rows (default: the shipped ones)")
    calibrate.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where both heads are written")
    calibrate.add_argument("--model", default="embedded", metavar="NAME", help="the encoder (default: embedded)")
    calibrate.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="(default: 0)")
    calibrate.set_defaults(run_command=_calibrate)
    for command in (score, calibrate):
        command.add_argument("--kind", choices=("agency", "agreement"), required=True, help="what is judged")


def _add_warm_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the adapter is written")
    parser.add_argument("--model", default="embedded", metavar="NAME", help="the base model (default: embedded)")
    parser.add_argument("--demonstrations", type=Path, metavar="FILE", help="dialogues (default: the shipped ones)")
    numbers = (
        ("share", float, 1.0, "the share of demonstrated messages to learn from"),
        ("learning-rate", float, 1e-3, "the highest learning rate"),
        ("epochs", float, 2.0, "how often each message is seen"),
        ("seed", int, 0, ""),
    )
    for name, kind, default, text in numbers:
        shown = f"{text} (default: {default})".strip()
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=shown)
    parser.set_defaults(run_command=_warm_start)


def _train(arguments: argparse.Namespace, config: TrainConfig, console: "Console") -> None:
    from comity.cli.progress import TrainProgress, print_line

    with TrainProgress(console, config.optimization.steps) as progress:
        from comity.training.trainer import train

        train(config, progress.on_step, progress.on_progress)
    print_line(console, f"{config.run}: {config.optimization.steps} steps done; see `comity report {config.run}`")


def _negotiate(arguments: argparse.Namespace, config: NegotiateConfig, console: "Console") -> None:
    from comity.cli.negotiate_live import negotiate_live

    negotiate_live(arguments.dilemma, config, console)


def _evaluate(arguments: argparse.Namespace, config: EvaluateConfig, console: "Console") -> None:
    from comity.cli.progress import EvaluateProgress, print_comparison, print_line

    with EvaluateProgress(console) as progress:
        from comity.evaluation.run import evaluate

        results = evaluate(config, progress.on_progress)
    print_comparison(console, results)
    print_line(console, f"written to {config.out}")


def _demo(arguments: argparse.Namespace, config: DemoConfig, console: "Console") -> None:
    from comity.cli.progress import DemoProgress, print_comparison, print_line

    with DemoProgress(console, config.train.optimization.steps) as progress:
        from comity.demo import run_demo

        page = run_demo(config, progress.on_step, progress.on_dialogues)
    from comity.runs import read_json

    print_comparison(console, read_json(config.run / "evaluation" / "results.json"))
    print_line(console, f"{page} shows figures and dialogues; {config.run / 'summary.json'} holds the result")


def _view(arguments: argparse.Namespace, config: ViewConfig, console: "Console") -> None:
    from comity.cli.view import run_view

    run_view(arguments.runs, config, console)


def _report(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.progress import print_line
    from comity.report.report import write_report

    print_line(console, f"{write_report(arguments.run)} written")


def _score(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.judging import run_score

    run_score(arguments, console)


def _calibrate(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.judging import run_calibrate

    run_calibrate(arguments, console)


def _warm_start(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.judging import run_warm_start

    run_warm_start(arguments, console)


def quiet_libraries() -> None:
    """Silence what libraries print beside our own lines; whoever set a variable keeps it."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)
    # peft asks transformers for an attribute under its old name at every load.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)


def how_to_resume(words: Sequence[str]) -> str:
    """Return how to continue after an interrupt."""
    if list(words[:1]) != ["train"]:
        return f"start again with `{shlex.join(['comity', *words])}`"
    again = [word for word in words if word != "--resume"]
    return f"continue with `{shlex.join(['comity', *again, '--resume'])}`"


def _complain(message: str, code: int = 2) -> int:
    print("comity: " + " ".join(message.split()), file=sys.stderr)
    return code
