"""Measure how many messages a second a pool of rollout workers answers, by the number of workers.

    python benchmarks/ray_workers.py --workers 1,2,4

The engine waits as long as a server takes for a batch of at most `--rows` messages, and computes nothing, so one
machine can stand for many: what is measured is what Ray and the pool add. One JSON row for each number of workers.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from comity.cluster.pools import RolloutPool
from comity.cluster.start import reach_cluster, reserve_places, start_staff
from comity.cluster.workers import Parts, PolicyEngine, Snapshot
from comity.config import ClusterConfig, TrainConfig
from comity.judges.panel import Judges, Panel
from comity.types import Completion, Request, Sampling

PROMPT_TOKENS, REPLY_TOKENS = 300, 64


@dataclass
class WaitingEngine:
    """Answer batches of `rows` messages one after the other, each after `seconds`."""

    rows: int
    seconds: float
    version: int = 0

    def install(self, _weights: Mapping[str, Any] | None, version: int) -> None:
        """Note the version."""
        self.version = version

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Wait for each batch and return messages of a real one's size."""
        for _ in range(0, len(requests), self.rows):
            time.sleep(self.seconds)
        ids, prompt = np.zeros(REPLY_TOKENS, np.int32), np.zeros(PROMPT_TOKENS, np.int32)
        chances = np.zeros(REPLY_TOKENS, np.float32)
        return [Completion("waited", "stop", prompt, ids, chances, self.version) for _ in requests]


def open_judges(_config: TrainConfig, _policy: PolicyEngine | None) -> Judges:
    """Return judges that are never asked."""
    return Panel(lambda endings: [], lambda answers: [])


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers")
    parser.add_argument("--messages", type=int, default=512, help="messages of a round")
    parser.add_argument("--rows", type=int, default=16, help="messages that an engine answers at once")
    parser.add_argument("--seconds", type=float, default=0.5, help="what an engine takes for them")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    counts = [int(word) for word in options.workers.split(",")]
    rows, seconds = options.rows, options.seconds
    parts = Parts(lambda _config: WaitingEngine(rows, seconds), open_judges)
    with reach_cluster(ClusterConfig(kind="ray", workers=max(counts), object_store_mb=200)):
        for count in counts:
            config = TrainConfig(cluster=ClusterConfig(kind="ray", workers=count))
            with reserve_places(config.cluster, 120) as group, start_staff(config, ".", parts, group) as staff:
                measure(RolloutPool(staff.rollout, 600, 1), count, options)


def measure(pool: RolloutPool, workers: int, options: argparse.Namespace) -> None:
    """Time whole rounds through the pool and print the row."""
    message = {"role": "user", "content": "Who draws first? " * 60}
    requests = [Request("seat_0", (message,), Sampling(), seed) for seed in range(options.messages)]
    respond = pool.speak_as(Snapshot("policy/1/0", 0, (ray.put({}),)))
    respond(requests[:workers])
    taken = []
    for _ in range(options.repeats):
        begun = time.perf_counter()
        respond(requests)
        taken.append(time.perf_counter() - begun)
    # Each worker gets its share, and answers it batch by batch: the longest share decides.
    longest = -(-options.messages // workers)
    waiting = -(-longest // options.rows) * options.seconds
    best = min(taken)
    row = {
        "workers": workers, "messages_per_second": round(options.messages / best, 1), "seconds": round(best, 3),
        "waiting_seconds": waiting, "added_seconds": round(best - waiting, 3),
        "all_seconds": [round(value, 3) for value in taken],
    }  # fmt: skip
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
