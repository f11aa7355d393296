"""Every shipped configuration loads, fits the device that it names, and every launcher starts what it says."""

import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from comity.cli.planning import settings_kind
from comity.config import DemoConfig, TrainConfig, load_config
from comity.judges.named import place_judge
from comity.plan.devices import find_device
from comity.plan.plan import Expectation, make_plan
from comity.runs import read_metrics

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
DEVICES = {
    "qwen3-0.6b": "rtx-4090-24gb",
    "qwen3-1.7b": "rtx-4090-24gb",
    "qwen3-4b": "a100-40gb",
    "qwen3-8b": "rtx-a6000-48gb",
    "qwen3-14b-qlora": "rtx-a6000-48gb",
    "qwen3-32b-qlora": "h100-80gb",
    "demo": "cpu-2-cores",
}
"""The device that each recipe's first line speaks of."""


def load_recipe(path):
    kind = settings_kind(path)
    config = load_config(kind, path)
    return config.train if isinstance(config, DemoConfig) else config


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem in DEVICES], ids=lambda path: path.stem)
def test_a_recipe_loads_and_fits_its_device(path):
    config = load_recipe(path)
    assert isinstance(config, TrainConfig)
    assert make_plan(config, find_device(DEVICES[path.stem]), 1, Expectation()).fits
    for judge in (config.judges.agreement, config.judges.agency):
        assert place_judge(judge) in ("embedded", "external")


def test_no_recipe_is_left_out():
    assert set(DEVICES) <= {path.stem for path in RECIPES}
    assert {path.stem for path in RECIPES if path.stem.startswith("qwen3")} <= set(DEVICES)


def test_the_recipe_of_the_paper_says_what_the_paper_says():
    config = load_recipe(ROOT / "configs" / "qwen3-14b-qlora.toml")
    assert (config.model.name, config.model.quantization, config.model.thinking) == ("Qwen/Qwen3-14B", "nf4", False)
    assert config.optimization.group_size == 8
    assert config.optimization.scenarios_per_step * config.optimization.group_size == 16
    assert config.optimization.learning_rate == 5e-6
    assert config.optimization.kl_coefficient == 0
    rules = config.negotiation
    assert (rules.rounds, rules.limit_unit, rules.window, rules.window_unit) == (7, "rounds", 2, "messages")
    assert (rules.dialogue.temperature, rules.dialogue.top_p) == (0.7, 0.95)
    assert (rules.completion.temperature, rules.completion.top_p) == (0.1, 0.95)
    assert "openai/" in tomllib.loads((ROOT / "configs/qwen3-14b-qlora.toml").read_text())["judges"]["agency"]


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes"),
    [("one-gpu", "NO", 1, 1), ("eight-gpus", "MULTI_GPU", 1, 8), ("two-nodes", "MULTI_GPU", 2, 16)],
)
def test_accelerate_reads_its_files(name, kind, machines, processes):
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == (kind, machines, processes)
    assert str(config.mixed_precision) == "no"


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.slow
def test_the_slurm_script_trains_on_two_machines_and_goes_on(tiny_folder, tmp_path):
    # Slurm itself is not here: srun starts a command for each of two nodes, both of them this machine, and scontrol
    # names the first one. Everything below them is real.
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text(
        '#!/usr/bin/env bash\nshift\npids=()\n'
        'for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); done\n'
        'for pid in "${pids[@]}"; do wait "$pid" || exit 1; done\n'
    )  # fmt: skip
    (tools / "scontrol").write_text("#!/usr/bin/env bash\nprintf '127.0.0.1\\n127.0.0.2\\n'\n")
    (tools / "accelerate").write_text(
        f'#!/usr/bin/env bash\nexec "{sys.executable}" -m accelerate.commands.accelerate_cli "$@"\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    run, config = tmp_path / "run", tmp_path / "run.toml"
    config.write_text(
        f'run = "{run}"\nthreads = 1\n[model]\nname = "{tiny_folder}"\ndtype = "float32"\ndevice = "cpu"\n'
        f'[judges]\nagreement = "{tiny_folder}"\nagency = "{tiny_folder}"\nheldout = false\nmax_unscored_share = 1\n'
        "[negotiation]\nrounds = 1\ndialogue = { max_tokens = 4 }\ncompletion = { max_tokens = 4 }\n"
        "[optimization]\nsteps = 1\ngroup_size = 2\n"
    )
    job = free_port()
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": str(job),
    }  # fmt: skip
    script = ["bash", str(ROOT / "examples" / "slurm.sh"), str(config)]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["process/count"] for row in read_metrics(run)] == [2]
    # Submitted again, with an option: it goes on.
    again = [*script, "--optimization.steps=2"]
    done = subprocess.run(again, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in read_metrics(run)] == [1, 2]
