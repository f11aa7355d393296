"""A training session of the tiny model whose judges are plain functions of the text; also a command that runs one.

`python small_session.py MODEL RUN STEPS [resume] [hang:N] [rank:R] [timeout:S] [budget:B] [meet]` trains in RUN and
says whether it holds the base whole or spread. With `hang:N` it stops in the middle of step N, writes RUN/hanging and
waits to be killed, or only the process of rank R does. A launcher's environment makes it one of several processes,
which wait at most S seconds for each other; with `meet` they join once all of them have started. B tokens at most go
through the model at once in the update.
"""

import os
import sys
import time
from pathlib import Path

import torch

from comity.config import ModelConfig, NegotiationConfig, OptimizationConfig, TrainConfig, to_plain
from comity.engines.local import LocalEngine
from comity.engines.models import load_tokenizer
from comity.errors import ComityError
from comity.judges.panel import Panel
from comity.runs import create_run, read_metrics
from comity.training.distributed import ONE_PROCESS, open_processes, run_on_writer
from comity.training.policy import PolicyOptimizer, load_policy
from comity.training.session import Session
from comity.training.sharding import is_sharded, shard_base, wants_sharding
from comity.training.trainer import run_steps
from comity.types import Sampling, Verdict

DILEMMAS = [
    {
        "id": f"d{number}", "tier": "everyday", "domain": "water", "split": "train",
        "dilemma": f"Field {number} is dry and the well gives {number + 2} pails. Who draws first?",
    }
    for number in range(3)
]  # fmt: skip
PAIRS = [
    {"id": f"p{number}", "tension": "cost or quality", "persona_a": f"Save {number} coins.", "persona_b": "Do it well."}
    for number in range(2)
]


def judge_agreement(endings):
    """Agree on about two rounds in three, by the length of the policy's message."""
    return [_verdict(float(len(item.message_a) % 3 > 0)) for item in endings]


def judge_agency(answers):
    """Score 0 to 5 by how many characters the joint answer has."""
    return [_verdict(float(len(item.answer) % 6)) for item in answers]


def _verdict(score):
    return Verdict(judge="plain function", template_hash="", score=score, agreed=score > 0)


def build_config(folder, run, steps=4, resume=False, **optimization):
    """Return small settings: 2 scenarios x 4 rollouts, one round of 8 tokens a message."""
    sampling = Sampling(0.7, 0.95, 8)
    given = {"learning_rate": 1e-2, "scenarios_per_step": 2, "group_size": 4, "micro_batch_tokens": 2048}
    return TrainConfig(
        run=Path(run),
        resume=resume,
        save_every=2,
        threads=1,
        model=ModelConfig(name=str(folder), dtype="float32", device="cpu", lora_rank=4, lora_alpha=8),
        negotiation=NegotiationConfig(rounds=1, dialogue=sampling, completion=sampling),
        optimization=OptimizationConfig(steps=steps, **(given | optimization)),
    )


def build_session(config, agreement=judge_agreement, agency=judge_agency, processes=ONE_PROCESS):
    """Return a session as `open_session` does, with other judges and rows."""
    torch.set_num_threads(1)
    model = load_policy(config.model)
    if wants_sharding(config.model, processes.world_size):
        shard_base(model)
    engine = LocalEngine(model, load_tokenizer(config.model.name))
    optimizer = PolicyOptimizer.create(model, config.optimization)
    return Session(config, model, engine, Panel(agreement, agency), optimizer, DILEMMAS, PAIRS, processes)


def meet(folder):
    """Wait until every process of the launcher has come here, with all that it imports."""
    import accelerate  # noqa: F401

    (folder / f"here-{os.environ['RANK']}").touch()
    while len(list(folder.glob("here-*"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.02)


def main(folder, run, steps, *options):
    """Train as `comity.training.trainer.train` does; see the module docstring."""
    numbers = {name: int(value) for name, _, value in (option.partition(":") for option in options) if value}
    budget = numbers.get("budget", 2048)
    config = build_config(folder, run, int(steps), resume="resume" in options, micro_batch_tokens=budget)
    hang, hanging_rank = numbers.get("hang", 0), numbers.get("rank", 0)
    if "meet" in options:
        meet(config.run.parent)
    processes = open_processes("cpu", numbers.get("timeout", 1200))

    def stop(_negotiations):
        if hang and processes.rank == hanging_rank and len(read_metrics(config.run)) == hang - 1:
            (config.run / "hanging").touch()
            while True:
                time.sleep(60)

    run_on_writer(processes, lambda: create_run(config.run, to_plain(config), config.resume))
    session = build_session(config, processes=processes)
    # A file each: launchers start Python unbuffered, and the lines of several processes run together.
    (config.run.parent / f"base-{processes.rank}").write_text("spread" if is_sharded(session.model) else "whole")
    run_steps(session, on_progress=stop)
    processes.close()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ComityError as error:
        sys.exit(f"{type(error).__name__}: {error}")
