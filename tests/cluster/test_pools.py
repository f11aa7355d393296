"""Real Ray workers with scripts in place of models: who works at the same time, and with which policy they judge."""

import pytest
import ray
from crews import MEETING
from small_session import build_config

from comity.cluster.pools import JudgePool, RolloutPool
from comity.cluster.start import reserve_places, start_staff
from comity.cluster.workers import Snapshot
from comity.config import ClusterConfig, JudgeConfig, TrainConfig
from comity.training.policy import PolicyOptimizer, load_policy
from comity.types import Completion, Negotiation, Request, Sampling, Scenario

pytestmark = [pytest.mark.slow, pytest.mark.scale]
LIMIT_SECONDS = 1200
SCENARIO = Scenario("d", "Who draws first?", "everyday", (), "train")


@pytest.fixture
def staff(ray_here, tmp_path, request):
    """Return the workers of a run with as many rollout workers as the test says."""
    cluster = ClusterConfig(kind="ray", workers=request.param)
    config = TrainConfig(run=tmp_path / "run", cluster=cluster, judges=JudgeConfig(agency="self", heldout=False))
    with reserve_places(cluster, LIMIT_SECONDS) as group, start_staff(config, str(tmp_path), MEETING, group) as started:
        yield started


def policy_of(version):
    return Snapshot(f"policy/1/{version}", version, (ray.put({}),))


def ask(target, seed=0):
    return Request(target, ({"role": "user", "content": "Who?"},), Sampling(), seed)


@pytest.mark.parametrize("staff", [1, 2], indirect=True)
def test_all_workers_hold_requests_at_the_same_time(staff):
    # No worker answers before every one of them has been asked: if they took turns, the first would wait in vain.
    requests = [ask("seat_0", seed) for seed in range(8)]
    replies = RolloutPool(staff.rollout, LIMIT_SECONDS, 1).speak_as(policy_of(5))(requests)
    told = [reply.text.split() for reply in replies]
    assert [int(seed) for _, seed in told] == list(range(8))
    assert {reply.policy_version for reply in replies} == {5}
    by = [process for process, _ in told]
    workers = len(staff.rollout)
    assert len(set(by)) == workers
    assert by == [by[0]] * (8 // workers) + [by[-1]] * (8 - 8 // workers)  # neighbours together


@pytest.mark.parametrize("staff", [1], indirect=True)
def test_workers_stamp_both_seats_as_one_process_does(staff, tiny_folder):
    expected = {
        "copy": [(0, 0), (1, 1), (2, 2), (3, 3)],
        "base": [(0, 0), (1, 0), (2, 0), (3, 0)],
        "lagged": [(0, 0), (1, 0), (2, 2), (3, 2)],  # renewed before steps 1 and 3
    }
    for opponent, versions in expected.items():
        config = build_config(tiny_folder, "none", opponent=opponent, opponent_lag=2)
        optimizer = PolicyOptimizer.create(load_policy(config.model), config.optimization)
        pool = RolloutPool(staff.rollout, LIMIT_SECONDS, 1)
        told = []
        for step in (1, 2, 3, 4):
            respond, policy = pool.seat(optimizer, step, step - 1)
            assert policy.version == step - 1
            told.append(tuple(reply.policy_version for reply in respond([ask("seat_0"), ask("seat_1")])))
        assert told == versions


@pytest.mark.parametrize("staff", [1], indirect=True)
def test_a_policy_that_judges_itself_is_that_of_the_step(staff):
    answered = Negotiation(SCENARIO, ending="agreed", completion=Completion("By turns."))
    judges = JudgePool(staff.judges, LIMIT_SECONDS, staff.facts)
    one, next_one = judges.judge_as(policy_of(1)), judges.judge_as(policy_of(2))

    def score(pool):
        return pool.judge([answered])[0].reward

    # The step that was begun first is judged with its policy, also after the next one was handed over and used.
    assert [score(one), score(next_one), score(one)] == [1, 2, 1]
