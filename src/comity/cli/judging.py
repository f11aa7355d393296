"""The commands `comity judge score`, `comity judge calibrate` and `comity warm-start`."""

import argparse
import importlib.util
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from comity.access import Spend
from comity.cli.progress import print_line
from comity.config import JudgeConfig, ScoreConfig
from comity.errors import ConfigError, DataError

if TYPE_CHECKING:
    from comity.engines.local import LocalEngine


def run_score(arguments: argparse.Namespace, config: ScoreConfig, console: Console) -> None:
    """Judge every row of a file, say how many have a verdict and, for judges behind an address, what it cost."""
    _require_file("--input", arguments.input)
    kind, model = arguments.kind, arguments.model
    judges = JudgeConfig(agreement=model, agency=model, heldout=False)
    from comity.judges.named import open_sources, split_names
    from comity.judges.score import score_file

    with closing(open_sources(split_names(model), judges, None, config.access, str(arguments.output))) as sources:
        judge = sources.build_agency(model) if kind == "agency" else sources.build_agreement(model)
        rows = score_file(kind, arguments.input, arguments.output, judge)
        spends = sources.read_spend()
    field = "score" if kind == "agency" else "agreed"
    judged = sum(row[field] is not None for row in rows)
    print_line(console, f"{arguments.output}: {judged} of {len(rows)} rows judged")
    for spend in spends:
        print_line(console, describe_spend(spend))


def describe_spend(spend: Spend) -> str:
    """Return what an account of a run spent, over all processes, in one line."""
    dollars = f"{spend.dollars:.4f} dollars" if not spend.unpriced else f"{spend.unpriced} of unknown price"
    failed = f", {spend.failed} failed" if spend.failed else ""
    tokens = f"{spend.input_tokens} tokens in, {spend.output_tokens} out"
    return f"{spend.model}: {spend.calls} calls paid{failed}, {tokens}, {dollars}"


def run_calibrate(arguments: argparse.Namespace, console: Console) -> None:
    """Fit the training and the held-out head of one kind and print their figures."""
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}: choose 0 or more")
    if arguments.labels is not None:
        _require_file("--labels", arguments.labels)
    from comity.judges.calibrate import calibrate_pair, describe_head
    from comity.judges.labels import read_labels

    rows = read_labels(arguments.kind, arguments.labels)
    heads = calibrate_pair(
        arguments.kind, _load_engine(arguments.model), rows, arguments.out, arguments.seed, arguments.model
    )
    for head in heads:
        print_line(console, describe_head(head))
    print_line(console, f"{arguments.out}: two heads written")


def run_warm_start(arguments: argparse.Namespace, console: Console) -> None:
    """Fit the warm-start adapter; raise ConfigError when the trainer's packages are not installed."""
    for package in ("accelerate",):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"warm-start needs {package}: run `pip install comity[warm-start]`")
    if not 0 < arguments.share <= 1:
        raise ConfigError(f"--share is {arguments.share}: choose a number above 0 and at most 1")
    for name, value in (("learning-rate", arguments.learning_rate), ("epochs", arguments.epochs)):
        if not value > 0:
            raise ConfigError(f"--{name} is {value}: choose a number above 0")
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}: choose 0 or more")
    if arguments.demonstrations is not None:
        _require_file("--demonstrations", arguments.demonstrations)
    from comity.training.warm_start import fit_warm_start

    fit_warm_start(
        arguments.out,
        arguments.model,
        arguments.demonstrations,
        share=arguments.share,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )
    print_line(console, f"{arguments.out}: adapter written; use it with --model.adapter {arguments.out}")


def _load_engine(name: str) -> "LocalEngine":
    from comity.engines.local import LocalEngine
    from comity.engines.models import load_model, load_tokenizer

    return LocalEngine(load_model(name), load_tokenizer(name))


def _require_file(option: str, path: Path) -> None:
    # Before a model is loaded, which takes longer than a look.
    if not path.is_file():
        raise DataError(f"{option} {path}: no such file; give a JSONL file")
