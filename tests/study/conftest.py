"""Recipes of the tiny model for studies that take seconds."""

import json

import pytest

from comity.config import EvaluateConfig, StudyConfig
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


@pytest.fixture
def build_study(recipes):
    def build(**changes):
        return make_study(recipes, **changes)

    return build


def make_study(folder, **changes):
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
