"""The commands `comity judge score`, `comity judge calibrate` and `comity warm-start`."""

import argparse
import dataclasses
import importlib.util
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from comity.cli.progress import print_line
from comity.cli.spending import describe_spend
from comity.config import ScoreConfig
from comity.errors import ConfigError, DataError

if TYPE_CHECKING:
    from comity.engines.local import LocalEngine
    from comity.judges.labels import Kind
    from comity.judges.named import JudgeSources
    from comity.types import AgencyJudge, AgreementJudge


def run_score(arguments: argparse.Namespace, config: ScoreConfig, console: Console) -> None:
    """Judge every row of a file, say how many have a verdict and, for judges behind an address, what it cost."""
    require_file("--input", arguments.input)
    kind, model = arguments.kind, arguments.model
    require_repeats(arguments.repeats)
    settings = config.judges.to_judges(model)
    from comity.judges.named import open_sources
    from comity.judges.score import score_file

    with closing(open_sources([model], settings, {}, config.access, str(arguments.output))) as sources:
        judges = [build_asked(sources, kind, model, repeat) for repeat in range(arguments.repeats)]
        rows = score_file(kind, arguments.input, arguments.output, judges[0], judges[1:])
        spends, passed_on = sources.read_spend(), sources.passed_on
    field = "score" if kind == "agency" else "agreed"
    judged = sum(row[field] is not None for row in rows)
    print_line(console, f"{arguments.output}: {judged} of {len(rows)} rows judged")
    for count in passed_on.values():
        print_line(console, f"{model}: {count.passed} of {count.rows} rows passed on")
    for spend in spends:
        print_line(console, describe_spend(spend))


def require_repeats(repeats: int) -> None:
    """Raise ConfigError when a judge would not be asked at all."""
    if repeats < 1:
        raise ConfigError(f"--repeats is {repeats}: choose 1 or more")


def build_asked(sources: "JudgeSources", kind: "Kind", name: str, repeat: int = 0) -> "AgreementJudge | AgencyJudge":
    """Return the judge of one kind; with another `repeat` it asks what was asked before anew."""
    asked = dataclasses.replace(sources, repeat=repeat)
    return asked.build_agency(name) if kind == "agency" else asked.build_agreement(name)


def run_calibrate(arguments: argparse.Namespace, console: Console) -> None:
    """Fit the training and the held-out head of one kind, or one alone, and print how far they can be believed."""
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}: choose 0 or more")
    if arguments.labels is not None:
        require_file("--labels", arguments.labels)
    from comity.cli.tables import print_tables
    from comity.judges.calibrate import CalibrateOptions, calibrate, calibrate_pair, describe_head
    from comity.judges.labels import count_unlabelled, read_labels
    from comity.report.head_tables import tabulate_head

    kind, name, seed = arguments.kind, arguments.model, arguments.seed
    rows = read_labels(kind, arguments.labels)
    if arguments.labels is not None and (missing := count_unlabelled(kind, arguments.labels)):
        print_line(console, f"{arguments.labels}: {missing} rows without a label are left out")
    engine = _load_engine(name, arguments.device, arguments.quantization)
    if arguments.single:
        options = CalibrateOptions(model=name, command=f"calibrate({kind!r}, seed={seed}, model={name!r})")
        heads = [calibrate(kind, engine, rows, arguments.out / f"{kind}_training.safetensors", seed, options)]
    else:
        heads = [*calibrate_pair(kind, engine, rows, arguments.out, seed, name)]
    for head in heads:
        print_line(console, describe_head(head))
        print_tables(console, tabulate_head(head.kind, head.name, head.metadata))
    written = "one head written" if arguments.single else "two heads written"
    print_line(console, f"{arguments.out}: {written}; judge with head:{arguments.out}")


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


def _load_engine(name: str, device: str, quantization: str) -> "LocalEngine":
    from comity.engines.encoders import load_reader
    from comity.engines.local import LocalEngine
    from comity.engines.models import load_tokenizer
    from comity.training.policy import resolve_device

    model = load_reader(name, device=resolve_device(device), quantization=quantization)
    return LocalEngine(model, load_tokenizer(name, for_chat=False))


def require_file(option: str, path: Path) -> None:
    """Raise DataError when an option names no file: before a model is loaded, which takes longer than a look."""
    if not path.is_file():
        raise DataError(f"{option} {path}: no such file; give a JSONL file")
