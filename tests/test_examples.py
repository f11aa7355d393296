"""The example scripts run as they are; for Slurm, two programs of one line stand in for a job on this one machine."""

import os
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
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
    (folder / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\n")
    # One task on one machine: its number among the machines of the job is 0.
    (folder / "srun").write_text('#!/bin/bash\nexport SLURM_NODEID=0\nshift\nexec "$@"\n')
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


def test_the_slurm_script_trains_on_one_machine_of_two_processes(settings, programs, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    job = {
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_NODELIST": "one",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    run_script("slurm.sh", programs, settings, "--run", tmp_path / "run", **job)
    assert [row["process/count"] for row in read_metrics(tmp_path / "run")] == [2, 2]


def test_the_ray_script_trains_here_and_goes_on(settings, programs, tmp_path):
    words = [settings, "--run", tmp_path / "run", "--cluster.object_store_mb", 80]
    run_script("ray.sh", programs, *words)
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2]
    told = run_script("ray.sh", programs, *words, "--optimization.steps", 3, "--cluster.workers", 2)
    assert told.splitlines()[0].split()[:2] == ["step", "3/3"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
