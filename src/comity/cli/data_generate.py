"""The command `comity data generate`."""

import argparse
import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from comity.errors import ModelError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.scenarios.generation.run import Asker, Progress
    from comity.scenarios.generation.settings import GenerateConfig

KINDS = ("dilemmas", "persona-pairs", "conflict-tasks")
MODEL_HELP = "PROVIDER/MODEL behind an address, `embedded`, or the folder of a local model"


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("--kind", choices=KINDS, required=True, help="what to write")
    parser.add_argument("--count", type=int, required=True, metavar="INTEGER", help="rows of the finished file")
    parser.add_argument("--model", required=True, metavar="NAME", help=MODEL_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSONL file to write")
    parser.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="other rows (default: 0)")
    parser.add_argument("--max-spend", type=float, metavar="DOLLARS", help="stop before more is spent on this file")
    text = "similarity of word 3-grams from which a text repeats one that exists (default: 0.3)"
    parser.add_argument("--threshold", type=float, default=0.3, metavar="NUMBER", help=text)
    parser.add_argument("--domains", default="", metavar="WORD,WORD", help="subjects (default: the shipped ones)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="NUMBER", help="(default: 1.0)")
    text = "longest reply; a model that thinks first needs more (default: 1024)"
    parser.add_argument("--max-tokens", type=int, default=1024, metavar="INTEGER", help=text)
    parser.add_argument("--connections", type=int, metavar="INTEGER", help="most questions under way (default: 8)")
    for kind in ("requests", "tokens"):
        text = f"most {kind} per minute, retries counted (default: no limit)"
        parser.add_argument(f"--{kind}-per-minute", type=int, metavar="INTEGER", help=text)
    parser.add_argument("--retries", type=int, metavar="INTEGER", help="attempts after the first (default: 4)")
    parser.add_argument("--timeout-seconds", type=float, metavar="NUMBER", help="longest wait (default: 120)")
    parser.add_argument("--cache", metavar="FILE", help="paid replies and ledger (default: runs/verdicts.sqlite)")
    parser.add_argument("--prices", metavar="FILE", help="a TOML file of prices (default: the shipped ones)")
    parser.set_defaults(run_command=run_generate)


def run_generate(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Write rows with a model; raise ModelError, after all else is written, when some gave no good reply."""
    from comity.cli.progress import print_line
    from comity.scenarios.generation.run import generate_rows

    config = _read_config(arguments)
    with ExitStack() as stack:
        ask, describe_spend = _open_asker(config, stack)
        shown = GenerateProgress(console, config.count)
        try:
            with shown:
                rows, faults = generate_rows(config, ask, shown.on_progress)
        finally:
            print_line(console, f"{shown.describe_replies()}; {describe_spend()}")
    print_line(console, f"{config.out}: {len(rows)} of {config.count} {config.kind}")
    if faults:
        slot, fault = next(iter(faults.items()))
        raise ModelError(
            f"{len(faults)} of {config.count} rows got no good reply from {config.model!r} (number {slot + 1}: "
            f"{fault or 'no reply'}): run again if replies failed to come, else take another model or seed"
        )


class GenerateProgress:
    """Show how many rows there are and what they cost: a bar in a terminal, a line at each tenth elsewhere."""

    def __init__(self, console: "Console", count: int) -> None:
        from rich import progress as bars

        self.console, self.count, self.live = console, count, console.is_terminal
        self.bar = bars.Progress(
            bars.TextColumn("row {task.completed:.0f}/{task.total:.0f}"),
            bars.BarColumn(bar_width=30),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("generate", total=count, figures="")
        self.latest: Progress | None = None
        self.told = 0

    def __enter__(self) -> "GenerateProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_progress(self, progress: "Progress") -> None:
        """Show the counts after a reply."""
        from comity.cli.progress import print_line

        self.latest = progress
        self.bar.update(self.task, completed=progress.good, figures=_describe_dollars(progress))
        tenth = 10 * progress.good // self.count
        if not self.live and tenth > self.told:
            self.told = tenth
            print_line(self.console, f"row {progress.good}/{self.count}  {_describe_dollars(progress)}")

    def describe_replies(self) -> str:
        """Return how many replies came now, and how many questions brought none."""
        if self.latest is None:
            return "0 replies"
        failed = f", {self.latest.failed} questions brought none ({self.latest.problem})" if self.latest.failed else ""
        return f"{self.latest.replies} replies{failed}"


def _describe_dollars(progress: "Progress") -> str:
    unpriced = f", {progress.unpriced} replies of unknown price" if progress.unpriced else ""
    return f"${progress.dollars:.4f}{unpriced}"


def _read_config(arguments: argparse.Namespace) -> "GenerateConfig":
    from comity.config import AccessConfig
    from comity.scenarios.generation.settings import GenerateConfig
    from comity.types import Sampling

    names = (
        "max_spend", "connections", "requests_per_minute", "tokens_per_minute", "retries", "timeout_seconds", "cache",
        "prices",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return GenerateConfig(
        kind=arguments.kind,
        count=arguments.count,
        model=arguments.model,
        out=arguments.out,
        seed=arguments.seed,
        threshold=arguments.threshold,
        domains=tuple(word.strip() for word in arguments.domains.split(",") if word.strip()),
        sampling=Sampling(arguments.temperature, 0.95, arguments.max_tokens),
        access=AccessConfig(**given),
    )


def _open_asker(config: "GenerateConfig", stack: ExitStack) -> "tuple[Asker, Callable[[], str]]":
    if config.model == "embedded" or Path(config.model).is_dir():
        from comity.engines.answering import ask_locally
        from comity.engines.local import LocalEngine
        from comity.engines.models import load_model, load_tokenizer

        engine = LocalEngine(load_model(config.model), load_tokenizer(config.model))
        return functools.partial(ask_locally, engine, config.model), lambda: "a local model costs nothing"
    from comity.access import open_access

    run = str(config.out.resolve())
    access = stack.enter_context(open_access(config.model, config.access, run))

    def describe_spend() -> str:
        spent = access.read_spend()
        unpriced = sum(row.unpriced for row in spent)
        unknown = f", and {unpriced} replies of unknown price" if unpriced else ""
        return f"${sum(row.dollars for row in spent):.4f} spent on this file in all{unknown}"

    return access.ask, describe_spend
