"""Judges and adapters of the tiny model for tests that play dialogues."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from comity.config import JudgeConfig
from comity.engines.models import load_model
from parrot import save_parrot


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    agreement, agency = save_parrot(folder / "yes", "YES"), save_parrot(folder / "three", "3")
    return JudgeConfig(agreement=str(agreement), agency=str(agency), heldout=False)


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    return save_adapter(tiny_folder, tmp_path_factory.mktemp("adapter"), 1)


@pytest.fixture(scope="module")
def other_adapter(tiny_folder, tmp_path_factory):
    """Return an adapter of another rank that sits on fewer layers."""
    return save_adapter(tiny_folder, tmp_path_factory.mktemp("other"), 2, r=2, target_modules=["q_proj", "v_proj"])


def save_adapter(model, folder, seed, r=4, target_modules="all-linear"):
    """Write an adapter with random weights for the tiny model and return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lora = LoraConfig(r=r, target_modules=target_modules, task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = get_peft_model(load_model(str(model), "float32"), lora)
    adapted.save_pretrained(folder)
    return folder
