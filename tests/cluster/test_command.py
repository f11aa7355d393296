"""`comity train --cluster ray` with judges behind an address: what was paid for outlives the worker that asked."""

import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest
from crews import find_processes
from test_external_judges import judge, stable, train_whole, words

from comity.cluster.workers import share_limits
from comity.config import AccessConfig
from comity.runs import read_metrics, read_negotiations
from loopback import Act, serve

LIMIT_SECONDS = 1200


def run_command(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


@pytest.mark.parametrize(
    ("workers", "shared"),
    [
        (1, (8, 60, 9000)),
        (2, (4, 30, 4500)),
        (16, (1, 3, 562)),  # 8/16 is less than one connection: 1 is the least that works; 60/16 = 3.75, rounded down
    ],
)
def test_judge_workers_keep_to_the_limits_together(workers, shared):
    access = AccessConfig(connections=8, requests_per_minute=60, tokens_per_minute=9000)
    one = share_limits(access, workers)
    assert (one.connections, one.requests_per_minute, one.tokens_per_minute) == shared
    assert replace(one, connections=8, requests_per_minute=60, tokens_per_minute=9000) == access
    # 0 means no limit, for each of them too.
    assert share_limits(AccessConfig(requests_per_minute=0), 4).requests_per_minute == 0


@pytest.mark.slow
@pytest.mark.scale
def test_a_judge_that_dies_while_it_pays_buys_each_verdict_once(tmp_path, tiny_folder, monkeypatch):
    whole, prompts = train_whole(tmp_path, tiny_folder, monkeypatch, steps=3)
    run, answered, lock = tmp_path / "run", Counter(), threading.Lock()
    due = [len(prompts) // 2]

    def script(call):
        with lock:
            if due and sum(answered.values()) >= due[0]:
                due.clear()
                find_processes("JudgeWorker")[0].kill()
                return Act("hang")  # until the connection of the dead is closed
            answered[call.prompt] += 1
        return judge(call.prompt)

    settings = {"cluster.workers": 2, "cluster.object_store_mb": 80, "access.connections": 1}
    with serve(script) as server:
        environment = {**os.environ, **server.environment(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "comity", *words(tiny_folder, run, 3, **settings), "--cluster", "ray"]
        done = run_command(command, environment)
        assert done.returncode == 0, done.stderr
        assert not due
        assert answered == prompts  # every prompt of the whole run, each answered and paid for once
        # Told by the driver as by a run in one process; the second time the directory belongs to a run.
        steps = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("step ")]
        assert steps == ["1/3", "2/3", "3/3"]
        done = run_command(command, environment)
    assert done.returncode == 2
    assert done.stderr == f"comity: error: run {run} exists: add --resume to continue it, or choose another --run\n"
    assert [row["spend/total_dollars"] for row in read_metrics(run)] == pytest.approx(
        [row["spend/total_dollars"] for row in read_metrics(whole)]
    )
    assert all(row["staleness/max"] == 0 for row in read_metrics(run))
    for one, other in zip(stable(whole), stable(run), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    for step in (1, 2, 3):
        name = f"negotiations/step-{step:06d}.jsonl"
        assert read_negotiations(run / name) == read_negotiations(whole / name)
