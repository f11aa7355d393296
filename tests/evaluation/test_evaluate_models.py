"""All figures, preferences and logs of a comparison of models, played by tiny models and worked by hand."""

import json

import pytest
from inspect_ai.log import read_eval_log

from comity.config import EvaluateConfig
from comity.evaluation.inspect_logs import write_inspect_logs
from comity.evaluation.models import prefer_stored_scores, summarize_folder
from comity.evaluation.preferences import (
    NamedPreferenceJudge,
    collect_preferences,
    summarize_win_rates,
)
from comity.evaluation.results import CONTEST_MEASURES, estimate_measure, summarize_contest
from comity.types import Preference


def make_row(model, scenario, run=0, ending="agreed", **changes):
    row = {
        "model": model, "opponent": model, "task": "conflict", "decoding": "sampled", "run": run, "sample": run,
        "scenario": scenario, "dilemma": f"Well {scenario} is low.", "tier": "everyday", "domain": "water",
        "personas": ["Save it.", "Use it."], "ending": ending, "rounds": 2,
        "completion": f"{model} digs at {scenario}.",
        "messages": [{"seat": 0, "text": "Dig two shafts.", "finish": "stop", "tokens": 5},
                     {"seat": 1, "text": "Dig on Monday.", "finish": "stop", "tokens": 5}],
        "checks": [], "reward": 3.0, "score": 3.0, "uncertainty": 0.5, "reasons": [], "heldout_agreed": True,
        "heldout_score": 2.0, "advantage": None, "satisfaction": None,
    }  # fmt: skip
    return row | changes


def failing(model, scenario, **changes):
    return make_row(model, scenario, ending="no_agreement", reward=0.0, **changes)


# Agreement: a agrees on s1 and s2, b on all four. Held-out scores: a 1, b 3 on s1 to s3, 2 each on s4.
ROWS = [
    make_row("a", "s1", heldout_score=1.0), make_row("a", "s2", heldout_score=1.0),
    failing("a", "s3", heldout_score=1.0), failing("a", "s4"),
    *(make_row("b", scenario, heldout_score=3.0) for scenario in ("s1", "s2", "s3")), make_row("b", "s4"),
]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    return summarize_folder(EvaluateConfig(out=tmp_path, tie_margin=0.5), ROWS)


def test_measures_of_each_model(results):
    (entry,) = results["entries"]
    assert (entry["task"], entry["decoding"], results["models"]) == ("conflict", "sampled", ["a", "b"])
    a, b = entry["players"]
    assert a["measures"]["agreement_rate"]["mean"] == 0.5
    assert a["measures"]["reward_mean"]["mean"] == 1.5  # (3 + 3 + 0 + 0) / 4
    assert a["measures"]["rounds_to_agreement"]["n"] == 2
    assert b["measures"]["heldout_score_mean"]["mean"] == 2.75  # (3 + 3 + 3 + 2) / 4
    assert "satisfaction_mean" not in a["measures"]
    assert a["measures"]["agreement_rate"]["n_unscored"] == 0


def test_differences_are_paired_tested_and_corrected(results):
    found = {item["measure"]: item for item in results["entries"][0]["comparisons"]}
    rate = found["agreement_rate"]
    # b agrees on two scenarios more: McNemar with 2 up and 0 down, 2 / 2^2 = 0.5.
    assert (rate["before"], rate["after"], rate["difference"]) == (0.5, 1.0, 0.5)
    assert (rate["test"], rate["up"], rate["down"], rate["same"], rate["p_value"]) == ("McNemar", 2, 0, 2, 0.5)
    score = found["heldout_score_mean"]
    # Differences 2, 2, 2, 0: three up, one the same, 2 / 2^3 = 0.25; mean 1.5, deviation 1, d_z 1.5.
    assert (score["test"], score["up"], score["same"], score["p_value"]) == ("sign", 3, 1, 0.25)
    assert score["effect"] == pytest.approx(1.5)
    # Family of four tests with p 0.5, 1, 1, 0.25: Holm gives 0.25 x 4 = 1 to the smallest, so 1 to all.
    assert {item["p_adjusted"] for item in found.values()} == {1.0}
    assert len(found) == 4


def test_win_rates_from_stored_scores(results, tmp_path):
    assert results["preference_judge"] == "held-out score, margin 0.5"
    (rate,) = results["entries"][0]["win_rates"]
    # a loses s1 to s3, ties s4: (0 + 0 + 0 + 0.5) / 4.
    assert (rate["first"], rate["second"], rate["wins"], rate["losses"], rate["ties"]) == ("a", "b", 0, 3, 1)
    assert rate["rate"] == 0.125
    assert rate["p_value"] == 0.25
    best, worst = results["entries"][0]["strengths"]
    assert (best["model"], worst["model"]) == ("b", "a")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results


def test_a_second_summary_asks_nothing_twice(results, tmp_path):
    before = (tmp_path / "preferences.jsonl").read_bytes()
    assert len(before.splitlines()) == 4
    assert summarize_folder(EvaluateConfig(out=tmp_path, tie_margin=0.5), ROWS) == results
    assert (tmp_path / "preferences.jsonl").read_bytes() == before
    summarize_folder(EvaluateConfig(out=tmp_path, tie_margin=0.1), ROWS)  # another judge
    assert len((tmp_path / "preferences.jsonl").read_bytes().splitlines()) == 8


def test_a_judge_of_text_is_asked_in_both_orders_and_inconsistent_pairs_are_dropped(tmp_path):
    shown = []

    def judge(pairs):
        shown.extend(pairs)
        # Likes b, except on s1, where it likes what stands first; it says nothing about s2.
        return [
            Preference("plain", "", None if "s2" in p.dilemma else "first" if "s1" in p.dilemma or p.first[0] == "b"
                       else "second")
            for p in pairs
        ]  # fmt: skip

    found = collect_preferences(ROWS, ["a", "b"], NamedPreferenceJudge("plain", judge), tmp_path / "p.jsonl")
    assert len(shown) == 8
    assert {(pair.first[0], pair.second[0]) for pair in shown} == {("a", "b"), ("b", "a")}
    assert [row["outcome"] for row in found] == ["inconsistent", "unscored", "second", "second"]
    (rate,) = summarize_win_rates(found, seed=0)
    assert (rate.wins, rate.losses, rate.inconsistent, rate.unscored, rate.rate) == (0, 2, 1, 1, 0.0)
    # What the judge said nothing about is asked again, and nothing else.
    shown.clear()
    assert (
        collect_preferences(ROWS, ["a", "b"], NamedPreferenceJudge("plain", judge), tmp_path / "p.jsonl")[-1]
        == (found[1])
    )
    assert [pair.dilemma for pair in shown] == ["Well s2 is low."] * 2


def test_an_interrupted_judge_loses_no_words(tmp_path, monkeypatch):
    monkeypatch.setattr("comity.evaluation.preferences.BATCH", 1)
    asked = []

    def judge(pairs):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(pairs)
        return [Preference("plain", "", "tie") for _ in pairs]

    path = tmp_path / "p.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collect_preferences(ROWS, ["a", "b"], NamedPreferenceJudge("plain", judge), path)
    asked.clear()
    found = collect_preferences(ROWS, ["a", "b"], NamedPreferenceJudge("plain", judge), path)
    assert len(asked) == 2
    assert [row["outcome"] for row in found] == ["tie"] * 4


def test_training_scores_stand_in_without_a_held_out_judge():
    judge = prefer_stored_scores(ROWS, heldout=False, margin=0.25)
    assert judge.name == "training score, margin 0.25"


def test_runs_have_means_and_a_deviation():
    rows = [make_row("a", "s1", run, score=score) for run, score in enumerate((1.0, 2.0, 3.0))]
    rows += [make_row("a", "s2", run, score=3.0) for run in range(3)] + [make_row("a", "s3", 0, score=None)]
    found = estimate_measure(CONTEST_MEASURES["score_mean"], rows, seed=0)
    # Run means (1 + 3) / 2, (2 + 3) / 2, (3 + 3) / 2: 2, 2.5, 3; deviation 0.5.
    assert found["run_means"] == [2.0, 2.5, 3.0]
    assert found["run_deviation"] == pytest.approx(0.5)
    assert (found["n"], found["n_unscored"]) == (6, 1)


def test_meetings_of_one_case_are_one_cluster():
    rows = [make_row("a", f"case-1/{pair}", score=score) for pair, score in (("1-2", 1.0), ("1-3", 5.0))]
    found = estimate_measure(CONTEST_MEASURES["score_mean"], rows, seed=0)
    assert (found["mean"], found["low"]) == (3.0, None)


def test_cross_play_has_figures_but_no_comparison():
    rows = [*ROWS, *(make_row("a", f"s{n}", opponent="b") for n in range(1, 5))]
    (entry,) = summarize_contest(rows, [], seed=0)
    assert [(p["model"], p["opponent"]) for p in entry["players"]] == [("a", "a"), ("b", "b"), ("a", "b")]
    assert {(item["first"], item["second"]) for item in entry["comparisons"]} == {("a", "b")}


def test_inspect_reads_the_logs_back(tmp_path):
    rows = [make_row("a", "s1", 0), make_row("a", "s1", 1, score=None), failing("a", "s2"),
            make_row("a", "s1", opponent="b", decoding="greedy")]  # fmt: skip
    paths = write_inspect_logs(rows, tmp_path / "inspect")
    assert [path.name for path in paths] == ["conflict-a-sampled.eval", "conflict-a-against-b-greedy.eval"]
    log = read_eval_log(str(paths[0]))
    assert (log.status, log.eval.task, log.eval.model) == ("success", "comity/conflict", "comity/a")
    assert log.eval.dataset.sample_ids == ["s1", "s2"]
    assert [(sample.id, sample.epoch) for sample in log.samples] == [("s1", 1), ("s2", 1), ("s1", 2)]
    first, third, second = log.samples
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "user"]
    assert first.messages[2].text == "Dig two shafts."
    assert first.output.completion == "a digs at s1."
    assert first.scores["score_mean"].value == 3.0
    assert second.scores["score_mean"].value != second.scores["score_mean"].value  # not a number: unscored
    assert third.scores["agreement_rate"].value == 0.0
    scores = {score.name: score for score in log.results.scores}
    assert scores["agreement_rate"].metrics["mean"].value == pytest.approx(2 / 3)
    assert (scores["score_mean"].scored_samples, scores["score_mean"].unscored_samples) == (2, 1)
    # Written again, the logs replace themselves.
    assert write_inspect_logs(rows, tmp_path / "inspect") == paths
