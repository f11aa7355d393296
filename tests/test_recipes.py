"""Every shipped configuration loads, fits the device that it names, and says what its launcher starts."""

import tomllib
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from comity.cli.planning import settings_kind
from comity.config import DemoConfig, TrainConfig, load_config
from comity.judges.named import place_judge
from comity.plan.devices import find_device
from comity.plan.plan import Expectation, make_plan

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
DEVICES = {
    "qwen3-0.6b": "rtx-4090-24gb",
    "qwen3-1.7b": "rtx-4090-24gb",
    "qwen3-4b": "a100-40gb",
    "qwen3-8b": "rtx-a6000-48gb",
    "qwen3-14b-qlora": "rtx-a6000-48gb",
    "qwen3-32b-qlora": "h100-80gb",
    "demo": "cpu-2-cores",
}
"""The device that each recipe's first line speaks of."""


def load_recipe(path):
    kind = settings_kind(path)
    config = load_config(kind, path)
    return config.train if isinstance(config, DemoConfig) else config


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem in DEVICES], ids=lambda path: path.stem)
def test_a_recipe_loads_and_fits_its_device(path):
    config = load_recipe(path)
    assert isinstance(config, TrainConfig)
    assert make_plan(config, find_device(DEVICES[path.stem]), 1, Expectation()).fits
    for judge in (config.judges.agreement, config.judges.agency):
        assert place_judge(judge) in ("embedded", "external")


def test_no_recipe_is_left_out():
    assert set(DEVICES) <= {path.stem for path in RECIPES}
    assert {path.stem for path in RECIPES if path.stem.startswith("qwen3")} <= set(DEVICES)


def test_the_recipe_of_the_paper_says_what_the_paper_says():
    config = load_recipe(ROOT / "configs" / "qwen3-14b-qlora.toml")
    assert (config.model.name, config.model.quantization, config.model.thinking) == ("Qwen/Qwen3-14B", "nf4", False)
    assert config.optimization.group_size == 8
    assert config.optimization.scenarios_per_step * config.optimization.group_size == 16
    assert config.optimization.learning_rate == 5e-6
    assert config.optimization.kl_coefficient == 0
    rules = config.negotiation
    assert (rules.rounds, rules.limit_unit, rules.window, rules.window_unit) == (7, "rounds", 2, "messages")
    assert (rules.dialogue.temperature, rules.dialogue.top_p) == (0.7, 0.95)
    assert (rules.completion.temperature, rules.completion.top_p) == (0.1, 0.95)
    assert "openai/" in tomllib.loads((ROOT / "configs/qwen3-14b-qlora.toml").read_text())["judges"]["agency"]


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes"),
    [("one-gpu", "NO", 1, 1), ("eight-gpus", "MULTI_GPU", 1, 8), ("two-nodes", "MULTI_GPU", 2, 16)],
)
def test_accelerate_reads_its_files(name, kind, machines, processes):
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == (kind, machines, processes)
    assert str(config.mixed_precision) == "no"
