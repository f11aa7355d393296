"""The recipes in configs/: each loads, and each ablation changes one thing."""

import re
from pathlib import Path

import pytest

from comity.config import DemoConfig, load_config, to_plain
from comity.errors import ConfigError

CONFIGS = Path(__file__).parent.parent / "configs"
ABLATIONS = {
    "completion-tokens": {"train.optimization.tokens": "completion"},
    "both-tokens": {"train.optimization.tokens": "both"},
    "both-seats": {"train.optimization.seats": "both"},
    "neutral-personas": {"train.personas_relation": "neutral"},
    "same-personas": {"train.personas_relation": "same"},
    "whole-dialogue": {"train.negotiation.window": 0},
    "unscaled-advantages": {"train.optimization.advantage_scale": "none"},
    "no-gate": {"train.optimization.agreement_gate": False},
    "base-opponent": {"train.optimization.opponent": "base"},
    "lagged-opponent": {"train.optimization.opponent": "lagged"},
}


def flatten(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences(name, base="demo"):
    """Return what a recipe sets otherwise than another one, apart from where the run lies."""
    first, second = (dict(flatten(to_plain(load_config(DemoConfig, CONFIGS / f"{n}.toml")))) for n in (base, name))
    return {key: value for key, value in second.items() if first[key] != value and key != "run"}


def test_each_ablation_differs_from_the_demo_in_one_thing():
    assert {path.stem for path in (CONFIGS / "ablations").glob("*.toml")} == set(ABLATIONS)
    for name, expected in ABLATIONS.items():
        assert differences(f"ablations/{name}") == expected


def test_each_recipe_has_a_run_of_its_own():
    recipes = [
        *CONFIGS.glob("ablations/*.toml"),
        *(CONFIGS / f"{name}.toml" for name in BASELINES),
        CONFIGS / "demo.toml",
    ]
    runs = [load_config(DemoConfig, path).run for path in recipes]
    assert len(set(runs)) == len(recipes)


BASELINES = ("baseline", "baseline-external", "baseline-token-matched", "mixed")


def test_the_baseline_is_the_single_agent_recipe():
    assert differences("baseline") == {
        "train.solo": True,
        "train.questions": "shipped",
        "train.judges.agency": "self",
        "train.judges.local_scores": "expected",
        "train.negotiation.completion.temperature": 1.0,
        "train.negotiation.completion.top_p": 1.0,
        "train.optimization.kl_coefficient": 0.04,
    }
    assert differences("baseline-external", "baseline") == {"train.judges.agency": "comity/embedded"}
    assert differences("mixed") == {
        "train.questions": "shipped",
        "train.question_share": 0.34,
        "train.negotiation.completion.temperature": 0.7,
    }
    matched = differences("baseline-token-matched", "baseline-external")
    assert set(matched) == {"train.optimization.token_budget", "train.optimization.steps"}


def test_a_file_extends_another_deeply(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.toml").write_text("samples = 5\n[train]\nseed = 3\n[train.optimization]\nsteps = 7\n")
    (tmp_path / "deep" / "top.toml").write_text('extends = "../base.toml"\n[train.optimization]\ngroup_size = 4\n')
    config = load_config(DemoConfig, tmp_path / "deep" / "top.toml", {"train.seed": 9})
    assert (config.samples, config.train.seed) == (5, 9)
    assert (config.train.optimization.steps, config.train.optimization.group_size) == (7, 4)


def test_files_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(ConfigError, match=re.escape("extends itself")):
        load_config(DemoConfig, tmp_path / "a.toml")
    (tmp_path / "c.toml").write_text('extends = "nowhere.toml"\n')
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load_config(DemoConfig, tmp_path / "c.toml")
