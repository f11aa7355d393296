"""Open-ended questions beside negotiations in one training step."""

from dataclasses import replace

import numpy as np
import pytest
from small_session import build_config, build_session

from comity.config import TrainConfig
from comity.errors import ConfigError
from comity.runs import read_negotiations
from comity.scenarios.steps import count_questions
from comity.training.summaries import summarize_rewards
from comity.training.trainer import train_step
from comity.types import Judged, Negotiation, Scenario, Verdict

QUESTIONS = [
    {"id": f"q{number}", "tier": None, "domain": "", "split": "train", "dilemma": f"What is well {number} for?"}
    for number in range(2)
]


def test_a_share_is_rounded_and_leaves_something_of_both():
    # 0.34 of 3 is 1.02; 0.1 of 2 rounds to none and is one all the same; 0.9 of 2 rounds to both and leaves one.
    assert [count_questions(*given) for given in ((3, 0.34), (2, 0.1), (2, 0.9), (3, 0.0), (1, 0.5))] == [1, 1, 1, 0, 1]


def test_a_step_plays_and_learns_from_both(tiny_folder, tmp_path):
    config = replace(build_config(tiny_folder, tmp_path), questions="shipped", question_share=0.5)
    session = replace(build_session(config), questions=QUESTIONS)
    told = [train_step(session, step) for step in (1, 2)]
    for step, metrics in enumerate(told, 1):
        rows = read_negotiations(tmp_path / "negotiations" / f"step-{step:06d}.jsonl")
        # 2 scenarios x 4 rollouts: the first is negotiated, the second answered alone.
        assert [len(row["personas"]) for row in rows] == [2] * 4 + [0] * 4
        assert {row["ending"] for row in rows[4:]} == {"answered"}
        agreed = [row["ending"] == "agreed" for row in rows[:4]]
        assert metrics["agreement/rate"] == pytest.approx(np.mean(agreed))
        assert metrics["loss/used_samples"] > 0
    first, second = (
        {row["scenario"] for row in read_negotiations(tmp_path / "negotiations" / f"step-{step:06d}.jsonl")}
        for step in (1, 2)
    )
    assert len(first | second) == 4  # each step goes on in both files


def test_answers_given_alone_are_no_agreement_beside_negotiations():
    def rollout(ending, personas, reward):
        scenario = Scenario("s", "Well?", None, personas, "train")
        verdicts = (Verdict("judge", "", reward),) if reward is not None else ()
        return Judged(Negotiation(scenario, ending=ending), verdicts, reward)

    spoken = [rollout("agreed", ("a", "b"), 2.0), rollout("no_agreement", ("a", "b"), 0.0)]
    alone = [rollout("answered", (), 1.0), rollout("answered", (), 3.0)]
    rewards, advantages = np.array([[2.0, 0.0], [1.0, 3.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])
    # One of two negotiations agreed; with the answers it would be three of four.
    assert summarize_rewards([*spoken, *alone], rewards, advantages)["agreement/rate"] == 0.5
    # Where all answer alone the old figure stays.
    assert summarize_rewards(alone, rewards[1:], advantages[1:])["agreement/rate"] == 1.0


@pytest.mark.parametrize(
    "given",
    [{"question_share": 0.5}, {"question_share": 0.5, "questions": "shipped", "solo": True}, {"question_share": 1.0}],
)
def test_a_share_that_mixes_nothing_is_refused(given):
    with pytest.raises(ConfigError, match="question_share is"):
        TrainConfig(**given)
