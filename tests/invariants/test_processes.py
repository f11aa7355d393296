"""Several processes that train together equal one: real processes of the tiny model that talk over gloo."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_resume import stable

from comity.runs import read_metrics, read_negotiations

pytestmark = [pytest.mark.slow, pytest.mark.scale]

SCRIPT = Path(__file__).with_name("small_session.py")
CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
# Far above what anything here takes: reached only by what never ends, not by a slow machine.
LIMIT_SECONDS = 1200


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def environment(rank=0, size=1, port=0):
    """Return what a launcher tells one process; one alone is told nothing."""
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    if size == 1:
        return plain
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {**plain, "MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in place.items()}}


def start_processes(stack, size, *arguments):
    """Start one command as `size` processes without an agent that would end the others when one dies."""
    command, port = [sys.executable, str(SCRIPT), *map(str, arguments)], free_port()
    started = []
    for rank in range(size):
        told = environment(rank, size, port)
        process = subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True, start_new_session=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        started.append(process)
    return started


def run_processes(size, *arguments):
    with ExitStack() as stack:
        processes = start_processes(stack, size, *arguments)
        ends = [process.communicate(timeout=LIMIT_SECONDS) for process in processes]
        assert [process.returncode for process in processes] == [0] * size, [error for _, error in ends]


def wait_for(path, processes):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not path.exists():
        assert all(process.poll() is None for process in processes), "a process ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_close_runs(one, other, steps):
    """Compare dialogues byte for byte, metrics and the optimiser's state to a tolerance."""
    for step in range(1, steps + 1):
        name = f"negotiations/step-{step:06d}.jsonl"
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for row, expected in zip(read_metrics(other), read_metrics(one), strict=True):
        same = {key: value for key, value in stable([row])[0].items() if key != "process/count"}
        del expected["process/count"]
        # loss/policy adds up terms of size 1 that cancel: what is left of them is float32's rounding, about 1e-7.
        assert same == pytest.approx(stable([expected])[0], rel=1e-4, abs=1e-6)
    expected = load_file(one / f"checkpoint-{steps}" / "optimizer.safetensors")
    found = load_file(other / f"checkpoint-{steps}" / "optimizer.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.startswith(("master/", "exp_avg/")):
            assert float((found[name] - tensor).norm()) <= 1e-4 * float(tensor.norm()), name


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory):
    """Return the run of one process that the others are held against."""
    run = tmp_path_factory.mktemp("alone") / "run"
    run_processes(1, tiny_folder, run, 4)
    return run


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_equal_one(tiny_folder, alone, tmp_path, size):
    # 2 scenarios x 4 rollouts: two processes take a scenario each; three split the groups, 2 + 3 + 3.
    run_processes(size, tiny_folder, tmp_path / "run", 4)
    assert_close_runs(alone, tmp_path / "run", 4)
    assert [row["process/count"] for row in read_metrics(tmp_path / "run")] == [size] * 4
    assert all(row["loss/gradient_norm"] > 0 for row in read_metrics(alone))
    # The order of additions does differ: the tolerance is needed, so the comparison is not of a run with itself.
    assert read_metrics(alone) != read_metrics(tmp_path / "run")


def test_processes_that_share_one_base_equal_one(tiny_folder, alone, tmp_path, monkeypatch):
    # What `accelerate launch` tells its processes for FSDP2. So few tokens at once make the numbers of passes differ
    # among the processes, and those that have done theirs take part in the others'.
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    run_processes(3, tiny_folder, tmp_path / "run", 4, "budget:400")
    assert_close_runs(alone, tmp_path / "run", 4)
    assert [row["process/count"] for row in read_metrics(tmp_path / "run")] == [3] * 4


@pytest.mark.parametrize(("dying", "counts"), [(1, [2, 2, 2, 3]), (0, [2, 2, 3, 3])])
def test_a_process_that_dies_ends_the_run_and_another_number_resumes_it(tiny_folder, alone, tmp_path, dying, counts):
    # One process hangs in step 4, after checkpoint-2 and the rows of step 3, and is killed there. A writer that is left
    # keeps step 3 as a checkpoint; without it the run goes on from checkpoint-2.
    run, left = tmp_path / "run", 1 - dying
    with ExitStack() as stack:
        # A closed connection is seen at once: nobody waits for the group's timeout, which is longer than the test's.
        processes = start_processes(
            stack, 2, tiny_folder, run, 4, "hang:4", f"rank:{dying}", f"timeout:{10 * LIMIT_SECONDS}"
        )
        wait_for(run / "hanging", processes)
        processes[dying].kill()
        _, error = processes[left].communicate(timeout=LIMIT_SECONDS)
    assert processes[left].returncode == 1
    line = error.strip().splitlines()[-1]
    assert line.startswith(f"ProcessLostError: process {left} of 2 lost the others (")
    assert line.endswith("continue with --resume")
    assert len(read_metrics(run)) == 3
    (run / "hanging").unlink()
    run_processes(3, tiny_folder, run, 4, "resume")
    assert [row["process/count"] for row in read_metrics(run)] == counts
    assert_close_runs(alone, run, 4)


def test_a_process_that_hangs_is_not_waited_for_longer_than_the_timeout(tiny_folder, tmp_path):
    run = tmp_path / "run"
    with ExitStack() as stack:
        # They meet before they join the group, so that the short timeout does not run while one of them starts.
        processes = start_processes(stack, 2, tiny_folder, run, 2, "hang:1", "rank:1", "timeout:20", "meet")
        wait_for(run / "hanging", processes)
        _, error = processes[0].communicate(timeout=LIMIT_SECONDS)
        assert processes[0].returncode == 1
        assert processes[1].poll() is None  # the other hangs still: it is the timeout that ended the first
        assert "ProcessLostError: process 0 of 2 lost the others (" in error
    assert read_metrics(run) == []


def list_launchers():
    """Return commands that start two processes each, and whether these hold the base whole or spread."""
    port = free_port()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    # What a user does with the file as it is, but for eight GPUs.
    fsdp2 = [sys.executable, "-m", "accelerate.commands.launch", f"--config_file={CONFIGS / 'fsdp2.yaml'}"]
    fsdp2 += ["--num_processes=2", f"--main_process_port={port}", "--num_cpu_threads_per_process=1"]
    return {"torchrun": (torchrun, "whole"), "fsdp2.yaml": (fsdp2, "spread")}


@pytest.mark.parametrize("name", ["torchrun", "fsdp2.yaml"])
def test_processes_of_a_launcher_equal_one(tiny_folder, alone, tmp_path, name):
    launcher, base = list_launchers()[name]
    command = [*launcher, str(SCRIPT), str(tiny_folder), str(tmp_path / "run"), "4"]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"base-{rank}").read_text() for rank in range(2)] == [base, base]
    assert_close_runs(alone, tmp_path / "run", 4)
    assert [row["process/count"] for row in read_metrics(tmp_path / "run")] == [2] * 4


def test_accelerate_launches_the_command(tiny_folder, tmp_path):
    # Judges of the tiny model give no verdict, so nothing is learnt; what is tested is that two commands work as one.
    run = tmp_path / "run"
    settings = {
        "run": run, "model.name": tiny_folder, "model.dtype": "float32", "model.device": "cpu",
        "judges.agreement": tiny_folder, "judges.agency": tiny_folder, "judges.heldout": "false",
        "judges.max_unscored_share": 1,
        "negotiation.rounds": 1, "negotiation.dialogue.max_tokens": 4, "negotiation.completion.max_tokens": 4,
        "optimization.steps": 2, "optimization.group_size": 2, "threads": 1,
    }  # fmt: skip
    words = [f"--{key}={value}" for key, value in settings.items()]
    # Its mode for several GPUs starts processes on a machine without any too; the one for CPUs needs MPI.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--num_cpu_threads_per_process=1"]
    command = [*launch, f"--main_process_port={free_port()}", "-m", "comity", "train", *words]

    def launched():
        return subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )

    done = launched()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{run}: 2 steps done; see `comity report {run}`"
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == ["1/2", "2/2"]  # one process speaks
    assert [row["process/count"] for row in read_metrics(run)] == [2, 2]
    rows = read_negotiations(run / "negotiations" / "step-000002.jsonl")
    assert [row["sample"] for row in rows] == [0, 1, 0, 1]
    # Both processes meet an error that the writer finds; the launcher may end one before it has told it.
    done = launched()
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("comity (process")]
    assert 1 <= len(told) <= 2
    assert all(f"of 2): error: run {run} exists: add --resume" in line for line in told)
    assert len(read_metrics(run)) == 2
