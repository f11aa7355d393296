"""Training under a real Ray equals training in one process, also when its workers die."""

from dataclasses import replace

import pytest
from crews import PARTS, VLLM
from small_session import build_session
from test_processes import assert_close_runs

from comity.cluster.train import train_on_ray
from comity.config import ClusterConfig, RolloutConfig
from comity.errors import RunError
from comity.runs import create_run, describe_settings, read_metrics
from comity.training.trainer import run_steps

pytestmark = [pytest.mark.slow, pytest.mark.scale]


def train_small(config, on_step=None, **cluster):
    train_on_ray(replace(config, cluster=ClusterConfig(kind="ray", **cluster)), on_step, None, PARTS)


def test_strict_training_under_ray_equals_one_process(ray_here, small_config, alone):
    told = []
    train_small(small_config, lambda step, metrics: told.append((step, metrics)), trainers=2, workers=2, judges=2)
    assert_close_runs(alone, small_config.run, 4)
    rows = read_metrics(small_config.run)
    assert told == [(int(row["step"]), row) for row in rows]
    assert [row["process/count"] for row in rows] == [2] * 4
    assert [(row["staleness/mean"], row["staleness/max"]) for row in rows] == [(0, 0)] * 4
    # A directory that is there is another run's until --resume says otherwise.
    with pytest.raises(RunError, match=r"exists: add --resume"):
        train_small(small_config)


@pytest.mark.parametrize("opponent", ["copy", "base", "lagged"])
def test_vllm_in_the_workers_equals_one_process(ray_here, small_config, tmp_path, opponent):
    # One policy is folded into the weights; of two, adapters stand beside them.
    changed = replace(small_config.optimization, opponent=opponent, opponent_lag=2, steps=3)
    config = replace(small_config, optimization=changed)
    one = replace(config, run=tmp_path / "one")
    create_run(one.run, describe_settings(one), resume=False)
    run_steps(build_session(one))
    cluster = ClusterConfig(kind="ray", workers=2)
    config = replace(config, rollouts=RolloutConfig(engine="vllm"), cluster=cluster)
    train_on_ray(config, parts=VLLM)
    assert_close_runs(one.run, config.run, 3)


def test_workers_that_die_in_mid_step_lose_no_verdict_and_no_step(ray_here, small_config, alone):
    deaths = ["die-rollout-1", "die-judge-2", "die-trainer-3"]
    for name in deaths:
        (small_config.run.parent / name).touch()
    steps = []
    train_small(small_config, lambda step, _: steps.append(step), workers=2)
    assert not any((small_config.run.parent / name).exists() for name in deaths)
    # The trainer died in step 4 and went on from checkpoint-2; step 3 was taken again, to the same end.
    assert steps == [1, 2, 3, 3, 4]
    assert_close_runs(alone, small_config.run, 4)
    assert all(row["unscored/share"] == 0 for row in read_metrics(small_config.run))


@pytest.mark.parametrize(
    ("death", "line"),
    [
        ("die-rollout-1", "a rollout worker died more often than cluster.restarts allows ("),
        ("die-trainer-1", "the trainers failed more often than cluster.restarts 0 allows ("),
    ],
)
def test_without_restarts_the_first_death_ends_the_run_with_one_line(ray_here, small_config, death, line):
    (small_config.run.parent / death).touch()
    with pytest.raises(RunError) as raised:
        train_small(small_config, restarts=0)
    assert str(raised.value).startswith(line)
    assert str(raised.value).endswith("): see why, then continue with --resume")
    assert "\n" not in str(raised.value)
    assert not (small_config.run.parent / death).exists()
    # It happened in the second step; the first is kept.
    assert [row["step"] for row in read_metrics(small_config.run)] == [1]


def test_asynchronous_rollouts_are_as_many_versions_behind_as_allowed(ray_here, small_config, alone):
    train_small(small_config, max_staleness=1)
    rows = read_metrics(small_config.run)
    # Steps 1 and 2 are both begun with the first policy; from then on each is begun one step early.
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1]
    assert [row["staleness/mean"] for row in rows] == [0, 1, 1, 1]
    # The engine's probabilities are those of the older policy: the ratio to the new one is the importance weight.
    assert rows[0]["mismatch/kl"] < 1e-6
    assert all(row["mismatch/kl"] > 1e-4 for row in rows[1:])
    name = "negotiations/step-00000{}.jsonl"
    assert (small_config.run / name.format(1)).read_bytes() == (alone / name.format(1)).read_bytes()
    assert (small_config.run / name.format(2)).read_bytes() != (alone / name.format(2)).read_bytes()
