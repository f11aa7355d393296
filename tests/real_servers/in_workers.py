"""`python in_workers.py copy|base REPORT`: two policies in vLLM inside a rollout worker of Ray; leaves a file of JSON.

With `base` the model without an adapter speaks between them, as an opponent does. It runs in vLLM's environment.
"""

import json
import os
import sys
from pathlib import Path

import ray
from in_process import ASKED, largest_difference, shift

from comity.cluster.pools import RolloutPool
from comity.cluster.start import reach_cluster
from comity.cluster.workers import LOCAL, RolloutWorker, Snapshot
from comity.config import ClusterConfig, ModelConfig, OptimizationConfig, RolloutConfig, TrainConfig
from comity.engines.merging import adapters_off
from comity.training.policy import load_policy, trainable_parameters

PATIENCE = 7200.0


def main(opponent):
    """Write with each policy, and with the base model where it is the opponent; return what was measured."""
    cluster = ClusterConfig(kind="ray", object_store_mb=200)
    config = TrainConfig(
        model=ModelConfig(dtype="float32", device="cpu", lora_rank=8),
        rollouts=RolloutConfig(engine="vllm"),
        optimization=OptimizationConfig(opponent=opponent),
        cluster=cluster,
    )
    model = load_policy(config.model)
    report = {"versions": []}
    with reach_cluster(cluster):
        pool = RolloutPool([ray.remote(RolloutWorker).remote(config, os.getcwd(), LOCAL)], PATIENCE, 0)
        written = []
        for number in (1, 2):
            shift(model, number)
            weights = {name: weight.detach().clone() for name, weight in trainable_parameters(model).items()}
            snapshot = Snapshot(f"policy/{number}", number, (ray.put(weights),))
            replies = pool.speak_as(snapshot)(ASKED)
            report[f"largest_difference_{number}"] = largest_difference(model, replies)
            report["versions"] += sorted({reply.policy_version for reply in replies})
            written.append([reply.text for reply in replies])
            print(json.dumps(report), flush=True)  # into the log, should it end early
        report["texts_differ"] = written[0] != written[1]
        if opponent == "base":
            base = pool.speak_as(Snapshot("base", 0, ()))(ASKED)
            with adapters_off(model):
                report["largest_difference_base"] = largest_difference(model, base)
            report["says_the_same_again"] = [reply.text for reply in pool.speak_as(snapshot)(ASKED)] == written[1]
    return report


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(sys.argv[1])))
