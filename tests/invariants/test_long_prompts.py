"""A prompt longer than the context of who writes leaves its own dialogues unscored, at every host alike."""

import dataclasses
from contextlib import contextmanager

import pytest
from small_session import DILEMMAS, build_config, build_session

import tiny_vllm
from comity.config import JudgeConfig, RolloutConfig, to_plain
from comity.engines.vllm import VllmEngine
from comity.runs import create_run, read_metrics, read_negotiations
from comity.training.serving import open_host
from comity.training.trainer import run_steps
from serving import serve_tiny

CONTEXT = 400
LONG = DILEMMAS[1] | {"dilemma": "The well gives two pails and the field needs three. " * 40}


@contextmanager
def open_fleet(config, folder, engine):
    with serve_tiny(folder, context=CONTEXT) as server:
        waits = {"timeout_seconds": 60.0, "token_seconds": 60.0, "probe_seconds": 0.01, "patience_seconds": 60.0}
        rollouts = RolloutConfig(servers=(server.url,), **waits)
        yield open_host(dataclasses.replace(config, rollouts=rollouts), engine)


@contextmanager
def open_vllm(_config, folder, engine):
    yield VllmEngine(engine, tiny_vllm.TinyVllm(folder, CONTEXT), merges=True)


@pytest.fixture(params=[open_fleet, open_vllm], ids=["servers", "in this process"])
def trained(request, tiny_folder, tmp_path, monkeypatch):
    """Return the folder of a run of two steps, in each of which one of two scenarios is too long."""
    tiny_vllm.install(monkeypatch)
    config = dataclasses.replace(
        build_config(tiny_folder, tmp_path / "run", steps=2), judges=JudgeConfig(max_unscored_share=0.5)
    )
    session = dataclasses.replace(build_session(config), dilemmas=[DILEMMAS[0], LONG])
    create_run(config.run, to_plain(config), resume=False)
    with request.param(config, tiny_folder, session.engine) as host:
        run_steps(dataclasses.replace(session, host=host))
    return config.run


def test_only_the_dialogues_of_a_prompt_that_is_too_long_are_unscored(trained):
    for step in (1, 2):
        rows = read_negotiations(trained / f"negotiations/step-{step:06d}.jsonl")
        for row in rows:
            is_long = row["dilemma"] == LONG["dilemma"]
            assert (row["ending"] == "failed") == is_long
            assert (row["reward"] is None) == is_long
        assert len(rows) == 8
    told = read_metrics(trained)
    assert [row["unscored/share"] for row in told] == [0.5, 0.5]
    assert all(row.get("servers/refused", row.get("vllm/refused")) == 4 for row in told)
    assert all(row["loss/used_samples"] > 0 for row in told)
