"""Settings: what is refused, in which words, and who wins over whom."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.config import (
    EvaluateConfig,
    JudgeConfig,
    ModelConfig,
    NegotiationConfig,
    OptimizationConfig,
    TrainConfig,
    build,
    load_config,
    to_plain,
)
from comity.errors import ConfigError
from comity.types import Sampling


def refused(values, kind=TrainConfig):
    with pytest.raises(ConfigError) as caught:
        build(kind, values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def nested(dotted, value):
    *tables, last = dotted.split(".")
    values = {last: value}
    for table in reversed(tables):
        values = {table: values}
    return values


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sed", "seed"),
        ("optimization.group_sise", "optimization.group_size"),
        ("optimization.learningrate", "optimization.learning_rate"),
        ("negotiation.window_units", "negotiation.window_unit"),
        ("negotiation.dialogue.temprature", "negotiation.dialogue.temperature"),
        ("modle", "model"),
    ],
)
def test_an_unknown_setting_names_the_near_one(key, near):
    assert refused(nested(key, 1)) == f"unknown setting {key} = 1: did you mean {near}?"


def test_an_unknown_setting_with_nothing_near_lists_the_known_ones():
    message = refused({"negotiation": {"xyzzy": 1}})
    assert message == (
        "unknown setting negotiation.xyzzy = 1: known here: "
        "rounds, limit_unit, window, window_unit, opener, dialogue, completion"
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", "many", "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("seed", [1], "a whole number"),
        ("optimization.learning_rate", "fast", "a number"),
        ("optimization.learning_rate", True, "a number"),
        ("optimization.learning_rate", [0.1], "a number"),
        ("solo", "maybe", "true or false"),
        ("solo", 1, "true or false"),
        ("model.name", 3, "a text"),
        ("run", 3, "a path"),
        ("trackers", 3, "a list of words"),
        ("negotiation", 3, "a table [negotiation] of settings"),
        ("negotiation.dialogue", "hot", "a table [negotiation.dialogue] of settings"),
    ],
)
def test_a_wrong_type_is_named(key, value, words):
    assert refused(nested(key, value)) == f"{key} = {value!r}: expected {words}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed is -1: choose 0 or more"),
        ("save_every", 0, "save_every is 0: choose 1 or more"),
        ("negotiation.rounds", 0, "negotiation.rounds is 0: choose 1 or more"),
        ("negotiation.window", -1, "negotiation.window is -1: choose 0 or more"),
        ("negotiation.dialogue.max_tokens", 0, "negotiation.dialogue.max_tokens is 0: choose 1 or more"),
        ("negotiation.completion.temperature", -0.1, "negotiation.completion.temperature is -0.1: choose 0 or more"),
        ("negotiation.dialogue.top_p", 0, "negotiation.dialogue.top_p is 0.0: choose a number above 0 and at most 1"),
        ("negotiation.dialogue.top_p", 1.01, "negotiation.dialogue.top_p is 1.01: choose a number above 0 and at most"),
        ("negotiation.dialogue.top_p", "nan", "negotiation.dialogue.top_p is nan: choose a number above 0"),
        ("optimization.group_size", 1, "optimization.group_size is 1: choose 2 or more"),
        ("optimization.learning_rate", -1e-5, "optimization.learning_rate is -1e-05: choose 0 or more"),
        ("optimization.learning_rate", "nan", "optimization.learning_rate is nan: choose 0 or more"),
        ("optimization.micro_batch_tokens", -4096, "optimization.micro_batch_tokens is -4096: choose 64 or more"),
        ("model.lora_rank", 0, "model.lora_rank is 0: choose 1 or more"),
    ],
)
def test_a_size_out_of_range_is_named(key, value, message):
    assert refused(nested(key, value)).startswith(message)


def test_ranges_hold_for_evaluation_too():
    assert refused({"scenarios": 0}, EvaluateConfig) == "scenarios is 0: choose 1 or more"
    assert refused({"samples": -2}, EvaluateConfig) == "samples is -2: choose 1 or more"


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [
        ("model.dtype", "float8", "bfloat16, float32, float16"),
        ("model.quantization", True, "none, nf4"),
        ("negotiation.limit_unit", "turns", "rounds, messages"),
        ("negotiation.opener", 2, "0, 1"),
        ("negotiation.opener", True, "0, 1"),
        ("optimization.seats", "Policy", "policy, both"),
    ],
)
def test_a_word_outside_its_choices_is_named(key, value, choices):
    assert refused(nested(key, value)) == f"{key} = {value!r}: choose among {choices}"


def test_an_unknown_tracker_is_named():
    assert refused({"trackers": ["mlflow"]}) == "trackers has 'mlflow': choose among tensorboard, trackio, wandb"


def test_texts_from_the_command_line_become_values():
    overrides = {
        "seed": "3", "solo": "TRUE", "optimization.learning-rate": "1e-4", "negotiation.opener": "1",
        "trackers": "wandb, tensorboard", "run": "runs/x", "negotiation.dialogue.temperature": "0",
    }  # fmt: skip
    settings = load_config(TrainConfig, None, overrides)
    assert settings.seed == 3
    assert settings.solo is True
    assert settings.optimization.learning_rate == 1e-4
    assert settings.negotiation.opener == 1
    assert settings.trackers == ("wandb", "tensorboard")
    assert settings.run == Path("runs/x")
    assert settings.negotiation.dialogue.temperature == 0.0


def test_an_override_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("seed = 5\n[optimization]\nsteps = 7\ngroup_size = 4\n", encoding="utf-8")
    settings = load_config(TrainConfig, path, {"optimization.steps": 9})
    assert settings.optimization.steps == 9
    assert settings.optimization.group_size == 4
    assert settings.seed == 5
    assert settings.save_every == TrainConfig().save_every
    assert load_config(TrainConfig, path).optimization.steps == 7
    assert load_config(TrainConfig, None) == TrainConfig()


def test_a_table_that_names_one_setting_leaves_the_others_at_their_defaults(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("[negotiation.dialogue]\ntemperature = 0.0\n", encoding="utf-8")
    settings = load_config(TrainConfig, path, {"negotiation.completion.max_tokens": 99})
    assert settings.negotiation.dialogue == dataclasses.replace(NegotiationConfig().dialogue, temperature=0.0)
    assert settings.negotiation.completion == dataclasses.replace(NegotiationConfig().completion, max_tokens=99)


def test_a_setting_cannot_be_used_as_a_table(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('model = "mine"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--model.name x: model is a single setting, not a table"):
        load_config(TrainConfig, path, {"model.name": "x"})


def test_files_that_are_no_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml: no such file; give a TOML file such as"):
        load_config(TrainConfig, tmp_path / "none.toml")
    for content in (b"seed = \n", b"seed = '\xff'\n"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad.toml is not valid TOML .*: mend that place"):
            load_config(TrainConfig, tmp_path / "bad.toml")


samplings = st.builds(Sampling, st.floats(0, 2), st.floats(0.01, 1), st.integers(1, 999))
train_configs = st.builds(
    TrainConfig,
    run=st.sampled_from(["runs/a", "/tmp/b c"]).map(Path),
    seed=st.integers(0, 2**62),
    solo=st.booleans(),
    trackers=st.lists(st.sampled_from(["tensorboard", "trackio", "wandb"])).map(tuple),
    model=st.builds(ModelConfig, dtype=st.sampled_from(["bfloat16", "float32"]), thinking=st.booleans()),
    negotiation=st.builds(
        NegotiationConfig,
        rounds=st.integers(1, 9),
        opener=st.sampled_from([0, 1]),
        dialogue=samplings,
        completion=samplings,
    ),
    judges=st.builds(JudgeConfig, copy_limit=st.floats(0.01, 1)),
    optimization=st.builds(OptimizationConfig, learning_rate=st.floats(0.01, 1), tokens=st.sampled_from(["both"])),
)


@given(train_configs)
def test_settings_survive_the_way_to_plain_values_and_back(settings):
    assert build(TrainConfig, to_plain(settings)) == settings


def test_plain_values_are_json_values():
    def check(value):
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert value is None or type(value) in (str, int, float, bool)

    check(to_plain(TrainConfig(trackers=("wandb",))))
    check(to_plain(EvaluateConfig()))
