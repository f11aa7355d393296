"""The example scripts run as they are; for Slurm, small programs stand in for a job on this machine or two in it."""

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
LIMIT_SECONDS = 1200
NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
MACHINES = """#!/bin/bash
# Run the task of a job on two machines with a cable between them, each with processes and an address of its own.
set -euo pipefail
mkdir -p /tmp/ray
mount -t tmpfs run /run
mkdir /run/netns
ip netns add one
ip netns add two
ip link add eth0 netns one type veth peer name eth0 netns two
join() {
    ip -n "$1" link set lo up
    ip -n "$1" address add "$2/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" route add default via "$3"
}
join one 10.77.0.1 10.77.0.2
join two 10.77.0.2 10.77.0.1
pids=()
export SLURM_NODEID=0
for machine in one two; do
    ip netns exec "$machine" unshare --pid --fork --kill-child --mount-proc \\
        bash -c 'mount -t tmpfs ray /tmp/ray; "$@"; exit $?' "$machine" "$@" &
    pids+=($!)
    SLURM_NODEID=$((SLURM_NODEID + 1))
done
for pid in "${pids[@]}"; do wait "$pid" || exit $?; done
"""


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
        'for pid in "${pids[@]}"; do wait "$pid" || exit $?; done\n'
    )  # fmt: skip
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


@pytest.fixture
def machines(programs):
    """Let Slurm's stand-ins speak of two machines, namespaces of this one; skip where Linux makes none."""
    try:
        subprocess.run([*NAMESPACES, "ip", "link"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here ({error})")
    (programs / "machines").write_text(MACHINES)
    (programs / "machines").chmod(0o755)
    (programs / "scontrol").write_text("#!/bin/sh\nprintf '10.77.0.1\\n10.77.0.2\\n'\n")
    (programs / "srun").write_text(f'#!/bin/sh\nshift\nexec {" ".join(NAMESPACES)} machines "$@"\n')
    return programs


def run_script(name, programs, *words, expected=0, **variables):
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
    assert done.returncode == expected, done.stdout + done.stderr
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


def test_the_ray_script_trains_on_two_machines_of_a_job(settings, machines, tmp_path):
    (tmp_path / "storage").mkdir()
    job = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "nodes", "SLURM_JOB_ID": "4"}
    job["RAY_gcs_rpc_server_reconnect_timeout_s"] = "15"  # the second machine looks for the first that long at the end
    # The rollout worker and the judge must not share a machine, so that one alone is no place for them.
    apart = ["--cluster.placement", "STRICT_SPREAD", "--cluster.storage", tmp_path / "storage"]
    told = run_script("ray.sh", machines, settings, "--run", tmp_path / "run", *apart, **job)
    assert [line.split()[1] for line in told.splitlines() if line.startswith("step ")] == ["1/2", "2/2"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2]
    calls = (tmp_path / "ray.calls").read_text().splitlines()
    assert sorted(call.split()[0] for call in calls) == ["start"] * 2 + ["stop"] * 2 + ["symmetric-run"] * 2
    started = sorted(call for call in calls if call.startswith("start "))
    assert started == [
        "start --address 10.77.0.1:20004 --block",
        "start --head --node-ip-address=10.77.0.1 --port=20004",
    ]


@pytest.mark.parametrize("code", [0, 3])
def test_the_ray_script_ends_with_the_status_of_the_command(programs, code):
    # As Ray does where it waited for other machines: it runs what stands behind `--` and ends with status 1.
    (programs / "ray").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\n"$@"\nexit 1\n')
    (programs / "comity").write_text(f'#!/bin/sh\necho "$*"\nexit {code}\n')
    job = {"SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "nodes", "SLURM_JOB_ID": "4"}
    told = run_script("ray.sh", programs, "my settings.toml", "--seed", 1, expected=code, **job)
    assert told.splitlines()[0] == "train --config my settings.toml --resume --cluster ray --address auto --seed 1"
