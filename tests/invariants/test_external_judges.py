"""A run judged behind an address buys each verdict once, whatever stops it, and ends as if nothing had."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from small_session import DILEMMAS, PAIRS
from test_resume import CHECKPOINT_FILES

from comity.cli import main
from comity.runs import read_metrics
from comity.scenarios.rows import write_rows
from loopback import MODEL, Act, serve

# The price of one word in or out, in dollars: 1,000 and 10,000 dollars per million.
PRICES = f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 1000.0, output = 10000.0 }}\n'


def judge(prompt):
    """Agree with three rounds in four and score 0 to 5, by the prompt alone."""
    draw = hashlib.sha256(prompt.encode()).digest()[0]
    if "First line: YES or NO" in prompt:
        return "YES\nfair" if draw % 4 else "NO\nstill arguing"
    return f"{draw % 6}\nso it seems"


def words(folder, run, steps=4, **settings):
    """Return `comity train ...` for the tiny model: 2 scenarios x 4 rollouts, one round of 8 tokens a message."""
    rows = run.parent / "rows"
    if not rows.exists():
        write_rows(rows / "dilemmas.jsonl", DILEMMAS)
        write_rows(rows / "personas.jsonl", PAIRS)
        (rows / "prices.toml").write_text(PRICES)
    values = {
        "run": run, "dilemmas": rows / "dilemmas.jsonl", "personas": rows / "personas.jsonl", "save_every": 4,
        "threads": 1, "optimization.steps": steps, "optimization.scenarios_per_step": 2, "optimization.group_size": 4,
        "optimization.learning_rate": 1e-2, "optimization.micro_batch_tokens": 2048, "negotiation.rounds": 1,
        "negotiation.dialogue.max_tokens": 8, "negotiation.completion.max_tokens": 8, "model.name": folder,
        "model.dtype": "float32", "model.device": "cpu", "model.lora_rank": 4, "model.lora_alpha": 8,
        "judges.agreement": MODEL, "judges.agency": MODEL, "judges.heldout": "false", "access.connections": 1,
        "access.retries": 0, "access.cache": run.parent / f"{run.name}.sqlite", "access.prices": rows / "prices.toml",
    }  # fmt: skip
    return ["train", *(f"--{key}={value}" for key, value in (values | settings).items())]


def stable(run):
    """Return metrics rows without clock, memory and money, which a resumed run does not spend again."""
    unstable = ("time/", "memory/", "spend/")
    return [{k: v for k, v in row.items() if not k.startswith(unstable)} for row in read_metrics(run)]


def assert_same_run(one, other, steps):
    for name in CHECKPOINT_FILES:
        expected = (one / f"checkpoint-{steps}" / name).read_bytes()
        assert (other / f"checkpoint-{steps}" / name).read_bytes() == expected, name
    assert stable(one) == stable(other)
    for path in sorted((one / "negotiations").iterdir()):
        assert (other / "negotiations" / path.name).read_bytes() == path.read_bytes(), path.name


def train_whole(tmp_path, tiny_folder, monkeypatch, steps=4):
    """Train without any accident and return the run directory and the prompts that it paid for."""
    with serve(lambda call: judge(call.prompt)) as server:
        server.point(monkeypatch)
        assert main(words(tiny_folder, tmp_path / "whole", steps)) == 0
    assert set(server.counts().values()) == {1}
    return tmp_path / "whole", server.counts()


@pytest.mark.slow
def test_a_run_killed_while_it_pays_buys_each_verdict_once(tmp_path, tiny_folder, monkeypatch):
    whole, prompts = train_whole(tmp_path, tiny_folder, monkeypatch)
    killed, answered, reached = tmp_path / "killed", Counter(), threading.Event()
    # Silence after a third and after two thirds of the verdicts, in the middle of a step.
    silent = {len(prompts) // 3, 2 * len(prompts) // 3}

    def script(call):
        if sum(answered.values()) in silent:
            silent.discard(sum(answered.values()))
            reached.set()
            return Act("hang")
        answered[call.prompt] += 1
        return judge(call.prompt)

    with serve(script) as server:
        environment = {**os.environ, **server.environment(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "comity", *words(tiny_folder, killed)]
        for resume in ([], ["--resume"]):
            with subprocess.Popen([*command, *resume], env=environment) as process:
                deadline = time.monotonic() + 300
                while not reached.wait(0.1):
                    assert process.poll() is None, "the run ended before it was to be killed"
                    assert time.monotonic() < deadline
                process.kill()
            reached.clear()
        done = subprocess.run([*command, "--resume"], env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert answered == prompts  # every prompt of the whole run, each answered and paid for once
    # The two that were never answered came a second time.
    assert sorted(server.counts().values(), reverse=True)[:3] == [2, 2, 1]
    assert_same_run(whole, killed, 4)


@pytest.mark.slow
def test_a_step_without_verdicts_is_not_taken(tmp_path, tiny_folder, monkeypatch, capsys):
    whole, _ = train_whole(tmp_path, tiny_folder, monkeypatch, steps=3)
    run, out_of_order = tmp_path / "run", threading.Event()

    def script(call):
        if len(read_metrics(run)) == 2 and not out_of_order.is_set():
            return Act("status", status=429)
        return judge(call.prompt)

    with serve(script) as server:
        server.point(monkeypatch)
        assert main(words(tiny_folder, run, 3)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "8 of 8 rollouts of step 3 have no verdict (mostly: rate limit)" in error
        assert "--resume" in error
        # The state before that step is kept, although nothing was due to be saved.
        assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
        assert len(read_metrics(run)) == 2
        out_of_order.set()
        assert main([*words(tiny_folder, run, 3, **{"access.retries": 1}), "--resume"]) == 0
    assert_same_run(whole, run, 3)


@pytest.mark.slow
def test_a_share_of_failures_is_unscored_and_the_run_goes_on(tmp_path, tiny_folder, monkeypatch):
    run = tmp_path / "run"

    seen = []

    def script(call):
        seen.append(len(seen) % 5 != 4)  # each fifth call fails: one or two of the eight rollouts of a step, or three
        return judge(call.prompt) if seen[-1] else Act("status", status=500)

    with serve(script) as server:
        server.point(monkeypatch)
        assert main(words(tiny_folder, run, 2)) == 0
    rows = read_metrics(run)
    assert all(0 < row["unscored/share"] <= 0.5 for row in rows)
    assert sum(row["spend/calls"] for row in rows) == sum(seen) < len(seen)


@pytest.mark.slow
def test_a_run_stops_at_its_cap_and_goes_on_with_a_higher_one(tmp_path, tiny_folder, monkeypatch, capsys):
    whole, prompts = train_whole(tmp_path, tiny_folder, monkeypatch, steps=3)
    # What the whole run cost: each word of a prompt 0.001 dollars, each word of a verdict 0.01.
    cost = sum(0.001 * len(prompt.split()) + 0.01 * len(judge(prompt).split()) for prompt in prompts)
    assert sum(row["spend/dollars"] for row in read_metrics(whole)) == pytest.approx(cost)
    assert sum(row["spend/calls"] for row in read_metrics(whole)) == len(prompts)
    run = tmp_path / "run"
    capsys.readouterr()  # what the whole run told
    with serve(lambda call: judge(call.prompt)) as server:
        server.point(monkeypatch)
        # At most 16 tokens come back, so little is set aside for a verdict.
        short = words(tiny_folder, run, 3, **{"judges.reply_tokens": 16})
        assert main([*short, f"--max-spend={cost * 0.8}"]) == 2
        told = capsys.readouterr()
        error = told.err
        assert error.count("\n") == 1
        assert "raise --max-spend" in error
        # Each step says what each judge has cost so far, and the end what was bought of each.
        assert re.search(r"step 2/3 .*spent \d+\.\d{4} dollars \(agency \d+\.\d{4}, agreement \d+\.\d{4}\)", told.out)
        assert len(re.findall(rf"^(agency|agreement) by {MODEL}: \d+ calls paid", told.out, re.MULTILINE)) == 2
        spent = sum(0.001 * len(c.prompt.split()) + 0.01 * len(judge(c.prompt).split()) for c in server.calls)
        assert 0 < spent <= cost * 0.8
        assert len(read_metrics(run)) == 2
        assert main([*short, f"--max-spend={cost * 2}", "--resume"]) == 0
    assert server.counts() == prompts
    assert_same_run(whole, run, 3)
