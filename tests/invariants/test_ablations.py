"""Each setting of an ablation does what it says, on the tiny model."""

import dataclasses

import numpy as np
import pytest
import torch
from small_session import DILEMMAS, PAIRS, build_config, build_session

from comity.config import JudgeConfig, ModelConfig, OptimizationConfig, TrainConfig, to_plain
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.versions import PolicyVersion
from comity.errors import ConfigError, RunError
from comity.judges.panel import Panel, build_panel
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.prompts import fill
from comity.runs import create_run, read_metrics, read_negotiations
from comity.scenarios.load import draw_scenarios, load_questions, relate_personas
from comity.scenarios.tasks import load_task_scenarios
from comity.training.checkpoint import list_checkpoints, read_checkpoint, restore, save_checkpoint
from comity.training.opponent import BASE_VERSION, renew_opponent, seat_players
from comity.training.policy import PolicyOptimizer, trainable_parameters
from comity.training.serving import hand_over
from comity.training.trainer import run_steps, train_step
from comity.types import Answer, Completion, Request, Sampling, Verdict

SEAT_0, SEAT_1 = (
    Request(seat, ({"role": "user", "content": "The well is low."},), Sampling(1.0, 1.0, 12), 5)
    for seat in ("seat_0", "seat_1")
)


def move(model, seed):
    """Give the adapter other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def say(responder):
    """Return what both seats say to the same chat with the same seed."""
    return tuple(reply.text for reply in responder([SEAT_0, SEAT_1]))


def versions(responder):
    """Return whom the words of both seats are said to be of."""
    return tuple(reply.policy_version for reply in responder([SEAT_0, SEAT_1]))


@pytest.fixture
def session(tiny_folder, tmp_path):
    def build(**optimization):
        return build_session(build_config(tiny_folder, tmp_path / "run", **optimization))

    return build


def test_a_copy_speaks_in_both_seats(session):
    it = session()
    move(it.model, 1)
    players = seat_players(it.engine, it.optimizer, 8, 7)
    first, second = say(players)
    assert first == second
    assert versions(players) == (7, 7)


def test_a_base_opponent_speaks_without_the_adapter(session, tiny_folder):
    it = session(opponent="base")
    base = LocalEngine(load_model(str(tiny_folder), "float32"), load_tokenizer(str(tiny_folder)))
    move(it.model, 1)
    policy, _ = say(it.engine)
    plain, _ = say(base)
    players = seat_players(it.engine, it.optimizer, 8, 7)
    assert say(players) == (policy, plain)
    assert versions(players) == (7, BASE_VERSION)
    assert policy != plain
    assert trainable_parameters(it.model).keys() == it.optimizer.parameters.keys()  # still to be trained


def test_a_lagged_opponent_is_the_policy_of_the_last_renewal(session):
    it = session(opponent="lagged", opponent_lag=2)
    said, written = {}, []
    for step in (1, 2, 3, 4):
        move(it.model, step)
        before = {name: weight.clone() for name, weight in trainable_parameters(it.model).items()}
        players = seat_players(it.engine, it.optimizer, step, step - 1)
        said[step] = say(players)
        written.append(versions(players))
        assert all(torch.equal(before[name], weight) for name, weight in trainable_parameters(it.model).items())
    assert said[1][0] == said[1][1]  # renewed before step 1
    assert said[2] == (said[2][0], said[1][0])
    assert said[2][0] != said[1][0]
    assert said[3][0] == said[3][1] != said[1][0]  # renewed before step 3
    assert said[4][1] == said[3][0]
    assert written == [(0, 0), (1, 0), (2, 2), (3, 2)]


def test_every_way_to_play_renews_the_opponent_at_once_and_stamps_it_alike(session, tmp_path):
    class Keeper:
        """A host that keeps nothing but the number of what it takes."""

        def take(self, _model, _root, version):
            return PolicyVersion(version, "kept")

    told = {}
    for opponent in ("copy", "base", "lagged"):
        for way in ("here", "host"):
            it, found = session(opponent=opponent, opponent_lag=3), []
            for step in range(1, 6):
                if way == "here":
                    found.append(versions(seat_players(it.engine, it.optimizer, step, step - 1)))
                else:
                    speakers = hand_over(Keeper(), it.model, it.optimizer, it.config, step)
                    found.append((speakers.policy.number, speakers.opponent.number))
            told[opponent, way] = found
        assert told[opponent, "here"] == told[opponent, "host"]
    assert [theirs for _, theirs in told["copy", "here"]] == [0, 1, 2, 3, 4]
    assert [theirs for _, theirs in told["base", "here"]] == [0] * 5
    assert [theirs for _, theirs in told["lagged", "here"]] == [0, 0, 0, 3, 3]  # renewed before steps 1 and 4


def test_a_policy_that_is_played_ahead_stamps_the_opponent_with_its_own_version(session):
    # Two steps ahead: steps 1 to 3 are begun with policy 0, then step n with policy n - 3. Renewed before 1, 3 and 5.
    it = session(opponent="lagged", opponent_lag=2)
    assert [renew_opponent(it.optimizer, step, max(step - 3, 0)) for step in range(1, 7)] == [0, 0, 0, 0, 2, 2]


def test_a_lagged_opponent_survives_a_resume(tiny_folder, tmp_path):
    def run(place, steps, resume=False):
        config = build_config(tiny_folder, tmp_path / place, steps, resume, opponent="lagged", opponent_lag=3)
        create_run(config.run, to_plain(config), resume)
        it = build_session(config)
        run_steps(it)
        return it

    whole = run("whole", 4)
    run("halves", 2)  # between the renewals before steps 1 and 4
    halves = run("halves", 4, resume=True)
    for name, weight in whole.optimizer.masters.items():
        assert torch.equal(weight, halves.optimizer.masters[name]), name
        assert torch.equal(whole.optimizer.lagged[name], halves.optimizer.lagged[name]), name
    for step in (3, 4):  # the first after the resume, and the first after a renewal
        name = f"negotiations/step-{step:06d}.jsonl"
        assert read_negotiations(whole.config.run / name) == read_negotiations(halves.config.run / name)
    run("more", 2)
    assert run("more", 3, resume=True).optimizer.lagged_version == 0
    assert halves.optimizer.lagged_version == whole.optimizer.lagged_version == 3


def test_a_checkpoint_without_the_lagged_opponent_is_refused(session, tmp_path):
    it = session()
    path = save_checkpoint(tmp_path / "run", 1, it.model, it.optimizer, keep=1)
    other = PolicyOptimizer.create(it.model, OptimizationConfig(opponent="lagged"))
    with pytest.raises(RunError, match="no lagged opponent"):
        restore(read_checkpoint(path), other)


def test_messages_of_another_policy_are_never_trained_on():
    with pytest.raises(ConfigError, match="seats is both, but opponent 'base'"):
        OptimizationConfig(seats="both", opponent="base")


def refuse(endings):
    return [Verdict("plain function", "", 0.0, agreed=False) for _ in endings]


def count_letters(answers):
    return [Verdict("plain function", "", float(len(item.answer) % 6)) for item in answers]


@pytest.mark.parametrize("gate", [True, False])
def test_without_the_gate_an_answer_without_agreement_earns_its_score(tiny_folder, tmp_path, gate):
    config = build_config(tiny_folder, tmp_path / "run", agreement_gate=gate)
    it = build_session(config, agreement=refuse, agency=count_letters)
    train_step(it, 1)
    rows = read_negotiations(config.run / "negotiations" / "step-000001.jsonl")
    assert {row["ending"] for row in rows} == {"no_agreement"}
    if gate:
        assert {(row["reward"], row["completion"]) for row in rows} == {(0.0, None)}
    else:
        assert [row["reward"] for row in rows] == [len(row["completion"]) % 6 for row in rows]
        assert len({row["reward"] for row in rows}) > 1


def test_the_gate_of_an_evaluation_stays_shut():
    panel = Panel(refuse, count_letters)
    scenario = draw_scenarios(DILEMMAS, PAIRS, 0, 1, 0)[0]
    rules = build_config("m", "r").negotiation
    (ended,) = play([start(scenario)], rules, lambda asked: [Completion("word")] * len(asked), refuse, 0, True)
    assert panel.judge([ended])[0].reward == 0.0
    assert panel.judge([ended], gated=False)[0].reward == 4.0


def test_relations_of_personas():
    assert relate_personas(PAIRS, "opposing") == PAIRS
    same = relate_personas(PAIRS, "same")
    assert [(row["id"], row["persona_a"], row["persona_b"]) for row in same] == [
        ("p0-a", "Save 0 coins.", "Save 0 coins."), ("p0-b", "Do it well.", "Do it well."),
        ("p1-a", "Save 1 coins.", "Save 1 coins."), ("p1-b", "Do it well.", "Do it well."),
    ]  # fmt: skip
    for relation in ("same", "neutral"):
        for scenario in draw_scenarios(DILEMMAS, relate_personas(PAIRS, relation), 0, 6, seed=0):
            first, second = scenario.personas
            assert first.objective == second.objective
    neutral = draw_scenarios(DILEMMAS, relate_personas(PAIRS, "neutral"), 0, 6, seed=0)
    assert {scenario.personas[0].objective for scenario in neutral} == {
        "You have no stake of your own in the matter. You want it settled well."
    }


def test_a_budget_of_tokens_ends_training_early_and_can_be_raised(tiny_folder, tmp_path):
    config = build_config(tiny_folder, tmp_path / "run", steps=9, token_budget=1)
    create_run(config.run, to_plain(config), False)
    run_steps(build_session(config))
    (row,) = read_metrics(config.run)
    # 8 rollouts of two messages, at most 8 tokens each, and an answer of at most 8 for those that agreed.
    assert 8 * 2 <= row["sampled/tokens"] <= 8 * 3 * 8
    assert [path.name for path in list_checkpoints(config.run)] == ["checkpoint-1"]
    more = dataclasses.replace(config, resume=True, optimization=dataclasses.replace(
        config.optimization, token_budget=int(row["sampled/tokens"]) + 1))  # fmt: skip
    create_run(more.run, to_plain(more), True)
    run_steps(build_session(more))
    assert [row["step"] for row in read_metrics(config.run)] == [1.0, 2.0]
    assert list_checkpoints(config.run)[-1].name == "checkpoint-2"
    run_steps(build_session(more))  # the budget is spent: nothing more is played
    assert len(read_metrics(config.run)) == 2


def test_the_policy_rewards_itself():
    asked = []

    def policy(requests):
        asked.extend(requests)
        return [Completion("4\nGood.") for _ in requests]

    with pytest.raises(ConfigError, match=r"judges\.agreement is self"):
        JudgeConfig(agreement="self")
    panel = build_panel(JudgeConfig(agency="self", heldout=False), policy, ModelConfig())
    assert [verdict.score for verdict in panel.agency([Answer("d", "a")])] == [4.0]
    assert asked[0].target == "agency"
    assert "<answer>a</answer>" in asked[0].messages[0]["content"]


def test_the_policy_rewards_itself_with_its_expected_scores(tiny_model, tiny_tokenizer):
    engine = LocalEngine(tiny_model, tiny_tokenizer)
    judges = JudgeConfig(agency="self", local_scores="expected", heldout=False)
    (verdict,) = build_panel(judges, engine, ModelConfig(name="tiny")).agency([Answer("d", "a")])
    prompt = fill("agency", dilemma="d", answer="a")
    (weight_K,) = np.exp(engine.weigh_options([({"role": "user", "content": prompt},)], [str(n) for n in range(6)]))
    assert verdict.score == pytest.approx(weight_K @ np.arange(6) / weight_K.sum())
    assert verdict.judge == "self"


def test_questions_are_answered_alone(tiny_folder, tmp_path):
    rows = load_questions("shipped")
    assert len(rows) == 96
    held_out = {scenario.dilemma for scenario in load_task_scenarios("open-ended")}
    assert not held_out & {row["dilemma"] for row in rows}
    config = dataclasses.replace(build_config(tiny_folder, tmp_path / "run"), solo=True, questions="shipped")
    it = dataclasses.replace(build_session(config, agency=count_letters), dilemmas=rows)
    metrics = train_step(it, 1)
    dialogues = read_negotiations(config.run / "negotiations" / "step-000001.jsonl")
    assert {row["ending"] for row in dialogues} == {"answered"}
    assert {row["dilemma"] for row in dialogues} <= {row["dilemma"] for row in rows}
    # Each answer is counted once.
    assert metrics["sampled/tokens"] == sum(row["messages"][0]["tokens"] for row in dialogues)
    with pytest.raises(ConfigError, match="add solo = true"):
        TrainConfig(questions="shipped")


def test_same_seed_same_words_in_every_opponent_setting(session):
    # The first step begins with an adapter that changes nothing: all three opponents say the same.
    said = []
    for opponent in ("copy", "base", "lagged"):
        it = session(opponent=opponent)
        said.append(say(seat_players(it.engine, it.optimizer, 1, 0)))
    assert len(set(said)) == 1
