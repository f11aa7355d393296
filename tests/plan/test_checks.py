"""A dry run finds what a run would stumble over, writes nothing, and ends like any other error."""

import os
import sys
from dataclasses import replace

import pytest

from comity.cli import main
from comity.config import ClusterConfig, JudgeConfig, ModelConfig, RolloutConfig, TrainConfig, to_plain
from comity.engines.local import LocalEngine
from comity.errors import ComityError
from comity.plan.checks import check_training
from comity.runs import create_run
from comity.training.serving import open_host

NAMES = [
    "dilemmas", "personas", "questions", "model", "chat template", "adapter", "device", "rollouts", "judges",
    "run directory", "trackers", "launcher", "cluster",
]  # fmt: skip


@pytest.fixture
def config(tiny_folder, tmp_path):
    return TrainConfig(run=tmp_path / "run", model=ModelConfig(str(tiny_folder), device="cpu"))


def outcomes(config):
    return {check.name: check for check in check_training(config)}


def test_a_sound_configuration_passes_and_leaves_nothing_behind(config, tmp_path):
    found = outcomes(config)
    assert list(found) == NAMES
    assert all(check.passed for check in found.values()), found
    assert found["dilemmas"].detail.endswith("of the split train in shipped")
    # The tiny model's template opens with a system message: more than the 1 token of "?".
    assert int(found["chat template"].detail.split()[0]) > 10
    assert found["judges"].detail == "comity/embedded (embedded)"
    assert found["rollouts"].detail == "this process"
    assert found["launcher"].detail == "none: one process"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dilemmas", {"dilemmas": "none.jsonl"}, "none.jsonl: cannot be read"),
        ("personas", {"personas": "none.jsonl"}, "none.jsonl: cannot be read"),
        ("questions", {"questions": "none.jsonl", "question_share": 0.5}, "none.jsonl: cannot be read"),
        ("questions", {"questions": "none.jsonl", "solo": True}, "none.jsonl: cannot be read"),
        ("model", {"model": ModelConfig("nobody/nothing")}, "model.name 'nobody/nothing' has no configuration"),
        ("adapter", {"model": ModelConfig(adapter="none-there")}, "adapter none-there has no adapter_config.json"),
        ("device", {"model": ModelConfig(device="cuda:99")}, "model.device 'cuda:99' cannot be used"),
        ("judges", {"judges": JudgeConfig(agency="comity/other")}, "judge 'comity/other' is unknown"),
        ("judges", {"judges": JudgeConfig(agency="nobody/judge")}, "'nobody/judge' has no configuration in reach"),
    ],
)
def test_a_problem_is_found_by_its_check_and_the_others_go_on(config, name, changes, message):
    found = outcomes(replace(config, **changes))
    assert list(found) == NAMES
    assert not found[name].passed
    assert message in found[name].detail
    assert "\n" not in found[name].detail
    assert found["trackers"].passed


def test_questions_in_place_of_dilemmas_leave_the_dilemmas_unread(config):
    found = outcomes(replace(config, dilemmas="none.jsonl", questions="shipped", solo=True))
    assert found["dilemmas"].detail == "not read: the questions stand in their place"
    assert found["questions"].detail.endswith("in shipped, in place of dilemmas")
    mixed = outcomes(replace(config, questions="shipped", question_share=0.5))
    assert mixed["questions"].detail.endswith("in shipped, 1 of a step's 2")


@pytest.mark.parametrize(
    ("rollouts", "package", "message"),
    [
        (RolloutConfig(engine="vllm"), "vllm", "rollouts.engine vllm needs vLLM, which is not installed"),
        (RolloutConfig(servers=("http://here:1",)), "aiohttp", "rollouts.servers needs aiohttp, which is not"),
    ],
)
def test_what_the_run_refuses_about_its_writers_the_dry_run_does_too(config, monkeypatch, rollouts, package, message):
    monkeypatch.setitem(sys.modules, package, None)  # so it looks to Python where it is not installed
    refused = replace(config, rollouts=rollouts)
    found = outcomes(refused)["rollouts"]
    assert not found.passed
    assert message in found.detail
    with pytest.raises(ComityError, match=message):
        open_host(refused, LocalEngine(None, None))


def test_servers_are_counted_and_not_reached(config):
    served = replace(config, rollouts=RolloutConfig(servers=("http://here:1", "http://there:1")))
    assert outcomes(served)["rollouts"].detail == "2 vLLM servers, which are not reached for this"


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "asks for DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, {}, "asks for FSDP of version 1"),
        ({}, {"cluster": ClusterConfig(kind="ray")}, "without a launcher"),
        ({"WORLD_SIZE": "17"}, {}, "is less than the 17 processes"),
    ],
)
def test_what_the_run_refuses_of_a_launcher_the_dry_run_does_too(config, monkeypatch, environment, changes, message):
    for name, value in ({"WORLD_SIZE": "2"} | environment).items():
        monkeypatch.setenv(name, value)
    found = outcomes(replace(config, **changes))["launcher"]
    assert not found.passed
    assert message in found.detail


def test_a_launcher_is_described(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert outcomes(config)["launcher"].detail == "2 processes"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert outcomes(config)["launcher"].detail == "2 processes, each with a part of the base"


def test_a_judge_behind_an_address_is_opened_but_not_asked(config, tmp_path, monkeypatch):
    pytest.importorskip("inspect_ai")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judged = replace(config, judges=JudgeConfig(agreement="openai/gpt-4.1-mini", agency="openai/gpt-4.1-mini"))
    found = outcomes(judged)["judges"]
    assert not found.passed
    assert "OPENAI_API_KEY" in found.detail
    monkeypatch.setenv("OPENAI_API_KEY", "not a key")
    found = outcomes(judged)["judges"]
    assert found.passed
    assert found.detail == "openai/gpt-4.1-mini (external), comity/embedded (embedded)"  # who watches
    assert list(tmp_path.iterdir()) == []  # no ledger either


def test_a_run_that_exists_is_seen(config):
    create_run(config.run, to_plain(config), resume=False)
    found = outcomes(config)["run directory"]
    assert not found.passed
    assert "add --resume to continue it" in found.detail
    assert outcomes(replace(config, resume=True))["run directory"].detail.endswith("is continued")
    other = outcomes(replace(config, resume=True, seed=3))["run directory"]
    assert "was started with another seed" in other.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_seen(config, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    found = outcomes(replace(config, run=tmp_path / "closed" / "run"))["run directory"]
    assert "cannot be written" in found.detail


def test_a_file_in_the_place_of_the_run_is_seen(config, tmp_path):
    (tmp_path / "file").touch()
    found = outcomes(replace(config, run=tmp_path / "file" / "run"))["run directory"]
    assert not found.passed


def test_the_command_prints_checks_and_plan(capsys, tiny_folder, tmp_path):
    words = ["train", "--dry-run", f"--run={tmp_path / 'run'}", f"--model.name={tiny_folder}", "--model.device=cpu"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("ok       ") == len(NAMES)
    assert "memory of cpu-2-cores, longest dialogues" in out
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_first_problem(capsys, tiny_folder, tmp_path):
    words = ["train", "--dry-run", f"--run={tmp_path / 'run'}", f"--model.name={tiny_folder}", "--model.device=cpu"]
    assert main([*words, "--judges.agency=comity/other", "--personas=none.jsonl"]) == 2
    out, err = capsys.readouterr()
    assert out.count("PROBLEM  ") == 2
    assert err.startswith("comity: error: 2 checks failed, the first is personas: none.jsonl: cannot be read")
    assert err.count("\n") == 1


def test_a_cluster_is_described_and_not_reached(config):
    ray = replace(config, cluster=ClusterConfig(kind="ray", address="far:6379", trainers=2, workers=3))
    assert outcomes(ray)["cluster"].detail == (
        "2 trainers, 3 rollout workers and 1 judges under Ray at far:6379, which is not reached for this"
    )
    assert outcomes(ray)["rollouts"].detail == "the rollout workers"
    # Whether they have vLLM is not to be seen from here, where it is not installed.
    vllm = outcomes(replace(ray, rollouts=RolloutConfig(engine="vllm")))["rollouts"]
    assert (vllm.passed, vllm.detail) == (True, "vLLM in the rollout workers")
    many = replace(config, cluster=ClusterConfig(kind="ray", trainers=17))  # 2 scenarios x 8 rollouts a step
    assert "is less than the 17 processes" in outcomes(many)["cluster"].detail
