"""The command line: parse, then call one function per command.

Nothing heavy is imported here or for `--help`: tensor libraries load when a command begins to work.
"""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity import __version__
from comity.cli.bench import add_bench
from comity.cli.data import add_data
from comity.cli.judge_options import add_judge, add_warm_start
from comity.cli.negotiate_live import NegotiateConfig
from comity.cli.options import Parser, add_settings, join_values, read_settings
from comity.cli.spending import add_spend
from comity.config import DemoConfig, EvaluateConfig, ScoreConfig, StudyConfig, TrainConfig
from comity.engines.allocator import keep_freed_memory
from comity.errors import ComityError, ConfigError
from comity.viewer.settings import ViewConfig

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "negotiate": NegotiateConfig,
    "evaluate": EvaluateConfig,
    "demo": DemoConfig,
    "study": StudyConfig,
    "plan": TrainConfig,
    "view": ViewConfig,
}
"""Commands that take `--config` and settings."""
JUDGING = (("judge", "score"), ("judge", "audit"), ("judge", "attack"))
"""Commands of two words that ask judges, and take settings too."""


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
    if tuple(words[:2]) in JUDGING:
        arguments = parser.parse_args(join_values(words, ScoreConfig))
        settings = read_settings(ScoreConfig, arguments)
    elif kind is None:
        arguments, settings = parser.parse_args(words), None
    else:
        arguments, unknown = parser.parse_known_args(join_values(words, kind))
        if words[0] == "plan":
            from comity.cli.planning import settings_kind

            arguments.config, kind = arguments.file, settings_kind(arguments.file)
        settings = read_settings(kind, arguments, unknown)
    rank, size = launched_as()
    if size > 1 and words[0] != "train":
        raise ConfigError(f"`comity {words[0]}` runs in one process, not in {size}: start it without a launcher")
    from rich.console import Console

    # One process of a run speaks for all; an error is told by whoever has it.
    arguments.run_command(arguments, settings, Console(quiet=rank > 0))


def launched_as() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that a launcher started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def build_parser(chosen: str) -> Parser:
    """Return the parser of all commands; the chosen one knows its settings."""
    parser = Parser(prog="comity", description="Train language models to negotiate.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"comity {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    texts = {
        "train": (_train, "train a policy to negotiate"),
        "negotiate": (_negotiate, "play one dialogue live: comity negotiate DILEMMA --a GOAL --b GOAL"),
        "evaluate": (_evaluate, "compare models on tasks, or two adapters on held-out scenarios, paired"),
        "demo": (_demo, "train, evaluate and report in one go"),
        "study": (_study, "train several recipes with several seeds and compare them all"),
        "plan": (_plan, "say what a run will need: memory, tokens, time, judge calls and their price"),
        "view": (_view, "look at runs in a browser, play negotiations, rate them"),
    }
    places = {"negotiate": " DILEMMA", "view": " [RUNS]", "plan": " CONFIG [--device NAME] [--devices N]"}
    for name, (function, text) in texts.items():
        file = "" if name == "plan" else " [--config FILE]"
        usage = f"comity {name}{places.get(name, '')}{file} [--SETTING VALUE ...]"
        command = commands.add_parser(name, help=text, description=text, usage=usage, allow_abbrev=False)
        command.set_defaults(run_command=function)
        if name == "negotiate":
            command.add_argument("dilemma", metavar="DILEMMA", help="what the two sides negotiate about")
        if name == "plan":
            command.add_argument("file", type=Path, metavar="CONFIG", help="a TOML file of `comity train` or demo")
        if name == "train":
            text = "try everything but the weights, print the plan and stop"
            command.add_argument("--dry-run", action="store_true", help=text)
        if name == "plan" and name == chosen:
            from comity.cli.planning import add_plan_options

            add_plan_options(command)
        if name == "view":
            text = "the folder that holds the run directories (default: runs)"
            command.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=text)
        if name == chosen:
            add_settings(command, SETTINGS[name])
    command = commands.add_parser("report", help="write RUN/report.html from a run directory or a comparison of models")
    command.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    command.set_defaults(run_command=_report)
    add_judge(commands, chosen)
    add_data(commands.add_parser("data", help="validate, show, measure, import and generate scenario files"))
    add_spend(commands)
    add_bench(commands)
    add_warm_start(commands)
    return parser


def _train(arguments: argparse.Namespace, config: TrainConfig, console: "Console") -> None:
    from comity.cli.progress import TrainProgress, print_line

    if arguments.dry_run:
        from comity.cli.planning import try_run

        try_run(config, launched_as()[1], lambda line: print_line(console, line))
        return
    with TrainProgress(console, config) as progress:
        if config.cluster.kind == "ray":
            from comity.cluster import train_on_ray

            train_on_ray(config, progress.on_step, progress.on_progress)
        else:
            from comity.training.trainer import train

            train(config, progress.on_step, progress.on_progress)
    print_line(console, f"{config.run}: {config.optimization.steps} steps done; see `comity report {config.run}`")


def _plan(arguments: argparse.Namespace, config: TrainConfig | DemoConfig, console: "Console") -> None:
    from comity.cli.planning import plan_run
    from comity.cli.progress import print_line

    for line in plan_run(config.train if isinstance(config, DemoConfig) else config, arguments):
        print_line(console, line)


def _negotiate(arguments: argparse.Namespace, config: NegotiateConfig, console: "Console") -> None:
    from comity.cli.negotiate_live import negotiate_live

    negotiate_live(arguments.dilemma, config, console)


def _evaluate(arguments: argparse.Namespace, config: EvaluateConfig, console: "Console") -> None:
    from comity.cli.progress import EvaluateProgress, print_comparison, print_line

    if config.models:
        from comity.cli.comparing import run_comparison

        run_comparison(config, console)
        return
    with EvaluateProgress(console, config.access, str(config.out)) as progress:
        from comity.evaluation.run import evaluate

        results = evaluate(config, progress.on_progress)
    print_comparison(console, results)
    print_line(console, f"written to {config.out}")


def _demo(arguments: argparse.Namespace, config: DemoConfig, console: "Console") -> None:
    from comity.cli.progress import DemoProgress, print_comparison, print_line

    with DemoProgress(console, dataclasses.replace(config.train, run=config.run)) as progress:
        from comity.demo import run_demo

        page = run_demo(config, progress.on_step, progress.on_dialogues)
    from comity.runs import read_json

    print_comparison(console, read_json(config.run / "evaluation" / "results.json"))
    print_line(console, f"{page} shows figures and dialogues; {config.run / 'summary.json'} holds the result")


def _study(arguments: argparse.Namespace, config: StudyConfig, console: "Console") -> None:
    from comity.cli.comparing import run_study_command

    run_study_command(config, console)


def _view(arguments: argparse.Namespace, config: ViewConfig, console: "Console") -> None:
    from comity.cli.view import run_view

    run_view(arguments.runs, config, console)


def _report(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    from comity.cli.progress import print_line
    from comity.report.contest import is_contest, write_contest_report
    from comity.report.report import write_report
    from comity.report.study_page import is_study, write_study_page

    write = write_contest_report if is_contest(arguments.run) else write_report
    if is_study(arguments.run):
        write = write_study_page
    print_line(console, f"{write(arguments.run)} written")


def quiet_libraries() -> None:
    """Silence what libraries print beside our own lines; whoever set a variable keeps it."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)
    # It tells of a kernel that it could download, whether or not anything is quantised.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # peft asks transformers for an attribute under its old name at every load.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)


def how_to_resume(words: Sequence[str]) -> str:
    """Return how to continue after an interrupt."""
    if list(words[:1]) != ["train"]:
        return f"start again with `{shlex.join(['comity', *words])}`"
    again = [word for word in words if word != "--resume"]
    return f"continue with `{shlex.join(['comity', *again, '--resume'])}`"


def _complain(message: str, code: int = 2) -> int:
    rank, size = launched_as()
    place = f" (process {rank} of {size})" if size > 1 else ""
    # One write: the lines of several processes must not mix.
    sys.stderr.write(f"comity{place}: " + " ".join(message.split()) + "\n")
    return code
