"""All figures of a comparison of models, from its dialogues and preferences alone; no model is loaded.

`results.json` holds one entry for each task and decoding:

    task, decoding
    players       [{model, opponent, dialogues, signs, concession_by_round,
                    measures: {name: {mean, low, high, n, n_unscored, run_means, run_deviation}}}]
    comparisons   [{measure, first, second, before, after, difference, low, high, n, n_unscored, effect, test, up, down,
                    same, p_value, p_adjusted, scenarios_needed}]     first -> second, paired, self-play only
    win_rates     [{first, second, wins, losses, ties, inconsistent, unscored, rate, low, high, p_value, p_adjusted}]
    strengths     [{model, share, low, high}]                          Bradley-Terry

`p_adjusted` is Holm's correction over the family: all comparisons of one entry, or all win rates of one entry.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comity.evaluation import quality
from comity.evaluation.preferences import find_cluster, summarize_win_rates, to_outcomes
from comity.evaluation.ranking import rank_models
from comity.evaluation.significance import (
    adjust_p_values,
    run_mcnemar_test,
    run_sign_test,
    scenarios_needed,
    standardize_difference,
    standardize_rates,
)
from comity.evaluation.statistics import (
    MEASURES,
    agreement,
    cluster_means,
    estimate_mean,
    paired_bootstrap,
    rounds,
)
from comity.judges.signs import agreement_without_plan, summarize_signs
from comity.scenarios.rows import Row

Players = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of one dialogue: `read` gives None when unscored; a dialogue that it does not apply to is left out.

    `compared` measures enter the comparisons; `rate` marks a yes-or-no outcome.
    """

    read: Callable[[Row], float | None]
    applies: Callable[[Row], bool] = lambda row: True
    compared: bool = False
    rate: bool = False


def has_sides(row: Row) -> bool:
    """Tell whether two sides spoke."""
    return len(row["personas"]) > 1


def has_agreed(row: Row) -> bool:
    """Tell whether the sides agreed."""
    return bool(row["ending"] == "agreed")


def has_satisfaction(row: Row) -> bool:
    """Tell whether a satisfaction judge read the answer."""
    return row.get("satisfaction") is not None


def _without_plan(row: Row) -> float | None:
    found = agreement_without_plan(row)
    return None if found is None else float(found)


def _says(measure: Callable[[Row], float | None]) -> Callable[[Row], bool]:
    return lambda row: measure(row) is not None


CONTEST_MEASURES: dict[str, Measure] = {
    "agreement_rate": Measure(agreement, has_sides, compared=True, rate=True),
    "rounds_to_agreement": Measure(rounds, has_agreed),
    "rounds_mean": Measure(rounds, has_sides, compared=True),
    "reward_mean": Measure(MEASURES["reward_mean"]),
    "score_mean": Measure(MEASURES["score_mean"], compared=True),
    "heldout_agreement_rate": Measure(MEASURES["heldout_agreement_rate"], has_sides, rate=True),
    "heldout_score_mean": Measure(MEASURES["heldout_score_mean"], compared=True),
    "satisfaction_mean": Measure(quality.satisfaction_mean, has_satisfaction, compared=True),
    "satisfaction_least": Measure(quality.satisfaction_least, has_satisfaction, compared=True),
    "satisfaction_product": Measure(quality.satisfaction_product, has_satisfaction),
    "capitulation_rate": Measure(quality.capitulated, lambda row: has_agreed(row) and has_satisfaction(row), rate=True),
    "one_sided_rate": Measure(quality.answer_is_one_sided, _says(quality.answer_is_one_sided), rate=True),
    "concrete_answer_rate": Measure(quality.answer_is_concrete, _says(quality.answer_is_concrete), rate=True),
    "without_plan_rate": Measure(_without_plan, has_agreed, rate=True),
    "concession_mean": Measure(quality.concession_mean, _says(quality.concession_mean)),
    "concession_gap": Measure(quality.concession_gap, _says(quality.concession_gap)),
}
"""Every measure of a comparison of models; one that applies to no dialogue is absent from the results."""


def summarize_contest(rows: Sequence[Row], preferences: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """Return the figures of every task and decoding, in the order of the dialogues (see the module's head)."""
    entries = dict.fromkeys((row["task"], row["decoding"]) for row in rows)
    return [
        _summarize_entry(
            task,
            decoding,
            [row for row in rows if (row["task"], row["decoding"]) == (task, decoding)],
            [row for row in preferences if (row["task"], row["decoding"]) == (task, decoding)],
            seed,
        )
        for task, decoding in entries
    ]


def _summarize_entry(
    task: str, decoding: str, rows: Sequence[Row], preferences: Sequence[Row], seed: int
) -> dict[str, Any]:
    groups: dict[Players, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["opponent"]), []).append(row)
    alone = {model: group for (model, opponent), group in groups.items() if model == opponent}
    rates = [dataclasses.asdict(rate) for rate in summarize_win_rates(preferences, seed)]
    strengths = rank_models(list(alone), to_outcomes(preferences), seed)
    return {
        "task": task,
        "decoding": decoding,
        "players": [_summarize_players(players, group, seed) for players, group in groups.items()],
        "comparisons": _with_adjusted(
            [
                found
                for first, second in itertools.combinations(alone, 2)
                for name, measure in CONTEST_MEASURES.items()
                if measure.compared and (found := compare_models(name, alone, (first, second), seed)) is not None
            ]
        ),
        "win_rates": _with_adjusted(rates),
        "strengths": [dataclasses.asdict(strength) for strength in strengths],
    }


def _summarize_players(players: Players, rows: Sequence[Row], seed: int) -> dict[str, Any]:
    return {
        "model": players[0],
        "opponent": players[1],
        "dialogues": len(rows),
        "measures": {
            name: found
            for name, measure in CONTEST_MEASURES.items()
            if (found := estimate_measure(measure, rows, seed)) is not None
        },
        "signs": summarize_signs(rows),
        "concession_by_round": quality.concession_by_round(rows),
    }


def estimate_measure(measure: Measure, rows: Sequence[Row], seed: int) -> dict[str, Any] | None:
    """Return a measure's mean and interval over scenarios, each run's (or seed's) mean, and their deviation.

    None when it applies to no dialogue.
    """
    applied = [row for row in rows if measure.applies(row)]
    if not applied:
        return None
    values = [measure.read(row) for row in applied]
    estimate = estimate_mean(values, [find_cluster(row["scenario"]) for row in applied], seed)
    # Where runs of several training seeds were pooled, the deviation between seeds is what counts.
    by_run = cluster_means(values, [f"{row.get('seed', row['run']):09d}" for row in applied])
    means = list(by_run.values())
    return {
        **dataclasses.asdict(estimate),
        "run_means": means,
        "run_deviation": float(np.std(means, ddof=1)) if len(means) > 1 else None,
    }


def compare_models(
    name: str, dialogues: dict[str, list[Row]], models: tuple[str, str], seed: int
) -> dict[str, Any] | None:
    """Return the paired difference second - first of one measure with its test; None when it applies to neither.

    Dialogues are paired by scenario and run. The test takes one value a scenario: McNemar's for rates, else the sign
    test. `effect` is Cohen's h for rates and d_z over scenarios otherwise. `scenarios_needed` says how many scenarios a
    paired t-test needs for the difference that was found, at power 0.8.
    """
    measure = CONTEST_MEASURES[name]
    sides = [
        {(row["scenario"], row["run"]): measure.read(row) for row in dialogues[model] if measure.applies(row)}
        for model in models
    ]
    keys = sorted(sides[0].keys() | sides[1].keys())
    if not keys:
        return None
    before, after = ([side.get(key) for key in keys] for side in sides)
    clusters = [find_cluster(scenario) for scenario, _ in keys]
    paired = paired_bootstrap(before, after, clusters, seed)
    complete = [(b, a, c) for b, a, c in zip(before, after, clusters, strict=True) if b is not None and a is not None]
    labels = [cluster for _, _, cluster in complete]
    first_means = cluster_means([b for b, _, _ in complete], labels)
    second_means = cluster_means([a for _, a, _ in complete], labels)
    differences = [second_means[key] - first_means[key] for key in first_means]
    test = (
        run_mcnemar_test(list(first_means.values()), list(second_means.values()))
        if measure.rate
        else run_sign_test(differences)
    )
    return {
        "measure": name,
        "first": models[0],
        "second": models[1],
        **dataclasses.asdict(paired),
        "effect": _effect(measure.rate, paired.before, paired.after, differences),
        "test": test.name,
        "up": test.up,
        "down": test.down,
        "same": test.same,
        "p_value": test.p_value,
        "scenarios_needed": _needed(differences),
    }


def _effect(rate: bool, before: float | None, after: float | None, differences: Sequence[float]) -> float | None:
    if before is None or after is None:
        return None
    return standardize_rates(before, after) if rate else standardize_difference(differences)


def _needed(differences: Sequence[float]) -> int | None:
    effect = standardize_difference(differences)
    return None if not effect else scenarios_needed(effect, 1.0)


def _with_adjusted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = adjust_p_values([item["p_value"] for item in found])
    return [{**item, "p_adjusted": value} for item, value in zip(found, adjusted, strict=True)]
