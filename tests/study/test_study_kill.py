"""A study that is killed at any moment ends like one that was not."""

import os
import subprocess
import sys
import time

import pytest

from comity.runs import read_json
from comity.scenarios.rows import read_whole_rows


def write_settings(folder, run):
    path = folder / f"{run.name}.toml"
    path.write_text(
        f'run = "{run}"\nseeds = 1\nnegotiating = "multi"\nsingle = "solo"\nsteps = 2\nablation_seeds = 1\n'
        f'arms = ["multi={folder / "multi.toml"}", "solo={folder / "solo.toml"}"]\n'
        f'match_tokens = ["solo:multi"]\nablations = ["bare={folder / "multi.toml"}"]\ncurve_every = 1\n'
        f'[evaluation]\ntasks = "{folder / "tasks.jsonl"}"\nruns = 2\nbatch = 1\n',
        encoding="utf-8",
    )
    return [sys.executable, "-m", "comity", "study", "--config", str(path)]


def kill_once_there(command, path):
    """Start the study, wait until a file is there, and kill it."""
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not path.exists():
            assert process.poll() is None, f"the study ended before {path} was there"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    assert process.returncode < 0, "the study ended before it was killed"


@pytest.mark.slow
@pytest.mark.scale
def test_a_study_killed_five_times_ends_like_one_that_was_not(recipes):
    whole, killed = recipes / "whole", recipes / "killed"
    subprocess.run(write_settings(recipes, whole), env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    command = write_settings(recipes, killed)
    # Before any checkpoint, within a matched run, within the comparison, after it, and within the curves.
    for name in (
        "multi-seed-0/config.json",
        "solo-seed-0/negotiations/step-000001.jsonl",
        "evaluation/dialogues.jsonl",
        "ablations/dialogues.jsonl",
        "curves/dialogues.jsonl",
    ):
        kill_once_there(command, killed / name)
        for path in killed.rglob("*.jsonl"):
            if path.parent.name in ("evaluation", "killed") and path.name != "seconds.jsonl":
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write('{"torn')  # what a kill in the middle of a write leaves
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    for name in ("evaluation/dialogues.jsonl", "arms/results.json", "ablations/results.json", "curves.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_json(killed / "targets.json") == read_json(whole / "targets.json")
    rows = [
        [{key: row[key] for key in ("run", "steps", "sampled_tokens")} for row in read_whole_rows(run / "runs.jsonl")]
        for run in (whole, killed)
    ]
    assert rows[0] == rows[1]
    assert [row["run"] for row in rows[0]] == ["multi-seed-0", "solo-seed-0", "bare-seed-0"]
