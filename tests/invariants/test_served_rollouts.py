"""A run whose dialogues are written by servers equals one that writes them itself, also when a server fails in it."""

import ast
import dataclasses
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_session import build_config, build_session
from test_external_judges import words

from comity.cli import main
from comity.config import RolloutConfig, to_plain
from comity.runs import create_run, read_metrics, read_negotiations
from comity.training import serving
from comity.training.checkpoint import read_checkpoint
from comity.training.serving import open_host
from comity.training.trainer import run_steps
from serving import BASE, serve_tiny

STEPS = 4


def served(config, servers):
    waits = {"timeout_seconds": 60.0, "token_seconds": 60.0, "probe_seconds": 0.01, "patience_seconds": 60.0}
    return dataclasses.replace(config, rollouts=RolloutConfig(servers=tuple(item.url for item in servers), **waits))


def train(config, one_by_one=False):
    """Train and return the session; `one_by_one` lets the local engine sample each request alone, as our servers do."""
    session = build_session(config)
    session = dataclasses.replace(session, host=open_host(config, session.engine))
    if one_by_one:
        session.engine.batch_tokens = 1
    create_run(config.run, to_plain(config), config.resume)
    run_steps(session)
    return session


def tensors(run):
    found = read_checkpoint(run / f"checkpoint-{STEPS}").tensors
    found.pop("random/torch")  # the servers of these tests live in the same process and make adapters with it
    return found


def stable(run):
    unstable = ("time/", "memory/", "servers/")
    return [{k: v for k, v in row.items() if not k.startswith(unstable)} for row in read_metrics(run)]


def assert_same_run(one, other):
    expected = tensors(one)
    assert tensors(other).keys() == expected.keys()
    for name, tensor in tensors(other).items():
        assert tensor.equal(expected[name]), name
    assert stable(one) == stable(other)
    for path in sorted((one / "negotiations").iterdir()):
        assert read_negotiations(other / "negotiations" / path.name) == read_negotiations(path)


@pytest.mark.parametrize("opponent", ["copy", "base", "lagged"])
def test_servers_write_the_run_that_this_process_would_write(tmp_path, tiny_folder, opponent):
    settings = {"steps": STEPS, "opponent": opponent, "opponent_lag": 2}
    train(build_config(tiny_folder, tmp_path / "local", **settings), one_by_one=True)
    with serve_tiny(tiny_folder) as one, serve_tiny(tiny_folder) as other:
        train(served(build_config(tiny_folder, tmp_path / "served", **settings), [one, other]))
        asked = {body["model"] for body in one.completions + other.completions}
        # As many policies speak as the steps have made; on the disk are those of the last step alone.
        taken = [row["loss/used_samples"] > 0 for row in read_metrics(tmp_path / "served")]
        assert len(asked - {BASE}) == 1 + sum(taken[:-1]) > 1
        assert (BASE in asked) == (opponent == "base")
        left = {path.name for path in (tmp_path / "served" / "adapters").iterdir()}
        assert left <= set(one.adapters) | set(other.adapters)
        assert len(left) <= (2 if opponent == "lagged" else 1)
    assert_same_run(tmp_path / "local", tmp_path / "served")
    rows = [row for path in sorted((tmp_path / "served" / "negotiations").iterdir()) for row in read_negotiations(path)]
    assert [row["policy_version"] for row in rows] == [version for version in range(STEPS) for _ in range(8)]


def test_a_server_that_fails_and_forgets_in_the_middle_changes_nothing(tmp_path, tiny_folder):
    train(build_config(tiny_folder, tmp_path / "local", steps=STEPS), one_by_one=True)
    with ExitStack() as stack:
        good, bad = (stack.enter_context(serve_tiny(tiny_folder)) for _ in range(2))
        bad.on_completion = lambda it: ("status", None, "amnesia", None, "broken")[len(it.completions) % 5]
        train(served(build_config(tiny_folder, tmp_path / "served", steps=STEPS), [good, bad]))
        assert good.completions
        assert bad.completions
    assert_same_run(tmp_path / "local", tmp_path / "served")
    told = read_metrics(tmp_path / "served")
    assert sum(row["servers/skipped"] for row in told) > 0
    assert sum(row["servers/readmitted"] for row in told) > 0


@pytest.mark.slow
def test_a_run_that_loses_its_servers_stops_with_one_line_and_goes_on(tmp_path, tiny_folder, capsys):
    run = tmp_path / "run"
    judges = {"judges.agreement": "comity/embedded", "judges.agency": "comity/embedded"}
    with serve_tiny(tiny_folder) as server:
        # The third step finds no server.
        server.on_completion = lambda it: it.fail("drop") if len(read_metrics(run)) == 2 else None
        settings = judges | {
            "rollouts.servers": server.url, "rollouts.token_seconds": 60, "rollouts.patience_seconds": 0,
            "save_every": 9,
        }  # fmt: skip
        assert main(words(tiny_folder, run, 3, **settings)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "rollouts.servers: none has been ready" in error
        assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
        server.on_completion = None
        server.mend()
        assert main([*words(tiny_folder, run, 3, **settings), "--resume"]) == 0
    assert len(read_metrics(run)) == 3


def test_clients_and_vllm_are_imported_only_where_they_are_wanted():
    tree = ast.parse(Path(serving.__file__).read_text(encoding="utf-8"))
    at_once = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "comity.engines.versions" in at_once
    assert not at_once & {"comity.engines.fleet", "comity.engines.server", "comity.engines.vllm"}
