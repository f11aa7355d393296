"""A run that was stopped, or killed, and resumed equals one that was not, bit for bit."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_session import build_config, build_session

from comity.runs import read_metrics, read_negotiations
from comity.training.checkpoint import read_checkpoint, restore, save_checkpoint
from comity.training.policy import trainable_parameters
from comity.training.trainer import run_steps, train_step


class Stopped(Exception):
    pass


SCRIPT = Path(__file__).with_name("small_session.py")
# Not adapter_config.json: peft writes its set of module names in any order.
CHECKPOINT_FILES = ["adapter_model.safetensors", "optimizer.safetensors", "state.json"]


def stable(rows):
    """Return metrics rows without what the clock and the machine put in."""
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in rows]


def optimizer_tensors(optimizer):
    moments = {
        f"{name}/{key}": value
        for name, master in optimizer.masters.items()
        for key, value in optimizer.adam.state[master].items()
    }
    return {**{f"{name}/master": master for name, master in optimizer.masters.items()}, **moments}


def assert_equal_tensors(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def assert_same_run(one, other, steps):
    """Compare the last checkpoint, the metrics and every negotiation file byte for byte."""
    for name in CHECKPOINT_FILES:
        expected = (one / f"checkpoint-{steps}" / name).read_bytes()
        assert (other / f"checkpoint-{steps}" / name).read_bytes() == expected, name
    assert stable(read_metrics(one)) == stable(read_metrics(other))
    assert [row["step"] for row in read_metrics(other)] == list(range(1, steps + 1))
    files = sorted(path.name for path in (one / "negotiations").iterdir())
    assert files == [f"step-{step:06d}.jsonl" for step in range(1, steps + 1)]
    assert sorted(path.name for path in (other / "negotiations").iterdir()) == files
    for name in files:
        assert (one / "negotiations" / name).read_bytes() == (other / "negotiations" / name).read_bytes(), name


@pytest.mark.parametrize("epochs", [1, 2])
def test_two_steps_checkpoint_two_steps_equal_four(tiny_folder, tmp_path, epochs):
    whole = build_session(build_config(tiny_folder, tmp_path / "whole", epochs_per_step=epochs, warmup_steps=3))
    before = {name: p.detach().clone() for name, p in trainable_parameters(whole.model).items()}
    rows = [train_step(whole, step) for step in (1, 2, 3, 4)]

    config = build_config(tiny_folder, tmp_path / "parts", epochs_per_step=epochs, warmup_steps=3)
    first = build_session(config)
    parts = [train_step(first, step) for step in (1, 2)]
    checkpoint = save_checkpoint(config.run, 2, first.model, first.optimizer, keep=2)
    second = build_session(config)
    assert restore(read_checkpoint(checkpoint), second.optimizer) == 2
    parts += [train_step(second, step) for step in (3, 4)]

    assert stable(parts) == stable(rows)
    assert_equal_tensors(trainable_parameters(whole.model), trainable_parameters(second.model))
    assert_equal_tensors(optimizer_tensors(whole.optimizer), optimizer_tensors(second.optimizer))
    for step in (1, 2, 3, 4):
        name = f"negotiations/step-{step:06d}.jsonl"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    # The comparison means something: every step learned, and the adapter moved.
    assert all(row["loss/used_samples"] > 0 and row["loss/gradient_norm"] > 0 for row in rows)
    assert not any(torch.equal(p, before[name]) for name, p in trainable_parameters(whole.model).items())


def test_rows_written_after_the_checkpoint_are_written_anew(tiny_folder, tmp_path):
    config = build_config(tiny_folder, tmp_path / "whole", steps=4)
    run_steps(build_session(config))
    # Three steps, one more than the checkpoint: the third is in the files and must be dropped and played again.
    part = build_config(tiny_folder, tmp_path / "part", steps=4)

    def stop(step, _metrics):
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_steps(build_session(part), on_step=stop)
    assert len(read_metrics(part.run)) == 3
    assert not (part.run / "checkpoint-3").exists()
    run_steps(build_session(replace(part, resume=True)))
    assert_same_run(config.run, part.run, 4)


def test_resuming_a_finished_run_with_more_steps_goes_on(tiny_folder, tmp_path):
    run_steps(build_session(build_config(tiny_folder, tmp_path / "whole", steps=4)))
    run_steps(build_session(build_config(tiny_folder, tmp_path / "more", steps=2)))
    run_steps(build_session(build_config(tiny_folder, tmp_path / "more", steps=4, resume=True)))
    assert_same_run(tmp_path / "whole", tmp_path / "more", 4)


def test_other_seed_is_another_run(tiny_folder, tmp_path):
    # Guards the tests above: equality does not come from everything being constant.
    config = build_config(tiny_folder, tmp_path / "one", steps=1)
    train_step(build_session(config), 1)
    other = replace(config, run=tmp_path / "two", seed=1)
    train_step(build_session(other), 1)
    texts = [
        [
            message["text"]
            for row in read_negotiations(run / "negotiations/step-000001.jsonl")
            for message in row["messages"]
        ]
        for run in (config.run, other.run)
    ]
    assert texts[0] != texts[1]


def command(*arguments):
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def kill_when_hanging(arguments, run):
    """Start the script, wait until it says that it is inside a step, and kill it."""
    with subprocess.Popen(command(*arguments), env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 300
        while not (run / "hanging").exists():
            assert process.poll() is None, "the run ended before the step in which it was to be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    (run / "hanging").unlink()


@pytest.mark.slow
def test_run_killed_twice_ends_like_one_that_was_not(tiny_folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tiny_folder, whole, 6), env=environment, check=True)
    # Killed in step 2, before any checkpoint; then in step 6, with step 5 written after checkpoint-4.
    kill_when_hanging((tiny_folder, killed, 6, "hang:2"), killed)
    assert len(read_metrics(killed)) == 1
    # What a kill in the middle of a save leaves behind must not matter.
    (killed / ".checkpoint-2.part").mkdir()
    (killed / ".checkpoint-2.part" / "state.json").write_text("{")
    kill_when_hanging((tiny_folder, killed, 6, "resume", "hang:6"), killed)
    assert len(read_metrics(killed)) == 5
    assert (killed / "checkpoint-4").exists()
    subprocess.run(command(tiny_folder, killed, 6, "resume"), env=environment, check=True)
    assert_same_run(whole, killed, 6)
