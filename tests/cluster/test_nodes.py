"""Several machines, each a node of Ray's own cluster utility on this one: placement, and a machine that is lost."""

import time
from dataclasses import replace

import pytest
from crews import PARTS, worker_environment
from test_processes import assert_close_runs

from comity.cluster.train import train_on_ray
from comity.config import ClusterConfig

pytestmark = [pytest.mark.slow, pytest.mark.scale]
STORE = 80 * 2**20
LIMIT_SECONDS = 600


@pytest.fixture
def nodes():
    """Start a first machine with one CPU, for the trainer, and three with two, for a worker each; join them."""
    import ray
    from ray.cluster_utils import Cluster

    with worker_environment():
        # Ray would wait for each of them no longer than 30 seconds.
        first = {"num_cpus": 1, "object_store_memory": STORE, "wait": False}
        started = Cluster(initialize_head=True, head_node_args=first)
        for _ in range(3):
            started.add_node(num_cpus=2, object_store_memory=STORE, wait=False)
        started.wait_for_nodes(LIMIT_SECONDS)
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield started
        ray.shutdown()
        started.shutdown()


def wait_until_lost(node_id):
    """Return once Ray counts the machine as dead; fail after LIMIT_SECONDS."""
    import ray

    end = time.monotonic() + LIMIT_SECONDS
    while any(node["Alive"] and node["NodeID"] == node_id for node in ray.nodes()):
        assert time.monotonic() < end, f"Ray still counts {node_id} as alive"
        time.sleep(0.1)


def test_another_machine_takes_over_from_one_that_is_lost(nodes, small_config, alone):
    from ray.util import placement_group_table

    (small_config.run.parent / "storage").mkdir()
    homes = []

    def find_homes():
        (group,) = [item for item in placement_group_table().values() if len(item["bundles_to_node_id"]) == 3]
        return group["bundles_to_node_id"]

    def lose_one(step, _):
        homes.append(find_homes())
        if step == 2:
            # The new machine is there before the old one is gone; both have places for one worker.
            nodes.add_node(num_cpus=2, object_store_memory=STORE, wait=False)
            nodes.wait_for_nodes(LIMIT_SECONDS)
            (lost,) = [node for node in nodes.worker_nodes if node.node_id == homes[-1][0]]
            nodes.remove_node(lost, allow_graceful=False)
            # Its workers go on for a moment; the next steps shall not be theirs.
            wait_until_lost(lost.node_id)

    cluster = ClusterConfig(
        kind="ray", workers=2, worker_cpus=2, judge_cpus=2, placement="STRICT_SPREAD",
        storage=str(small_config.run.parent / "storage"),
    )  # fmt: skip
    train_on_ray(replace(small_config, cluster=cluster), lose_one, None, PARTS)
    assert_close_runs(alone, small_config.run, 4)
    assert len(set(homes[0].values())) == 3  # both workers and the judge, each on a machine of its own
    assert homes[-1][0] != homes[0][0]
    assert [homes[-1][place] for place in (1, 2)] == [homes[0][place] for place in (1, 2)]
