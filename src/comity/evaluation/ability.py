"""General ability: how many of IFEval's instructions each model follows, and whether training made it fewer.

Prompts come from the user's file, `input_data.jsonl` of IFEval's authors (Zhou et al. 2023, arXiv 2311.07911). The
rules are those of the package if-verifiable, which carries the authors' checkers.
"""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from comity.config import EvaluateConfig
from comity.errors import ConfigError, DataError
from comity.evaluation.statistics import estimate_mean, paired_bootstrap
from comity.scenarios.rows import Fields, Row, append_rows, read_rows, read_whole_rows
from comity.types import Request, Responder, Sampling

PROMPT_FIELDS: Fields = {"prompt": str, "instruction_id_list": list, "kwargs": list}
CHECKER = "if_verifiable"


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """Which instructions of a prompt an answer follows; None when the checker could not judge, and why."""

    strict: tuple[bool, ...] | None
    loose: tuple[bool, ...] | None
    problem: str = ""


def require_checker() -> None:
    """Raise ConfigError when the checkers are not installed."""
    if importlib.util.find_spec(CHECKER) is None:
        raise ConfigError("--ifeval needs if-verifiable: run `pip install 'comity[ability]'`")


def load_prompts(path: Path) -> list[Row]:
    """Return the rows of an IFEval file, each with a unique `key`; raise DataError for a bad row."""
    rows = read_rows(path, PROMPT_FIELDS, unique="key")
    known = _checkers()
    for row in rows:
        unknown = [name for name in row["instruction_id_list"] if name not in known]
        if unknown or len(row["kwargs"]) != len(row["instruction_id_list"]):
            what = f"instruction {unknown[0]!r} is unknown" if unknown else "kwargs are not one for each instruction"
            raise DataError(f"--ifeval {path}, key {row['key']}: {what}; give IFEval's input_data.jsonl")
    return rows


def hash_prompts(path: Path, max_tokens: int) -> str:
    """Return what the answers depend on beside the model: a hash of the file's rows and the longest answer."""
    return hashlib.sha256(repr((load_prompts(path), max_tokens)).encode()).hexdigest()


def answer_prompts(config: EvaluateConfig) -> list[Row]:
    """Let every model answer every prompt that `ifeval.jsonl` lacks, greedily; return all its rows.

    A row holds model, key, text, finish, strict, loose (lists of true and false, or null) and problem.
    """
    # Models and their libraries load only when something is left to answer.
    from comity.evaluation.matches import parse_models
    from comity.evaluation.players import open_players

    prompts = load_prompts(Path(config.ifeval))
    models = parse_models(config.models)
    path = config.out / "ifeval.jsonl"
    rows = read_whole_rows(path)
    known = {(row["model"], row["key"]) for row in rows}
    missing = {name: [p for p in prompts if (name, p["key"]) not in known] for name in models}
    if not any(missing.values()):
        return rows
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=config.ifeval_tokens)
    with closing(open_players(config.model, models, config.access, str(config.out))) as players:
        for name, left in missing.items():
            for begin in range(0, len(left), config.batch):
                batch = left[begin : begin + config.batch]
                answered = _answer_batch(name, batch, players.responders[name], sampling)
                append_rows(path, answered)
                rows += answered
    return rows


def _answer_batch(name: str, batch: Sequence[Row], player: Responder, sampling: Sampling) -> list[Row]:
    asked = [Request("seat_0", ({"role": "user", "content": p["prompt"]},), sampling, 0) for p in batch]
    # What a server did not answer is left out, so that the same command asks again.
    return [
        {"model": name, "key": prompt["key"], "text": reply.text, "finish": reply.finish}
        | dataclasses.asdict(check_answer(prompt, reply.text))
        for prompt, reply in zip(batch, player(asked), strict=True)
        if reply.finish != "error"
    ]


def check_answer(prompt: Row, text: str) -> Checked:
    """Return which instructions an answer follows, strictly and loosely (the authors' two ways).

    An empty answer follows none. A checker that lacks the data of nltk leaves the answer unscored.
    """
    from if_verifiable import IFEvalSample, evaluate_output_for_sample

    count = len(prompt["instruction_id_list"])
    if not text.strip():
        return Checked((False,) * count, (False,) * count)
    sample = IFEvalSample(prompt["key"], prompt["prompt"], prompt["instruction_id_list"], prompt["kwargs"])
    try:
        results, _ = evaluate_output_for_sample("ifeval", sample, text)
    except LookupError:
        return Checked(None, None, "nltk lacks its data: run `python -m nltk.downloader punkt_tab`")
    return Checked(tuple(r.strict_pass for r in results), tuple(r.loose_pass for r in results))


def summarize_ability(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Return each model's four rates with intervals over prompts, and its change against the first model.

    `dropped` is true when the whole interval of the change of `prompt_strict`, paired by prompt, lies below 0.
    """
    names = list(dict.fromkeys(row["model"] for row in rows))
    groups = {name: {row["key"]: row for row in rows if row["model"] == name} for name in names}
    summary = []
    for name in names:
        change = None if name == names[0] else _compare(groups[names[0]], groups[name], seed)
        summary.append(
            {
                "model": name,
                "measures": _measure(list(groups[name].values()), seed),
                "change": change,
                "dropped": bool(change and change["high"] is not None and change["high"] < 0),
            }
        )
    return {"prompts": len({row["key"] for row in rows}), "models": summary}


def _compare(first: dict[Any, Row], second: dict[Any, Row], seed: int) -> dict[str, Any]:
    keys = [key for key in first if key in second]
    before, after = ([_all(group[key]["strict"]) for key in keys] for group in (first, second))
    return dataclasses.asdict(paired_bootstrap(before, after, [str(key) for key in keys], seed))


def _measure(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    keys = [str(row["key"]) for row in rows]
    measures = {}
    for way in ("strict", "loose"):
        found = estimate_mean([_all(row[way]) for row in rows], keys, seed)
        measures[f"prompt_{way}"] = dataclasses.asdict(found) | {"run_deviation": None}
        single = [(key, value) for key, row in zip(keys, rows, strict=True) for value in row[way] or [None]]
        values = [None if value is None else float(value) for _, value in single]
        found = estimate_mean(values, [key for key, _ in single], seed)
        measures[f"instruction_{way}"] = dataclasses.asdict(found) | {"run_deviation": None}
    return measures


def _all(passed: Sequence[bool] | None) -> float | None:
    return None if passed is None else float(all(passed))


def _checkers() -> frozenset[str]:
    import langdetect
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0  # else it says another language now and then
    return frozenset(INSTRUCTION_DICT)
