"""What a running command shows: a bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from comity.cli.spending import Spending
from comity.config import AccessConfig, TrainConfig
from comity.report.tables import tabulate_changes, tabulate_signs
from comity.runs import read_metrics
from comity.types import Negotiation

LIVE = (("reward", "reward/mean"), ("agreement", "agreement/rate"), ("rounds", "agreement/rounds"))
"""Word shown and metric, for the line of a training step."""


class TrainProgress:
    """Show the steps of a training run; its methods are the callbacks of `train`.

    That the judges part is told once a run, however often it is resumed.
    """

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.console, self.config, self.live = console, config, console.is_terminal
        self.steps = config.optimization.steps
        self.spending = Spending(config.access, str(config.run))
        self.bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=30),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}  [dim]{task.fields[going]}[/dim]"),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("train", total=self.steps, figures="", going="loading")

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.bar.stop()
        self.spending.print(self.console)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a finished step."""
        line = describe_step(metrics, self.spending.describe())
        self.bar.update(self.task, completed=step, figures=line, going="")
        if not self.live:
            print_line(self.console, f"step {step}/{self.steps}  {line}")
        if metrics.get("judges/parted"):
            self._warn(step)

    def _warn(self, step: int) -> None:
        from comity.training.parting import describe_parting, find_partings

        rows = [row for row in read_metrics(self.config.run) if row["step"] <= step]
        if any(row.get("judges/parted") for row in rows if row["step"] < step):
            return
        words = describe_parting(find_partings(rows, self.config.judges))
        print_line(self.console, f"warning: {words}; read dialogues of the last steps, see docs/judges.md")

    def on_progress(self, negotiations: Sequence[Negotiation]) -> None:
        """Show how many dialogues of the step are still going; once all have ended, the policy learns."""
        if self.live:
            going = sum(negotiation.ending is None for negotiation in negotiations)
            words = f"{going} of {len(negotiations)} dialogues going" if going else "learning"
            self.bar.update(self.task, going="  ".join(filter(None, [words, self.spending.describe()])))


class EvaluateProgress:
    """Show how far each side of a comparison has played; `on_progress` is the callback of `evaluate`."""

    def __init__(self, console: Console, access: AccessConfig, run: str) -> None:
        self.console, self.live = console, console.is_terminal
        self.spending = Spending(access, run)
        self.begun: dict[str, float] = {}
        self.told: dict[str, set[bool]] = {}
        self.status = console.status("loading")

    def __enter__(self) -> "EvaluateProgress":
        if self.live:
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.status.stop()
        self.spending.print(self.console)

    def on_progress(self, side: str, negotiations: Sequence[Negotiation]) -> None:
        """Show one side's count of dialogues that still go on."""
        going = sum(negotiation.ending is None for negotiation in negotiations)
        seconds = time.monotonic() - self.begun.setdefault(side, time.monotonic())
        counted = f"{side}: {going} of {len(negotiations)} dialogues going"
        spent = self.spending.describe()
        if self.live:
            self.status.update(", ".join(filter(None, [counted, f"{seconds:.0f} s", spent])))
        elif (going == 0) not in self.told.setdefault(side, set()):
            # One line when a side begins and one when its dialogues have ended; answers are still written after that.
            self.told[side].add(going == 0)
            print_line(self.console, ", ".join(filter(None, [counted, spent])))


class DemoProgress:
    """Show a demo: the training steps, then both sides of the comparison; its methods are callbacks of `run_demo`."""

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.train = TrainProgress(console, config)
        self.sides = EvaluateProgress(console, config.access, str(config.run / "evaluation"))

    def __enter__(self) -> "DemoProgress":
        self.train.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.train.__exit__(kind, error, trace)
        self.sides.__exit__(kind, error, trace)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a finished training step."""
        self.train.on_step(step, metrics)

    def on_dialogues(self, part: str, negotiations: Sequence[Negotiation]) -> None:
        """Show the dialogues of training, or of one side of the comparison."""
        if part == "train":
            self.train.on_progress(negotiations)
            return
        # Two live displays cannot share a terminal: the bar rests before the comparison begins.
        self.train.bar.stop()
        self.sides.__enter__()
        self.sides.on_progress(part, negotiations)


def describe_step(metrics: Mapping[str, float], spent: str = "") -> str:
    """Return reward, agreement, rounds and seconds of a step in one line; what is unknown shows a dash.

    The share of rollouts without a verdict is told when there are any, what the run has spent when judges cost money:
    in the words `spent`, which know each judge, else from the metrics.
    """
    parts = [f"{word} {metrics[key]:.2f}" if key in metrics else f"{word} –" for word, key in LIVE]
    if unscored := metrics.get("unscored/share", 0.0):
        parts.append(f"unscored {100 * unscored:.0f} %")
    if spent:
        parts.append(spent)
    elif "spend/total_dollars" in metrics:
        parts.append(f"spent {metrics['spend/total_dollars']:.4f} dollars")
        if unpriced := metrics.get("spend/unpriced", 0.0):
            parts.append(f"{unpriced:.0f} calls of unknown price")
    return "  ".join([*parts, f"{metrics.get('time/step_seconds', 0):.1f} s"])


def print_line(console: Console, text: str) -> None:
    """Print a plain line as it is: no markup, no wrapping, no colours."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_comparison(console: Console, results: Mapping[str, Any]) -> None:
    """Print the before/after table of an evaluation and the signs of gaming below it."""
    table = Table(title="Before and after, paired on the same scenarios", title_justify="left")
    table.add_column("measure", overflow="fold")
    for heading in ("before", "after", "difference", "95 % interval", "n", "unscored"):
        table.add_column(heading, justify="right")
    for row in tabulate_changes(results["comparison"]):
        style = {"better": "green", "worse": "red"}.get(row.verdict)
        counts = (str(row.n), str(row.n_unscored))
        table.add_row(row.label, row.before, row.after, row.difference, row.interval, *counts, style=style)
    console.print(table)
    signs = results["signs"]
    table = Table(title="Signs of gaming", title_justify="left")
    table.add_column("sign", overflow="fold")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    for sign in tabulate_signs(signs["before"], signs["after"]):
        table.add_row(sign.label, sign.before, sign.after)
    console.print(table)
