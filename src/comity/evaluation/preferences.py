"""Win rates between models: which of two models' answers to one task a pairwise judge prefers, in both orders."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.evaluation.ranking import Outcome
from comity.evaluation.significance import run_sign_test
from comity.evaluation.statistics import cluster_means, estimate_mean
from comity.judges.preference import compare_both_orders
from comity.scenarios.rows import Row, append_rows, read_whole_rows
from comity.types import AnswerPair, PreferenceJudge

BATCH = 64
"""Pairs that are asked about and written down together."""
POINTS = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class NamedPreferenceJudge:
    """A pairwise judge and the name under which its words are stored."""

    name: str
    judge: PreferenceJudge


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often `first` beat `second` on the same tasks: wins / (wins + losses), ties half, over consistent pairs.

    The interval resamples scenarios; `p_value` is of the sign test over scenarios, before any correction.
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    inconsistent: int
    unscored: int
    rate: float | None
    low: float | None
    high: float | None
    p_value: float


def collect_preferences(
    rows: Sequence[Row], models: Sequence[str], judge: NamedPreferenceJudge, path: Path
) -> list[Row]:
    """Ask about every pair of self-play answers to the same task and run; return the rows, those in `path` first.

    A row holds task, decoding, scenario, run, first, second, judge, forward, backward and outcome. What stands in
    `path` under the same judge is not asked again; a pair without an answer on one side is not asked about. Unscored
    pairs are returned but not stored.
    """
    known = read_whole_rows(path)
    asked = {_key(row) for row in known}
    pending = [item for item in _pair_answers(rows, models, judge.name) if _key(item[0]) not in asked]
    for begin in range(0, len(pending), BATCH):
        batch = pending[begin : begin + BATCH]
        words = compare_both_orders(judge.judge, [pair for _, pair in batch])
        told = [
            {**place, "forward": word.forward, "backward": word.backward, "outcome": word.outcome}
            for (place, _), word in zip(batch, words, strict=True)
        ]
        # A pair without a verdict is asked about again at the next call: its judge may have been away.
        append_rows(path, [row for row in told if row["outcome"] != "unscored"])
        known += told
    return [row for row in known if row["judge"] == judge.name]


def summarize_win_rates(preferences: Sequence[Row], seed: int) -> list[WinRate]:
    """Return the win rate of each pair of models in the rows of `collect_preferences`, in their order."""
    pairs = dict.fromkeys((row["first"], row["second"]) for row in preferences)
    return [
        _summarize_pair(first, second, [r for r in preferences if (r["first"], r["second"]) == (first, second)], seed)
        for first, second in pairs
    ]


def to_outcomes(preferences: Sequence[Row]) -> list[Outcome]:
    """Return the consistent outcomes, for Bradley-Terry."""
    return [
        Outcome(find_cluster(row["scenario"]), row["first"], row["second"], POINTS[row["outcome"]])
        for row in preferences
        if row["outcome"] in POINTS
    ]


def find_cluster(scenario: str) -> str:
    """Return what a scenario's dialogues are grouped by: its id, for the meetings of one case the id of the case."""
    return scenario.partition("/")[0]


def _summarize_pair(first: str, second: str, rows: Sequence[Row], seed: int) -> WinRate:
    outcomes = [row["outcome"] for row in rows]
    points = [POINTS.get(outcome) for outcome in outcomes]
    clusters = [find_cluster(row["scenario"]) for row in rows]
    found = estimate_mean(points, clusters, seed)
    # Runs of one scenario are not independent: the test takes one value a scenario.
    leanings = [mean - 0.5 for mean in cluster_means(points, clusters).values()]
    return WinRate(
        first=first,
        second=second,
        wins=outcomes.count("first"),
        losses=outcomes.count("second"),
        ties=outcomes.count("tie"),
        inconsistent=outcomes.count("inconsistent"),
        unscored=outcomes.count("unscored"),
        rate=found.mean,
        low=found.low,
        high=found.high,
        p_value=run_sign_test(leanings).p_value,
    )


def _pair_answers(rows: Sequence[Row], models: Sequence[str], judge: str) -> list[tuple[Row, AnswerPair]]:
    answers = {
        (row["task"], row["decoding"], row["scenario"], row["run"], row["model"]): row
        for row in rows
        if row["model"] == row["opponent"] and row["completion"] is not None
    }
    places = dict.fromkeys(key[:4] for key in answers)
    found: list[tuple[Row, AnswerPair]] = []
    for first, second in itertools.combinations(models, 2):
        for place in places:
            one, other = answers.get((*place, first)), answers.get((*place, second))
            if one is None or other is None:
                continue
            task, decoding, scenario, run = place
            row = {"task": task, "decoding": decoding, "scenario": scenario, "run": run}
            row |= {"first": first, "second": second, "judge": judge}
            found.append((row, AnswerPair(one["dilemma"], one["completion"], other["completion"])))
    return found


def _key(row: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(row[key] for key in ("task", "decoding", "scenario", "run", "first", "second", "judge"))
