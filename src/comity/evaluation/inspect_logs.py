"""The dialogues of a comparison as logs of Inspect (`inspect view`), one file for each players, task and decoding."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.scorer import Score

from comity import __version__
from comity.evaluation.results import CONTEST_MEASURES
from comity.scenarios.rows import Row

LOGGED = (
    "agreement_rate", "rounds_mean", "reward_mean", "score_mean", "heldout_agreement_rate", "heldout_score_mean",
    "satisfaction_least", "satisfaction_mean", "concrete_answer_rate",
)  # fmt: skip
"""Measures that every dialogue of a log carries as scores; one that is unscored in a dialogue says so."""


def write_inspect_logs(rows: Sequence[Row], folder: Path, clock: Callable[[], datetime] | None = None) -> list[Path]:
    """Write one `.eval` file for each players, task and decoding and return their paths.

    `inspect_ai.log.read_eval_log` reads them back. `clock` gives the time of writing.
    """
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["model"], row["opponent"], row["decoding"]), []).append(row)
    folder.mkdir(parents=True, exist_ok=True)
    written = (clock or _now)()
    paths = []
    for (task, model, opponent, decoding), group in groups.items():
        players = model if model == opponent else f"{model}-against-{opponent}"
        path = folder / f"{task}-{players}-{decoding}.eval"
        write_eval_log(build_log(group, written), str(path), "eval")
        paths.append(path)
    return paths


def build_log(rows: Sequence[Row], written: datetime) -> EvalLog:
    """Return the log of dialogues that share players, task and decoding."""
    first = rows[0]
    ids = list(dict.fromkeys(row["scenario"] for row in rows))
    name = "/".join(str(first[key]) for key in ("task", "model", "opponent", "decoding"))
    stamp = written.isoformat()
    spec = EvalSpec(
        created=stamp,
        # Equal dialogues get equal ids, so that a log written anew replaces itself in a viewer.
        eval_id=_hash(f"eval {name}"),
        run_id=_hash(f"run {name}"),
        task_id=_hash(f"task {name}"),
        task=f"comity/{first['task']}",
        task_args={"decoding": first["decoding"], "opponent": first["opponent"]},
        dataset=EvalDataset(name=first["task"], samples=len(ids), sample_ids=ids),
        model=f"comity/{first['model']}",
        model_generate_config=GenerateConfig(temperature=0.0) if first["decoding"] == "greedy" else GenerateConfig(),
        config=EvalConfig(epochs=len({row["run"] for row in rows})),
        packages={"comity": __version__},
    )
    samples = [_build_sample(row) for row in rows]
    return EvalLog(
        status="success",
        eval=spec,
        results=_build_results(rows),
        stats=EvalStats(started_at=stamp, completed_at=stamp),
        samples=samples,
    )


def _build_sample(row: Row) -> EvalSample:
    goals = "\n".join(f"{'AB'[place]} wants: {goal}" for place, goal in enumerate(row["personas"]))
    messages: list[ChatMessage] = [ChatMessageSystem(content=goals)] if goals else []
    messages.append(ChatMessageUser(content=row["dilemma"]))
    for message in row["messages"]:
        # Inspect shows two roles: seat 0 is the model that is evaluated, seat 1 speaks to it.
        kind = ChatMessageAssistant if message["seat"] == 0 else ChatMessageUser
        messages.append(kind(content=message["text"]))
    return EvalSample(
        id=row["scenario"],
        epoch=row["run"] + 1,
        input=row["dilemma"],
        target="",
        messages=messages,
        output=ModelOutput.from_content(f"comity/{row['model']}", row["completion"] or ""),
        scores=_build_scores(row),
        metadata={
            key: row[key]
            for key in ("ending", "rounds", "checks", "tier", "domain", "personas", "satisfaction", "uncertainty")
        },
    )


def _build_scores(row: Row) -> dict[str, Score]:
    scores = {}
    for name in LOGGED:
        measure = CONTEST_MEASURES[name]
        if not measure.applies(row):
            continue
        value = measure.read(row)
        answer = row["completion"]
        scores[name] = Score.unscored(answer=answer) if value is None else Score(value=value, answer=answer)
    return scores


def _build_results(rows: Sequence[Row]) -> EvalResults:
    scores = []
    for name in LOGGED:
        measure = CONTEST_MEASURES[name]
        values = [measure.read(row) for row in rows if measure.applies(row)]
        known = [value for value in values if value is not None]
        if values:
            metrics = {"mean": EvalMetric(name="mean", value=sum(known) / len(known))} if known else {}
            scores.append(
                EvalScore(
                    name=name,
                    scorer=name,
                    scored_samples=len(known),
                    unscored_samples=len(values) - len(known),
                    metrics=metrics,
                )
            )
    return EvalResults(total_samples=len(rows), completed_samples=len(rows), scores=scores)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:22]


def _now() -> datetime:
    return datetime.now(UTC)
