"""A study of two arms and two seeds on the tiny model, stopped and continued; its planning by hand."""

import dataclasses
import json

import pytest

from comity.config import DemoConfig, EvaluateConfig, StudyConfig, load_config
from comity.errors import ConfigError
from comity.runs import read_json, read_metrics
from comity.study.plan import is_trained, list_names, list_runs, load_recipes, parse_matches, plan_run
from comity.study.run import pool_seeds, run_study
from parrot import save_parrot

TASKS = [
    {"id": f"t{n}", "tier": "everyday", "domain": "water", "dilemma": f"Well {n} is low.", "persona_a": "Save it.",
     "persona_b": "Use it."}
    for n in range(2)
]  # fmt: skip


@pytest.fixture
def recipes(tiny_folder, tmp_path):
    """Write two recipes of the tiny model and return the folder."""
    judges = {kind: save_parrot(tmp_path / kind, word) for kind, word in (("agreement", "YES"), ("agency", "3"))}
    recipe = f"""
[train.model]
name = "{tiny_folder}"
dtype = "float32"
device = "cpu"
lora_rank = 2
[train]
threads = 1
save_every = 1
[train.negotiation]
rounds = 1
dialogue = {{ temperature = 1.0, top_p = 1.0, max_tokens = 4 }}
completion = {{ temperature = 1.0, top_p = 1.0, max_tokens = 4 }}
[train.judges]
agreement = "{judges["agreement"]}"
agency = "{judges["agency"]}"
heldout = false
[train.optimization]
steps = 1
scenarios_per_step = 1
group_size = 2
"""
    (tmp_path / "multi.toml").write_text(recipe, encoding="utf-8")
    # One step of the solo arm samples at most 2 x 4 tokens; three at least reach what the other one sampled.
    solo = 'extends = "multi.toml"\n[train]\nsolo = true\n[train.optimization]\nsteps = 50\n'
    (tmp_path / "solo.toml").write_text(solo, encoding="utf-8")
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TASKS), encoding="utf-8")
    return tmp_path


def build_study(folder, **changes):
    evaluation = EvaluateConfig(tasks=str(folder / "tasks.jsonl"), runs=2)
    given = {
        "run": folder / "study",
        "seeds": 2,
        "match_tokens": ("solo:multi",),
        "negotiating": "multi",
        "single": "solo",
        "evaluation": evaluation,
    }
    arms = (f"multi={folder / 'multi.toml'}", f"solo={folder / 'solo.toml'}")
    return StudyConfig(**({"arms": arms} | given | changes))


@pytest.mark.slow
def test_a_study_trains_compares_pools_and_goes_on(recipes):
    config = build_study(recipes)
    steps = []
    results = run_study(config, lambda label, step, metrics: steps.append((label, step)))
    assert [label for label, step in steps if step == 1] == [
        "multi-seed-0", "multi-seed-1", "solo-seed-0", "solo-seed-1",
    ]  # fmt: skip
    sampled = {
        name: sum(row["sampled/tokens"] for row in read_metrics(config.run / name))
        for name in ("multi-seed-0", "solo-seed-0")
    }
    last = read_metrics(config.run / "solo-seed-0")[-1]["sampled/tokens"]
    assert sampled["multi-seed-0"] <= sampled["solo-seed-0"] < sampled["multi-seed-0"] + last
    assert results["models"] == ["base", "multi", "solo"]
    (entry,) = results["entries"]
    # 2 tasks x 2 runs x 2 seeds; the base's dialogues stand once for each seed.
    assert [player["dialogues"] for player in entry["players"]] == [8, 8, 8]
    assert len(entry["players"][1]["measures"]["rounds_mean"]["run_means"]) == 2
    assert read_json(config.run / "evaluation" / "results.json")["models"] == [
        "base", "multi-seed-0", "multi-seed-1", "solo-seed-0", "solo-seed-1",
    ]  # fmt: skip
    for place in ("evaluation", "arms"):
        assert (config.run / place / "report.html").exists()
    written = (config.run / "evaluation" / "dialogues.jsonl").read_bytes()
    steps.clear()
    batches = []
    assert run_study(config, lambda *told: steps.append(told), lambda *told: batches.append(told)) == results
    assert (steps, batches) == ([], [])
    assert (config.run / "evaluation" / "dialogues.jsonl").read_bytes() == written


def test_a_run_is_trained_when_its_steps_or_its_tokens_are_spent(recipes):
    config = build_study(recipes, seeds=1)
    arms = load_recipes(config)
    settings = plan_run(config, arms, "multi", 0, {})
    assert not is_trained(settings)
    folder = settings.run
    (folder / "checkpoint-1").mkdir(parents=True)
    (folder / "checkpoint-1" / "state.json").write_text("{}", encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"step": 1.0, "sampled/tokens": 20}\n', encoding="utf-8")
    assert is_trained(settings)
    longer = dataclasses.replace(settings, optimization=dataclasses.replace(settings.optimization, steps=5))
    assert not is_trained(longer)
    for budget, spent in ((20, True), (21, False)):
        spending = dataclasses.replace(longer.optimization, token_budget=budget)
        assert is_trained(dataclasses.replace(longer, optimization=spending)) is spent
    matched = plan_run(config, arms, "solo", 0, {"solo": "multi"})
    assert matched.optimization.token_budget == 20
    assert (matched.run.name, matched.seed, matched.resume) == ("solo-seed-0", 0, False)


def test_bad_arms_are_named_before_anything_is_trained(recipes, tmp_path):
    multi = recipes / "multi.toml"
    for bad in ("multi", "=x", f"base={multi}"):
        with pytest.raises(ConfigError, match="arms has"):
            load_recipes(build_study(recipes, arms=(bad,)))
    with pytest.raises(ConfigError, match="no such file"):
        load_recipes(build_study(recipes, arms=("a=nowhere.toml",)))
    (tmp_path / "other.toml").write_text('extends = "multi.toml"\n[train.model]\nlora_rank = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="begin with different models"):
        load_recipes(build_study(recipes, arms=(f"a={multi}", f"b={tmp_path / 'other.toml'}")))
    with pytest.raises(ConfigError, match="single is 'other', which is no arm"):
        load_recipes(build_study(recipes, single="other"))
    with pytest.raises(ConfigError, match="ablations has"):
        load_recipes(build_study(recipes, ablations=(f"solo={multi}",), ablation_seeds=1))
    with pytest.raises(ConfigError, match="ablation_seeds is 3, but the arm that they meet has 2"):
        build_study(recipes, ablations=(f"x={multi}",))
    arms = ("a", "b", "c")
    for words in (["a"], ["a:z"], ["a:a"]):
        with pytest.raises(ConfigError, match="match_tokens has"):
            parse_matches(words, arms)
    with pytest.raises(ConfigError, match="matches another"):
        parse_matches(["a:b", "b:c"], arms)
    assert parse_matches(["a:b", "c:b"], arms) == {"a": "b", "c": "b"}


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


@pytest.mark.parametrize(("name", "arms", "ablations"), [("study", 4, 10), ("study-small", 3, 4)])
def test_shipped_studies_name_recipes_that_load(monkeypatch, request, name, arms, ablations):
    monkeypatch.chdir(request.config.rootpath)
    config = load_config(StudyConfig, request.config.rootpath / "configs" / f"{name}.toml")
    recipes = load_recipes(config)
    assert (len(config.arms), len(config.ablations), config.seeds) == (arms, ablations, 3)
    matches = parse_matches(config.match_tokens, list_names(config.arms))
    assert matches == {"token-matched": "multi-agent"}
    demo = load_config(DemoConfig, request.config.rootpath / "configs" / "demo.toml").train
    steps = config.steps or demo.optimization.steps
    assert {
        name: recipe.optimization.steps for name, recipe in recipes.items() if name not in matches
    } == dict.fromkeys([name for name in recipes if name not in matches], steps)
    assert recipes["token-matched"].optimization.steps == 200
    # What others match comes first; the ablations come last.
    runs = list_runs(config, matches)
    assert len(runs) == arms * 3 + ablations * config.ablation_seeds
    assert runs.index(("multi-agent", 2)) < runs.index(("token-matched", 0)) < runs.index(("no-gate", 0))
