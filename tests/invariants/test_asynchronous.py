"""Dialogues that are played while the policy learns: whose words they are, and how their age is corrected."""

import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_session import build_config, build_session
from test_resume import stable

from comity.cluster.speakers import LocalPolicy
from comity.config import ClusterConfig, OptimizationConfig, RolloutConfig, TrainConfig
from comity.errors import ConfigError
from comity.runs import read_metrics
from comity.training.ahead import PlayAhead
from comity.training.loss import policy_loss
from comity.training.policy import trainable_parameters
from comity.training.session import Crew, StepCrew
from comity.training.trainer import run_steps


def run_ahead(config, lag):
    """Train with a second model that speaks with copies of the policy, `lag` steps ahead."""
    session = build_session(config)

    def prepare(optimizer, _step, version):
        weights = {name: parameter.detach().clone() for name, parameter in optimizer.parameters.items()}
        speaker = LocalPolicy(config)
        speaker.install(weights, version)
        return StepCrew(speaker, session.panel)

    plays = PlayAhead(lag, config.optimization.steps)
    run_steps(replace(session, crew=Crew(prepare, session.panel), plays=plays))
    plays.close()
    return read_metrics(config.run)


def dialogues(run, step):
    return (run / f"negotiations/step-{step:06d}.jsonl").read_bytes()


def test_in_turns_a_crew_changes_nothing(tiny_folder, tmp_path):
    plain = build_config(tiny_folder, tmp_path / "plain")
    run_steps(build_session(plain))
    rows = run_ahead(build_config(tiny_folder, tmp_path / "crew"), 0)
    assert stable(rows) == stable(read_metrics(plain.run))
    assert [dialogues(tmp_path / "crew", step) for step in (1, 4)] == [dialogues(plain.run, step) for step in (1, 4)]


def test_step_two_is_spoken_by_the_first_policy_and_weighted_by_the_second(tiny_folder, tmp_path):
    rows = run_ahead(build_config(tiny_folder, tmp_path / "ahead"), 1)
    still = build_config(tiny_folder, tmp_path / "still", learning_rate=0.0)
    run_steps(build_session(still))
    plain = build_config(tiny_folder, tmp_path / "plain")
    run_steps(build_session(plain))
    # A policy that never moves says in step 2 what the first policy says there.
    assert dialogues(tmp_path / "ahead", 1) == dialogues(still.run, 1)
    early, late = dialogues(tmp_path / "ahead", 2), dialogues(still.run, 2)
    assert early == late.replace(b'"policy_version": 1', b'"policy_version": 0')
    assert early != late  # the version of the policy that spoke is told
    assert dialogues(tmp_path / "ahead", 2) != dialogues(plain.run, 2)
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1]
    # k3's estimate of the distance between the policy that spoke and the one that learns.
    assert rows[0]["mismatch/kl"] < 1e-6 < 1e-4 < rows[1]["mismatch/kl"]


def test_a_step_is_judged_with_the_policy_that_was_handed_over_for_it(tiny_folder, tmp_path):
    session = build_session(build_config(tiny_folder, tmp_path / "run", steps=3))
    prepared = {step: threading.Event() for step in range(1, 5)}
    judged = []

    def prepare(optimizer, step, version):
        prepared[step].set()

        def judge(negotiations, gated=True):
            # Not before the policy of the next step is handed over, however fast this one was played.
            assert step == 3 or prepared[step + 1].wait(60)
            spoken = {turn.completion.policy_version for item in negotiations for turn in item.turns}
            judged.append((step, version, spoken))
            return session.panel.judge(negotiations, gated)

        speaker = LocalPolicy(session.config)
        speaker.install({name: weight.detach().clone() for name, weight in optimizer.parameters.items()}, version)
        return StepCrew(speaker, SimpleNamespace(agreement=session.panel.agreement, judge=judge))

    with closing(PlayAhead(1, 3)) as plays:
        run_steps(replace(session, crew=Crew(prepare, session.panel), plays=plays))
    assert sorted(judged) == [(1, 0, {0}), (2, 0, {0}), (3, 1, {1})]


def test_a_lag_is_weighted_by_the_ratio_of_both_policies_up_to_the_cap():
    # ln p: the policy before the step -1, the older one that spoke -1.5 and -3; weights e^0.5 = 1.6487 and, cut, 2.
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    old, sampled = torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -3.0])
    settings = OptimizationConfig(importance_cap=2.0)
    output = policy_loss(logprobs, old, sampled, torch.tensor([1.0, -1.0]), settings, 2)
    # (-1.6487 x 1 + 2 x 1) / 2
    assert output.loss.item() == pytest.approx((-1.64872 + 2) / 2, abs=1e-4)
    output.loss.backward()
    # The ratio is 1 and its slope too: d/dx -(A w ratio) / 2.
    assert logprobs.grad.tolist() == pytest.approx([-1.64872 / 2, 1.0], abs=1e-4)


def test_a_lag_without_its_weight_is_refused():
    ray = ClusterConfig(kind="ray", max_staleness=1)
    assert TrainConfig(cluster=ray).cluster.max_staleness == 1
    with pytest.raises(ConfigError, match=r"cluster.max_staleness is 1, but optimization.importance_cap is 0"):
        TrainConfig(cluster=ray, optimization=OptimizationConfig(importance_cap=0))
    with pytest.raises(ConfigError, match=r"cluster.max_staleness is 1, but one process speaks and learns in turns"):
        ClusterConfig(max_staleness=1)


def test_workers_and_servers_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"cluster.kind is ray, whose workers write with models of their own"):
        TrainConfig(cluster=ClusterConfig(kind="ray"), rollouts=RolloutConfig(servers=("http://one:8000",)))


def test_the_policy_that_speaks_is_a_copy(tiny_folder, tmp_path):
    config = build_config(tiny_folder, tmp_path / "run")
    policy = LocalPolicy(config)
    before = {name: p.detach().clone() for name, p in trainable_parameters(policy.engine.model).items()}
    policy.install({name: p + 1 for name, p in before.items()}, 7)
    assert policy.engine.policy_version == 7
    assert all(torch.equal(policy.parameters[name], p + 1) for name, p in before.items())
