"""The example scripts run as they are; for Slurm, two small programs stand in for a job on this machine."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from comity.runs import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.scale]
ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 400


@pytest.fixture
def settings(tiny_folder, tmp_path):
    """Return a file with settings for two steps of the tiny model, which judges too and learns nothing from it."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        f"""
threads = 1
model = {{ name = "{tiny_folder}", dtype = "float32", device = "cpu" }}
optimization = {{ steps = 2, group_size = 2 }}

[judges]
agreement = "{tiny_folder}"
agency = "{tiny_folder}"
heldout = false
max_unscored_share = 1

[negotiation]
rounds = 1
dialogue = {{ max_tokens = 4 }}
completion = {{ max_tokens = 4 }}
"""
    )
    return path


@pytest.fixture
def programs(tmp_path):
    """Return a folder of programs: comity, accelerate and ray of this environment, and what Slurm brings."""
    folder = tmp_path / "bin"
    folder.mkdir()
    modules = {"comity": "comity", "accelerate": "accelerate.commands.accelerate_cli", "ray": "ray.scripts.scripts"}
    for name, module in modules.items():
        note = f'echo "$*" >> "{tmp_path / name}.calls"'
        (folder / name).write_text(f'#!/bin/sh\n{note}\nexec "{sys.executable}" -m {module} "$@"\n')
    # Every node of the job is this machine; the task of each runs at the same time, and one that fails fails the job.
    (folder / "scontrol").write_text("#!/bin/sh\nprintf '127.0.0.1\\n127.0.0.2\\n'\n")
    (folder / "srun").write_text(
        '#!/bin/bash\nshift\npids=()\n'
        'for ((node = 0; node < SLURM_NNODES; node++)); do SLURM_NODEID=$node "$@" & pids+=($!); done\n'
        'for pid in "${pids[@]}"; do wait "$pid" || exit 1; done\n'
    )  # fmt: skip
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def run_script(name, programs, *words, **variables):
    # In the environment of the tests, not in one that `make setup` may have made in the root.
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **variables}
    command = ["bash", str(ROOT / "examples" / name), *map(str, words)]
    done = subprocess.run(
        command,
        env=environment,
        cwd=programs.parent,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def find_port():
    """Return a free port among those that the script makes of job numbers, below those of outgoing connections."""
    for port in random.sample(range(20000, 32768), 50):
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port among 50")


@pytest.mark.parametrize(("nodes", "processes_per_node"), [(1, 2), (2, 1)])
def test_the_slurm_script_trains_in_two_processes_and_goes_on(settings, programs, tmp_path, nodes, processes_per_node):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    ports = []

    def submit(steps):
        ports.append(find_port())
        job = {
            "SLURM_NNODES": str(nodes), "SLURM_GPUS_ON_NODE": str(processes_per_node), "SLURM_JOB_NODELIST": "nodes",
            "SLURM_JOB_ID": str(ports[-1] - 20000),
        }  # fmt: skip
        words = ["--run", tmp_path / "run", "--optimization.steps", steps]
        run_script("slurm.sh", programs, settings, *words, **job)

    submit(1)
    assert [row["process/count"] for row in read_metrics(tmp_path / "run")] == [2]
    if nodes > 1:  # submitted again, with more to do
        submit(2)
        assert [(row["step"], row["process/count"]) for row in read_metrics(tmp_path / "run")] == [(1, 2), (2, 2)]
    launched = (tmp_path / "accelerate.calls").read_text().splitlines()
    assert len(launched) == nodes * len(ports)
    for place, call in enumerate(launched):
        assert f"--main_process_port {ports[place // nodes]} " in call


def test_the_ray_script_trains_here_and_goes_on(settings, programs, tmp_path):
    words = [settings, "--run", tmp_path / "run", "--cluster.object_store_mb", 80]
    run_script("ray.sh", programs, *words)
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2]
    told = run_script("ray.sh", programs, *words, "--optimization.steps", 3, "--cluster.workers", 2)
    assert told.splitlines()[0].split()[:2] == ["step", "3/3"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
