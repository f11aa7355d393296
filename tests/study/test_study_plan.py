"""What a study trains and compares, by hand."""

import dataclasses

import pytest

from comity.config import DemoConfig, StudyConfig, load_config
from comity.errors import ConfigError
from comity.study.plan import (
    is_trained,
    list_names,
    list_runs,
    load_recipes,
    parse_matches,
    plan_ability,
    plan_ablations,
    plan_curves,
    plan_evaluation,
    plan_run,
)
from comity.study.run import run_study


def test_a_run_is_trained_when_its_steps_or_its_tokens_are_spent(build_study):
    config = build_study(seeds=1)
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


def test_bad_arms_are_named_before_anything_is_trained(build_study, recipes, tmp_path):
    multi = recipes / "multi.toml"
    for bad in ("multi", "=x", f"base={multi}"):
        with pytest.raises(ConfigError, match="arms has"):
            load_recipes(build_study(arms=(bad,)))
    with pytest.raises(ConfigError, match="no such file"):
        load_recipes(build_study(arms=("a=nowhere.toml",)))
    (tmp_path / "other.toml").write_text('extends = "multi.toml"\n[train.model]\nlora_rank = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="begin with different models"):
        load_recipes(build_study(arms=(f"a={multi}", f"b={tmp_path / 'other.toml'}")))
    with pytest.raises(ConfigError, match="single is 'other', which is no arm"):
        load_recipes(build_study(single="other"))
    with pytest.raises(ConfigError, match="ablations has"):
        load_recipes(build_study(ablations=(f"solo={multi}",), ablation_seeds=1))
    with pytest.raises(ConfigError, match="ablation_seeds is 3, but the arm that they meet has 2"):
        build_study(ablations=(f"x={multi}",))
    with pytest.raises(ConfigError, match=r"notes is 'nowhere\.md', which is no file"):
        run_study(build_study(notes="nowhere.md"))
    arms = ("a", "b", "c")
    for words in (["a"], ["a:z"], ["a:a"]):
        with pytest.raises(ConfigError, match="match_tokens has"):
            parse_matches(words, arms)
    with pytest.raises(ConfigError, match="matches another"):
        parse_matches(["a:b", "b:c"], arms)
    assert parse_matches(["a:b", "c:b"], arms) == {"a": "b", "c": "b"}


@pytest.mark.parametrize(("name", "arms", "ablations"), [("study", 5, 10), ("study-small", 3, 4)])
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


def make_checkpoint(run, step):
    (run / f"checkpoint-{step}").mkdir(parents=True)
    (run / f"checkpoint-{step}" / "state.json").write_text("{}", encoding="utf-8")


def test_each_comparison_has_its_models_and_tasks(build_study, recipes):
    ablations = (f"bare={recipes / 'multi.toml'}",)
    config = build_study(ablations=ablations, ablation_seeds=1, curve_every=2, curve_tasks=7)
    for name, seed in list_runs(config, {"solo": "multi"}):
        for step in (2, 4):
            make_checkpoint(config.run / f"{name}-seed-{seed}", step)
    evaluation = plan_evaluation(config, load_recipes(config))
    assert list_names(evaluation.models) == ["base", "multi-seed-0", "multi-seed-1", "solo-seed-0", "solo-seed-1"]
    assert evaluation.models[1] == f"multi-seed-0={config.run / 'multi-seed-0' / 'checkpoint-4'}"
    assert list_names(plan_ability(config, evaluation).models) == ["base", "multi-seed-0", "multi-seed-1"]
    changed = plan_ablations(config, evaluation)
    # One seed of the ablation meets the same seed of the arm that it changes, in the folder that holds its dialogues.
    assert list_names(changed.models) == ["base", "multi-seed-0", "bare-seed-0"]
    assert (changed.out, changed.open_ended, changed.decoding) == (evaluation.out, "none", ("sampled",))
    curves = plan_curves(config, evaluation)
    assert list_names(curves.models) == ["base", "multi-step-2", "multi-step-4", "solo-step-2", "solo-step-4"]
    assert (curves.out.name, curves.limit) == ("curves", 7)


def test_the_size_of_a_study_holds_for_all_but_token_matched_runs(build_study, recipes):
    config = build_study(steps=3, scenarios_per_step=4, curve_every=2)
    loaded = load_recipes(config)
    assert [(r.optimization.steps, r.optimization.scenarios_per_step) for r in loaded.values()] == [(3, 4), (50, 4)]
    kept = [plan_run(config, loaded, "multi", seed, {}) for seed in (0, 1)]
    # Seed 0 keeps every second checkpoint for its curve; seed 1 does as its recipe says.
    assert [(run.save_every, run.keep_checkpoints) for run in kept] == [(2, 1_000_000), (1, 2)]
