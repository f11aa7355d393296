"""Play several models on the same tasks, alone with themselves and against each other, and write every dialogue down.

    DIR/
      settings.json       what the dialogues depend on; a call with other settings is refused
      dialogues.jsonl     one row a dialogue: `runs.negotiation_row`, model, opponent, task, decoding, run, satisfaction
      preferences.jsonl   which of two models' answers a pairwise judge prefers, in both orders
      seconds.jsonl       one row a batch: players, dialogues, seconds, when it was finished
      ifeval.jsonl        answers to IFEval's prompts (see `evaluation/ability.py`)
      results.json        all figures (see `evaluation/results.py`)
      inspect/            the same dialogues as logs of Inspect

A batch is written once it is played and judged. What stands in dialogues.jsonl is not played again, so a comparison
that was stopped goes on, and models, tasks, runs and pairs can be added later.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from comity.config import EvaluateConfig, NegotiationConfig, to_plain
from comity.engines.seating import route_seats
from comity.errors import JudgeError, RunError
from comity.evaluation.ability import hash_prompts
from comity.evaluation.matches import (
    Match,
    TaskKind,
    batch_matches,
    load_tasks,
    parse_models,
    plan_matches,
    row_key,
)
from comity.evaluation.players import find_local_adapters, hash_adapter, open_players
from comity.judges.named import hash_heads
from comity.judges.panel import Panel, build_panel
from comity.judges.satisfaction import judge_satisfaction
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.runs import negotiation_row, read_json, write_json
from comity.scenarios.rows import Row, append_rows, read_whole_rows
from comity.types import Negotiation, Responder, Scenario

OnBatch = Callable[[str, int, int, Sequence[Negotiation]], None]
"""Gets the players and decoding of the batch, the dialogues written so far, all there will be, and the batch."""


FREE_JUDGES = frozenset({"preference", "max_unscored_share", "parted", "parted_steps", "parted_errors"})
"""Settings of judges that change no dialogue: pairs are compared later, the others say when work stops."""


def play_contest(config: EvaluateConfig, on_batch: OnBatch | None = None) -> list[Row]:
    """Play what `config.out` still lacks of a comparison of models and return all its dialogues.

    A joint answer is written whether or not they agreed (paper, section 4). Raise ConfigError for bad names, ModelError
    for a missing adapter, DataError for a bad task, RunError when the folder holds dialogues of other settings, and
    JudgeError when a judge or a player behind an address gives too few words.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    models, tasks = parse_models(config.models), load_tasks(config)
    matches = plan_matches(config, tasks)
    find_local_adapters(config.model, models)  # a mistyped one shall cost no dialogue of the others
    _claim_folder(config, models, tasks)
    path = config.out / "dialogues.jsonl"
    rows = read_whole_rows(path)
    known = {row_key(row) for row in rows}
    missing = [match for match in matches if match.key not in known]
    if not missing:
        return rows
    with ExitStack() as opened:
        players = opened.enter_context(closing(open_players(config.model, models, config.access, str(config.out))))
        panel = opened.enter_context(
            closing(build_panel(config.judges, players.engine, config.model, config.access, str(config.out)))
        )
        for batch in batch_matches(missing, config.batch):

            def tell(states: Sequence[Negotiation], batch: Sequence[Match] = batch) -> None:
                if on_batch is not None:
                    on_batch(describe_players(batch[0]), len(rows), len(known) + len(missing), states)

            begun = time.perf_counter()
            played = play_batch(config, batch, players.responders, panel, tell)
            if panel.costs_money or players.served:
                require_scored(played, config.judges.max_unscored_share)
            append_rows(path, played)
            append_rows(config.out / "seconds.jsonl", [_tell_seconds(batch, time.perf_counter() - begun)])
            rows.extend(played)
    return rows


def require_scored(rows: Sequence[Row], limit: float) -> None:
    """Raise JudgeError when a larger share of dialogues than `limit` has no reward.

    A judge or a player that is away would leave them unscored for ever. The dialogues are then not written, so the
    same command plays and judges them once it is back.
    """
    unscored = sum(row["reward"] is None for row in rows)
    if unscored > limit * len(rows):
        raise JudgeError(
            f"judges.max_unscored_share is {limit}, but {unscored} of {len(rows)} dialogues of a batch have no "
            "verdict; the batch was not written: mend the judge, or the server that plays, and give the same command "
            "again"
        )


def play_batch(
    config: EvaluateConfig,
    batch: Sequence[Match],
    players: Mapping[str, Responder],
    panel: Panel,
    on_progress: Callable[[Sequence[Negotiation]], None] | None = None,
) -> list[Row]:
    """Play and judge matches that share players and decoding; return one row each."""
    first, second = players[batch[0].model], players[batch[0].opponent]
    played = play(
        [start(match.scenario, match.run) for match in batch],
        decoding_rules(config.negotiation, batch[0].decoding),
        first if first == second else route_seats(first, second),
        panel.agreement,
        seed=config.seed,
        always_complete=True,
        on_progress=on_progress,
    )
    rows = [negotiation_row(judged) for judged in panel.judge(played)]
    satisfaction = judge_satisfaction(rows, panel.satisfaction)
    return [
        {
            "model": match.model,
            "opponent": match.opponent,
            "task": match.task,
            "decoding": match.decoding,
            "run": match.run,
            **row,
            "satisfaction": pair,
        }
        for match, row, pair in zip(batch, rows, satisfaction, strict=True)
    ]


def decoding_rules(rules: NegotiationConfig, decoding: str) -> NegotiationConfig:
    """Return the rules with the temperatures of a decoding: 0 for greedy, as configured for sampled."""
    if decoding == "sampled":
        return rules
    return dataclasses.replace(
        rules,
        dialogue=dataclasses.replace(rules.dialogue, temperature=0.0),
        completion=dataclasses.replace(rules.completion, temperature=0.0),
    )


def describe_players(match: Match) -> str:
    """Return the players and the decoding of a match in words: `multi against base, greedy`."""
    against = "" if match.model == match.opponent else f" against {match.opponent}"
    return f"{match.model}{against}, {match.decoding}"


def _tell_seconds(batch: Sequence[Match], seconds: float) -> Row:
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    players = describe_players(batch[0])
    return {"players": players, "dialogues": len(batch), "seconds": round(seconds, 2), "finished": finished}


def _claim_folder(
    config: EvaluateConfig, models: Mapping[str, str], tasks: Mapping[TaskKind, Sequence[Scenario]]
) -> None:
    # The settings of the first call hold for the folder; names of models and kinds of tasks may be added.
    path = config.out / "settings.json"
    wanted = _describe_contest(config, models, tasks)
    found = read_json(path) if path.exists() else {}
    if not path.exists() and (config.out / "dialogues.jsonl").exists():
        raise RunError(f"{path}: is missing, so nobody knows whose dialogues lie there; choose another --out")
    for part, values in wanted.items():
        before = found.get(part, {})
        other = sorted(key for key in before.keys() & values.keys() if before[key] != values[key])
        if other:
            raise RunError(
                f"{config.out} holds dialogues with another {part.removesuffix('s')} {other[0]}: choose another --out, "
                f"or give the same as before"
            )
    write_json(path, {part: found.get(part, {}) | values for part, values in wanted.items()})


def _describe_contest(
    config: EvaluateConfig, models: Mapping[str, str], tasks: Mapping[TaskKind, Sequence[Scenario]]
) -> dict[str, dict[str, Any]]:
    plain = to_plain(config)
    settings = {
        "seed": config.seed,
        "heads_sha256": hash_heads(config.judges),
        **{f"model.{key}": value for key, value in plain["model"].items() if key not in ("adapter", "device")},
        **{f"negotiation.{key}": value for key, value in plain["negotiation"].items()},
        **{f"judges.{key}": value for key, value in plain["judges"].items() if key not in FREE_JUDGES},
    }
    texts: dict[str, Any] = {
        kind: hashlib.sha256(repr(tuple(scenarios)).encode()).hexdigest() for kind, scenarios in tasks.items()
    }
    if config.ifeval != "none":
        texts["ifeval"] = hash_prompts(Path(config.ifeval), config.ifeval_tokens)
    adapters: dict[str, Any] = {name: hash_adapter(config.model, adapter) for name, adapter in models.items()}
    return {"settings": settings, "tasks": texts, "models": adapters}
