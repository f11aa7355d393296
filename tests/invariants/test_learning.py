"""The whole loop learns: the share of rollouts that a scripted judge rewards rises within a few dozen steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_session import build_config, build_session, judge_agency

from comity.config import NegotiationConfig
from comity.training.policy import trainable_parameters
from comity.training.trainer import train_step
from comity.types import Sampling, Verdict

STEPS = 30


def share_of_a(text):
    return sum(letter in "aA" for letter in text) / max(len(text), 1)


def say_a(endings):
    """Agree when at least 1 character in 12 of the policy's message is an a: the reward reaches its words only so."""
    scores = [float(share_of_a(item.message_a) >= 1 / 12) for item in endings]
    return [Verdict("say a", "", score, agreed=score > 0) for score in scores]


def score_three(answers):
    return [Verdict("three", "", 3.0) for _ in answers]


def score_a(answers):
    return [Verdict("share of a", "", 5 * share_of_a(item.answer)) for item in answers]


def play_config(folder, run, **changes):
    sampling = Sampling(1.0, 1.0, 12)
    config = build_config(folder, run, STEPS, learning_rate=2e-2, scenarios_per_step=2, group_size=8)
    return replace(config, negotiation=NegotiationConfig(rounds=1, dialogue=sampling, completion=sampling), **changes)


def rewards_of(session):
    return [train_step(session, step)["reward/mean"] for step in range(1, STEPS + 1)]


def test_policy_learns_from_agreement_through_its_own_messages(tiny_folder, tmp_path):
    session = build_session(play_config(tiny_folder, tmp_path), agreement=say_a, agency=score_three)
    rewards = rewards_of(session)
    # The reward is 0 or 3.
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 1.0, rewards


def test_solo_policy_learns_from_its_score(tiny_folder, tmp_path):
    session = build_session(play_config(tiny_folder, tmp_path, solo=True), agency=score_a)
    rewards = rewards_of(session)
    assert np.mean(rewards[-3:]) > 3 * np.mean(rewards[:3]), rewards


def test_nothing_is_learnt_without_spread(tiny_folder, tmp_path):
    session = build_session(play_config(tiny_folder, tmp_path), agency=score_three, agreement=never)
    before = {name: p.detach().clone() for name, p in trainable_parameters(session.model).items()}
    metrics = [train_step(session, step) for step in (1, 2)]
    assert [row["reward/mean"] for row in metrics] == [0.0, 0.0]
    assert [row["zero/flat_groups"] for row in metrics] == [1.0, 1.0]
    assert all(torch.equal(p, before[name]) for name, p in trainable_parameters(session.model).items())


def never(endings):
    return [Verdict("never", "", 0.0, agreed=False) for _ in endings]


def test_failed_judge_leaves_its_rollouts_out(tiny_folder, tmp_path):
    def fail_on_first(answers):
        _, *rest = judge_agency(answers)
        return [Verdict("failed", "", None), *rest]

    def always(endings):
        return [Verdict("always", "", 1.0, agreed=True) for _ in endings]

    session = build_session(build_config(tiny_folder, tmp_path), agreement=always, agency=fail_on_first)
    metrics = train_step(session, 1)
    # One of 2 x 4 rollouts is unscored: its single policy message carries no loss, so 7 samples are left at most.
    assert metrics["unscored/share"] == pytest.approx(1 / 8)
    assert metrics["loss/used_samples"] <= 7
