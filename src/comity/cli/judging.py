"""The commands `comity judge score`, `comity judge calibrate` and `comity warm-start`."""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from comity.cli.progress import print_line
from comity.config import JudgeConfig, ModelConfig
from comity.errors import ConfigError, DataError
from comity.judges.labels import Kind
from comity.types import AgencyJudge, AgreementJudge

if TYPE_CHECKING:
    from comity.engines.local import LocalEngine


def run_score(arguments: argparse.Namespace, console: Console) -> None:
    """Judge every row of a file and say how many have a verdict."""
    require_file("--input", arguments.input)
    from comity.judges.score import score_file

    judge = build_judge(arguments.kind, arguments.model)
    rows = score_file(arguments.kind, arguments.input, arguments.output, judge)
    field = "score" if arguments.kind == "agency" else "agreed"
    judged = sum(row[field] is not None for row in rows)
    print_line(console, f"{arguments.output}: {judged} of {len(rows)} rows judged")


def run_calibrate(arguments: argparse.Namespace, console: Console) -> None:
    """Fit the training and the held-out head of one kind and print their figures."""
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}: choose 0 or more")
    if arguments.labels is not None:
        require_file("--labels", arguments.labels)
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
        require_file("--demonstrations", arguments.demonstrations)
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


def build_judge(kind: Kind, name: str) -> AgreementJudge | AgencyJudge:
    """Return the judge of this name; raise ConfigError or ModelError when there is none."""
    from comity.engines.models import EMBEDDED
    from comity.judges.llm import llm_agency_judge, llm_agreement_judge
    from comity.judges.panel import EMBEDDED_JUDGE, build_panel

    if name == EMBEDDED_JUDGE:
        panel = build_panel(JudgeConfig(heldout=False), _load_engine(EMBEDDED), ModelConfig())
        return panel.agency if kind == "agency" else panel.agreement
    if name.startswith("comity/"):
        raise ConfigError(f"judge {name!r} is unknown: the shipped one is {EMBEDDED_JUDGE}")
    build = llm_agency_judge if kind == "agency" else llm_agreement_judge
    return build(_load_engine(name), name)


def _load_engine(name: str) -> "LocalEngine":
    from comity.engines.local import LocalEngine
    from comity.engines.models import load_model, load_tokenizer

    return LocalEngine(load_model(name), load_tokenizer(name))


def require_file(option: str, path: Path) -> None:
    """Raise DataError when an option names no file: before a model is loaded, which takes longer than a look."""
    if not path.is_file():
        raise DataError(f"{option} {path}: no such file; give a JSONL file")
