"""A whole study on the tiny model: all arms, ablations, curves, IFEval and the page; then nothing is done twice."""

import dataclasses
import gc
import json
import re
import weakref

import pytest

from comity.cli import main
from comity.evaluation.targets import Target
from comity.runs import read_json, read_metrics
from comity.study.curves import summarize_curves
from comity.study.run import pool_seeds, run_study
from comity.training.trainer import train

QUESTIONS = [{"id": f"q{n}", "question": f"What is a well for, {n}?"} for n in range(2)]
CASES = [
    {"id": f"c{n}", "title": "Water", "situation": f"Well {n} is shared.",
     "stakeholders": [{"name": "North", "interests": "Drink."}, {"name": "South", "interests": "Wash."}]}
    for n in range(2)
]  # fmt: skip
PROMPTS = [
    {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {"key": 2, "prompt": "Nor here.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def whole_study(build_study, recipes):
    """Return the settings of a study that has everything."""
    (recipes / "both.toml").write_text('extends = "multi.toml"\n[train.optimization]\nseats = "both"\n')
    (recipes / "twin.toml").write_text('extends = "solo.toml"\n')
    (recipes / "notes.md").write_text("## What did not work\nThe soup.\n")
    config = build_study(
        arms=(f"multi={recipes / 'multi.toml'}", f"solo={recipes / 'solo.toml'}", f"twin={recipes / 'twin.toml'}"),
        match_tokens=("twin:multi",),
        steps=2,
        ablations=(f"both={recipes / 'both.toml'}",),
        ablation_seeds=1,
        curve_every=1,
        curve_tasks=1,
        page=str(recipes / "docs" / "study.md"),
        notes=str(recipes / "notes.md"),
    )
    evaluation = dataclasses.replace(
        config.evaluation,
        open_ended=write(recipes / "questions.jsonl", QUESTIONS),
        transfer=write(recipes / "cases.jsonl", CASES),
        ifeval=write(recipes / "ifeval.jsonl", PROMPTS),
        ifeval_tokens=4,
        alone=True,
        decoding=("greedy", "sampled"),
    )
    return dataclasses.replace(config, evaluation=evaluation)


@pytest.mark.slow
def test_a_study_trains_compares_pools_publishes_and_goes_on(whole_study, capsys):
    config, steps, batches = whole_study, [], []
    results = run_study(config, lambda label, step, metrics: steps.append((label, step)))
    assert [label for label, step in steps if step == 1] == [
        "multi-seed-0", "multi-seed-1", "solo-seed-0", "solo-seed-1", "twin-seed-0", "twin-seed-1", "both-seed-0",
    ]  # fmt: skip
    sampled = {
        name: [row["sampled/tokens"] for row in read_metrics(config.run / name)]
        for name in ("multi-seed-0", "twin-seed-0")
    }
    assert len(sampled["multi-seed-0"]) == 2
    # The matched run ended with the step that reached the other's tokens.
    assert sum(sampled["twin-seed-0"][:-1]) < sum(sampled["multi-seed-0"]) <= sum(sampled["twin-seed-0"])
    assert results["models"] == ["base", "multi", "solo", "twin"]
    told = [(entry["task"], entry["decoding"]) for entry in results["entries"]]
    kinds = ("conflict", "conflict_alone", "open_ended", "transfer")
    assert told == [(kind, decoding) for decoding in ("greedy", "sampled") for kind in kinds]
    # 2 tasks x 2 runs x 2 seeds; the base's dialogues stand once for each seed.
    entry = results["entries"][told.index(("conflict", "sampled"))]
    assert [player["dialogues"] for player in entry["players"]] == [8, 8, 8, 8]
    assert len(entry["players"][1]["measures"]["rounds_mean"]["run_means"]) == 2
    assert read_json(config.run / "ablations" / "results.json")["models"] == ["base", "multi", "both"]
    assert read_json(config.run / "evaluation" / "results.json")["models"] == [
        "base", "multi-seed-0", "multi-seed-1", "solo-seed-0", "solo-seed-1", "twin-seed-0", "twin-seed-1",
    ]  # fmt: skip
    assert [point["step"] for point in read_json(config.run / "curves.json")["multi"]] == [0, 1, 2]
    check_page(config)
    written = {name: (config.run / name).read_bytes() for name in ("runs.jsonl", "evaluation/dialogues.jsonl")}
    steps.clear()
    again = run_study(config, lambda *told: steps.append(told), lambda *told: batches.append(told))
    assert (again, steps, batches) == (results, [], [])
    assert {name: (config.run / name).read_bytes() for name in written} == written
    page = (config.run / "study.md").read_bytes()
    (config.run / "study.md").unlink()
    assert main(["report", str(config.run)]) == 0
    assert "study.md written" in " ".join(capsys.readouterr().out.split())
    assert (config.run / "study.md").read_bytes() == page


def check_page(config):
    """Hold the published page against the files that it is filled from."""
    for place in ("evaluation", "arms", "ablations", "multi-seed-0", "both-seed-0"):
        assert (config.run / place / "report.html").exists()
    page = (config.run.parent / "docs" / "study.md").read_text(encoding="utf-8")
    targets = [Target(**target) for target in read_json(config.run / "targets.json")]
    assert [target.value is not None for target in targets] == [True] * 7
    for target in targets:
        assert f"| {target.name} | {target.wanted} |" in page
    held = sum(target.holds for target in targets)
    assert f"{held} of 7 targets hold, {7 - held} do" in page
    for heading in ("Targets", "Results of the arms", "General ability", "Ablations", "Curves", "Zero rewards"):
        assert f"## {heading}\n" in page
    assert "7 training runs of" in page
    runs = page.partition("## Runs and what they took")[2]
    assert len(re.findall(r"^\| (?:multi|solo|twin|both)-seed-\d \|", runs, re.MULTILINE)) == 7
    figures = re.findall(r"!\[[^]]*\]\((images/study/[^)]*)\)", page)
    assert "images/study/held-out-agreement.svg" in figures
    assert "images/study/training-reward-solo.svg" in figures
    for name in figures:
        assert (config.run.parent / "docs" / name).is_file()
    assert "nan" not in page.lower().split()
    assert "None" not in page
    assert page.endswith("\n\n## What did not work\nThe soup.\n")


@pytest.mark.slow
def test_one_run_leaves_no_model_behind_for_the_next(build_study):
    from comity.study.plan import load_recipes, plan_run

    config = build_study()
    session = train(plan_run(config, load_recipes(config), "multi", 0, {}))
    model = weakref.ref(session.model)
    del session
    gc.collect()
    assert model() is None


def test_seeds_of_an_arm_are_pooled_with_their_partners():
    rows = [
        {"model": model, "opponent": model, "scenario": "t", "run": run}
        for model in ("base", "m-seed-0", "m-seed-1")
        for run in (0, 1)
    ]
    rows.append({"model": "base", "opponent": "m-seed-0", "scenario": "t", "run": 0})
    found = [(row["model"], row["seed"], row["run"]) for row in pool_seeds(rows, [("m", 0), ("m", 1)])]
    # Two runs a seed: run 1 of seed 1 becomes run 3.
    assert found == [
        ("base", 0, 0), ("base", 1, 2), ("base", 0, 1), ("base", 1, 3),
        ("m", 0, 0), ("m", 0, 1), ("m", 1, 2), ("m", 1, 3),
    ]  # fmt: skip


def test_curves_by_hand():
    def row(model, scenario, reward, ending="agreed", rounds=1):
        return {"model": model, "scenario": scenario, "reward": reward, "ending": ending, "rounds": rounds,
                "heldout_agreed": None, "heldout_score": None}  # fmt: skip

    rows = [
        row("base", "a", 0.0, "no_agreement", 2),
        row("m-step-4", "a", 1.0, rounds=2),
        row("m-step-4", "a", 3.0),
        row("m-step-4", "b", 4.0),
        row("m-step-4", "b", None, "no_agreement"),  # unscored: it counts nowhere
        row("m-step-2", "a", 0.0, "no_agreement", 2),
    ]
    assert summarize_curves(rows, "base") == {
        "m": [
            {"step": 0.0, "agreement/rate": 0.0, "reward/group_min": 0, "reward/group_mean": 0, "reward/group_max": 0},
            {"step": 2.0, "agreement/rate": 0.0, "reward/group_min": 0, "reward/group_mean": 0, "reward/group_max": 0},
            # Lowest: (1 + 4) / 2; mean: (2 + 4) / 2; highest: (3 + 4) / 2; rounds: (2 + 1 + 1) / 3.
            {"step": 4.0, "agreement/rate": 1.0, "agreement/rounds": 4 / 3, "reward/group_min": 2.5,
             "reward/group_mean": 3.0, "reward/group_max": 3.5},
        ]
    }  # fmt: skip
