"""A whole plan, its price, and what the command prints."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comity.cli import main
from comity.cli.planning import count_trainers
from comity.config import (
    AccessConfig,
    ClusterConfig,
    DemoConfig,
    JudgeConfig,
    ModelConfig,
    OptimizationConfig,
    RolloutConfig,
    TrainConfig,
    load_config,
)
from comity.errors import ConfigError
from comity.judges.embedded import shipped_heads
from comity.plan.devices import custom_device, find_device
from comity.plan.plan import Expectation, adapter_rank, largest_micro_batch, make_plan, share_dialogues
from comity.plan.workload import longest_workload, mean_workload, split_step
from comity.runs import read_metrics

H100 = find_device("h100-80gb")
QWEN = TrainConfig(model=ModelConfig("Qwen/Qwen3-14B", quantization="nf4"))


def test_counts_of_a_step():
    plan = make_plan(QWEN, H100, 1, Expectation())
    # 16 dialogues: 2 rounds and an answer are 2 checks and a grade; 7 rounds are 7 checks.
    assert plan.typical.judge_calls == (32, 16)
    assert plan.longest.judge_calls == (112, 16)
    # Replies of 60 %: 16 x 0.6 x (4 x 256 + 384); all: 16 x (14 x 256 + 384).
    assert plan.typical.new_tokens == pytest.approx(16 * 0.6 * 1408)
    assert plan.longest.new_tokens == 16 * 3968
    assert plan.fits
    assert make_plan(QWEN, H100, 1, Expectation(rounds=3)).typical.judge_calls == (48, 16)


def recipe(name):
    return load_config(DemoConfig, Path("configs") / f"{name}.toml").train


def test_questions_in_place_of_dilemmas_are_what_is_planned(tmp_path):
    # 24 answers of at most 80 tokens, each graded once by the policy itself; nobody is asked about agreement.
    plan = make_plan(recipe("baseline"), find_device("cpu-2-cores"), 1, Expectation())
    assert (plan.longest.new_tokens, plan.longest.judge_calls) == (24 * 80, (0, 24))
    (tmp_path / "questions.jsonl").write_text(json.dumps({"id": "q", "question": "Why? " * 840}) + "\n")
    long = dataclasses.replace(recipe("baseline"), questions=str(tmp_path / "questions.jsonl"))
    # 4,200 characters are 1,000 tokens of 4.2.
    assert longest_workload(long).prompt_tokens > 1000 > 2 * longest_workload(recipe("baseline")).prompt_tokens


def test_a_mixed_step_is_planned_as_negotiations_and_questions():
    config = recipe("mixed")
    plan = make_plan(config, find_device("cpu-2-cores"), 1, Expectation())
    # 0.34 of 3 scenarios is one: 16 dialogues of 2 rounds and an answer, 8 answers alone.
    assert plan.typical.judge_calls == plan.longest.judge_calls == (32, 24)
    assert plan.longest.new_tokens == 16 * (4 * 48 + 80) + 8 * 80
    assert plan.typical.judge_dollars == 0
    told, alone = split_step(config)
    assert (told.solo, alone.solo, alone.questions) == (False, True, "shipped")
    assert [rows for _, rows in share_dialogues(config, 1)] == [(16, 16), (8, 8)]
    # The first of two processes has 12 of the 24, all of them negotiations.
    assert [rows for _, rows in share_dialogues(config, 2)] == [(12, 12), (0, 0)]


def test_writers_share_the_dialogues_and_processes_the_learning():
    served = dataclasses.replace(QWEN, rollouts=RolloutConfig(servers=("http://a:1", "http://b:1", "http://c:1")))
    assert [rows for _, rows in share_dialogues(served, 2)] == [(6, 8)]
    under_ray = dataclasses.replace(QWEN, cluster=ClusterConfig(kind="ray", workers=4, trainers=2))
    assert [rows for _, rows in share_dialogues(under_ray, 2)] == [(4, 8)]
    assert count_trainers(under_ray, 1) == 2
    assert make_plan(served, H100, 1, Expectation()).memory.rollout == {}


def test_embedded_judges_cost_nothing():
    assert make_plan(QWEN, H100, 1, Expectation()).typical.judge_dollars == 0


def test_the_price_of_judges_by_hand(tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text('[dollars_per_million_tokens]\n"openai/x" = { input = 10.0, output = 100.0 }\n')
    judges = JudgeConfig(agreement="openai/x", agency="comity/embedded", heldout=False, reply_tokens=500)
    config = dataclasses.replace(QWEN, judges=judges, access=AccessConfig(prices=str(prices)))
    plan = make_plan(config, H100, 1, Expectation())
    # 16 dialogues x 2 checks; 60 tokens a verdict, 10 dollars a million in and 100 out.
    tokens = sum(mean_workload(config, 2, 0.6).agreement_tokens)
    assert plan.typical.judge_dollars == pytest.approx(16 * (round(tokens) * 10 + 2 * 60 * 100) / 1e6)
    # At the longest a verdict takes all it may: 7 checks of 500 tokens.
    assert plan.longest.judge_dollars == pytest.approx(
        (round(plan.longest.judge_tokens[0] / 16) * 10 + 7 * 500 * 100) * 16 / 1e6
    )
    two = dataclasses.replace(judges, agreement="openai/x,openai/unpriced")
    assert make_plan(dataclasses.replace(config, judges=two), H100, 1, Expectation()).typical.judge_dollars is None


def test_the_price_of_doubtful_rows_and_of_who_watches(tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text('[dollars_per_million_tokens]\n"openai/x" = { input = 0.0, output = 100.0 }\n')
    judges = JudgeConfig(agency=f"head:{shipped_heads()[0].parent}+openai/x", heldout=False, ask_share=0.25)
    config = dataclasses.replace(QWEN, judges=judges, access=AccessConfig(prices=str(prices)))
    # 16 dialogues with one answer, a quarter of them passed on; 60 tokens a verdict at 100 dollars a million.
    plan = make_plan(config, H100, 1, Expectation())
    assert plan.typical.judge_dollars == pytest.approx(16 * 0.25 * 60 * 100 / 1e6)
    # Who watches reads the last round and the answer of each: 32 more.
    watched = dataclasses.replace(judges, heldout=True, heldout_judge="openai/x")
    plan = make_plan(dataclasses.replace(config, judges=watched), H100, 1, Expectation())
    assert plan.typical.judge_dollars == pytest.approx((16 * 0.25 + 32) * 60 * 100 / 1e6)


def test_a_plan_that_does_not_fit_says_what_would():
    small = custom_device(40, 300, 1500)
    plan = make_plan(QWEN, small, 1, Expectation())
    assert not plan.fits
    tokens = largest_micro_batch(plan)
    assert tokens is not None
    fitting = dataclasses.replace(QWEN, optimization=OptimizationConfig(micro_batch_tokens=tokens))
    assert make_plan(fitting, small, 1, Expectation()).fits
    larger = dataclasses.replace(QWEN, optimization=OptimizationConfig(micro_batch_tokens=tokens + 256))
    assert not make_plan(larger, small, 1, Expectation()).fits
    assert largest_micro_batch(make_plan(QWEN, custom_device(8, 300, 1500), 1, Expectation())) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "--rounds is 0: choose 1 or more"),
        ({"reply_share": 0.0}, "--reply-share is 0.0: choose a number above 0 and at most 1"),
    ],
)
def test_expectations_are_checked(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Expectation(**change)


def test_more_devices_than_dialogues_are_refused():
    with pytest.raises(ConfigError, match="--devices is 17: choose 1 to 16"):
        make_plan(QWEN, H100, 17, Expectation())


def test_the_rank_is_that_of_the_adapter_that_training_begins_with(tmp_path):
    assert adapter_rank(ModelConfig(lora_rank=5)) == 5
    assert adapter_rank(ModelConfig(adapter="warm-start")) == 16
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3}))
    assert adapter_rank(ModelConfig(adapter=str(tmp_path))) == 3
    with pytest.raises(ConfigError, match=r"adapter_config\.json cannot be read; give a PEFT folder or none"):
        adapter_rank(ModelConfig(adapter=str(tmp_path / "none")))


def test_the_command_prints_the_plan(capsys, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[model]\nname = "Qwen/Qwen3-0.6B"\n[optimization]\nsteps = 10\n')
    assert main(["plan", str(path), "--device", "a100-40gb", "--devices", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Qwen/Qwen3-0.6B: 596,049,920 parameters in bfloat16, adapter 10,092,544 (rank 16)")
    assert lines[2] == "memory of a100-40gb, each of 4, longest dialogues"
    assert any(line.startswith("  peak") and line.endswith(" GB of 40") for line in lines)
    assert any(line.split() == ["calls", "of", "the", "agreement", "judge", "32", "112"] for line in lines)
    assert lines[-1].startswith("10 typical steps: ")
    # An option wins over the file, here one that makes the plan too large.
    words = ["plan", str(path), "--memory-gb=12", "--tflops=100", "--bandwidth=500", "--optimization.steps=3"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "GB of 12: does not fit" in out
    assert "optimization.micro_batch_tokens" in out
    assert "3 typical steps" in out


def test_a_demo_has_its_plan_too(capsys):
    assert main(["plan", "configs/demo.toml", "--device", "cpu-2-cores"]) == 0
    assert "embedded: 134,515,008 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan", "the following arguments are required: CONFIG"),
        ("plan none.toml", "--config none.toml: no such file"),
        ("plan {file} --device h900", "--device 'h900' is unknown"),
        ("plan {file} --tflops 3", "--memory-gb is 0.0: choose a number above 0"),
        ("plan {file} --model.nam x", "unknown setting model.nam = 'x': did you mean model.name?"),
    ],
)
def test_a_user_error_is_one_line(capsys, tmp_path, words, message):
    (tmp_path / "run.toml").write_text("steps = 1\n".replace("steps", "seed"))
    assert main(words.format(file=tmp_path / "run.toml").split()) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.slow
def test_the_plan_holds_for_the_embedded_model(tmp_path):
    # Stated in docs/scaling.md, "The planner": the peak of memory within a factor of 1.5 either way.
    run = tmp_path / "run"
    words = [
        "train", f"--run={run}", "--model.adapter=warm-start", "--model.device=cpu", "--negotiation.rounds=1",
        "--negotiation.dialogue.max_tokens=16", "--negotiation.completion.max_tokens=16", "--optimization.steps=1",
        "--optimization.scenarios_per_step=1", "--optimization.group_size=6", "--optimization.kl_coefficient=0.01",
        "--optimization.micro_batch_tokens=1024", "--optimization.tokens=both", "--optimization.seats=both",
    ]  # fmt: skip
    # A penalty, so that every reply is learnt from. A process of its own: the peak of this one is that of all tests.
    subprocess.run([sys.executable, "-m", "comity", *words], check=True, timeout=600, capture_output=True)
    config = TrainConfig(
        model=ModelConfig(adapter="warm-start", device="cpu"),
        optimization=OptimizationConfig(
            scenarios_per_step=1,
            group_size=6,
            kl_coefficient=0.01,
            micro_batch_tokens=1024,
            tokens="both",
            seats="both",
        ),
    )
    rules = dataclasses.replace(
        config.negotiation,
        rounds=1,
        dialogue=dataclasses.replace(config.negotiation.dialogue, max_tokens=16),
        completion=dataclasses.replace(config.negotiation.completion, max_tokens=16),
    )
    plan = make_plan(dataclasses.replace(config, negotiation=rules), find_device("cpu-2-cores"), 1, Expectation())
    rows = read_metrics(run)
    assert rows[-1]["loss/used_samples"] >= 12

    assert 1 / 1.5 < plan.memory.peak / 1e9 / rows[-1]["memory/peak_gb"] < 1.5
