"""TRL's GRPOTrainer as a contender, tuned as docs/performance.md says."""

import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comity.bench.outcomes import Contender, Outcome
from comity.bench.settings import BenchSettings
from comity.bench.work import SAMPLING, Row, choose_reward, forbid_stopping, optimization_settings
from comity.config import ModelConfig
from comity.engines.models import load_tokenizer
from comity.errors import ComityError, ConfigError
from comity.training.policy import load_policy

MICRO_BATCH_ROWS = 8
"""Rows of one forward and backward pass."""
GENERATED_ROWS = 32
"""Rows that are generated at once."""


def require_trl() -> None:
    """Raise ConfigError unless TRL and what it reads its rows with are installed."""
    for package in ("trl", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"--against trl needs {package}: run `pip install comity[bench]`")


class Rounds:
    """The rows of the present repeat in TRL's order, and the seconds of its parts."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Row]] = {}
        self.generated = 0
        self.rollout_seconds = 0.0
        self.begun = 0.0
        self.seconds = 0.0


def open_trl(settings: BenchSettings, folder: Path) -> Contender:
    """Return what takes one step of GRPOTrainer on the given rows; `step` generates their messages anew before.

    TRL knows single-turn rows, so each message is a row with its whole prompt; `folder` is its output directory.
    """
    require_trl()
    rounds = Rounds()
    trainer = build_trainer(settings, rounds, folder)

    def run(_: int, rows: Sequence[Row]) -> Outcome:
        arrange_rows(rounds, rows)
        trainer.train()
        if settings.measured == "update":
            tokens = sum(len(row.prompt) + len(row.tokens) for row in rows)
            return Outcome({"update": rounds.seconds}, tokens, list(rows))
        parts = {"rollout": rounds.rollout_seconds, "update": rounds.seconds - rounds.rollout_seconds}
        return Outcome(parts, rounds.generated, list(rows))

    return run


def arrange_rows(rounds: Rounds, rows: Sequence[Row]) -> None:
    """Make the rows those of the next step."""
    rounds.groups = {}
    for row in rows:
        rounds.groups.setdefault(_name_group(row.message, row.scenario), []).append(row)
    rounds.generated, rounds.rollout_seconds = 0, 0.0


def _name_group(message: int, scenario: int) -> str:
    return f"{message}/{scenario}"


def build_trainer(settings: BenchSettings, rounds: Rounds, folder: Path) -> Any:
    """Return a GRPOTrainer whose step is one optimiser step on all rows of `rounds`."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # it warns of `rollout_func`
    import datasets
    import trl

    score_trained_positions_only()
    model = load_policy(ModelConfig(name=settings.model, dtype=settings.dtype, device="cpu"))  # type: ignore[arg-type]
    tokenizer = load_tokenizer(settings.model)
    forbid_stopping(model, tokenizer)
    keys = [
        _name_group(message, scenario)
        for message in range(settings.messages)
        for scenario in range(settings.dialogues // settings.group_size)
    ]

    def roll_out(prompts: list[str], trainer: Any) -> dict[str, Any]:
        # TRL repeats each of its prompts for a group; ours stand behind the name of the group.
        begun = time.perf_counter()
        rows = [rounds.groups[key][place % settings.group_size] for place, key in enumerate(prompts)]
        asked = [row.prompt for row in rows]
        written = [row.tokens for row in rows]
        if settings.measured == "step":
            written, _ = trainer._generate_single_turn(asked, None, {}, settings.group_size)
            rounds.generated += sum(map(len, written))
            rounds.rollout_seconds += time.perf_counter() - begun
        return {"prompt_ids": asked, "completion_ids": written, "logprobs": None}

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [choose_reward(place % settings.group_size) for place in range(len(completions))]

    return trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=trl_arguments(settings, folder),
        train_dataset=datasets.Dataset.from_list([{"prompt": key} for key in keys]),
        processing_class=tokenizer,
        rollout_func=roll_out,
        callbacks=[_step_clock(rounds)],
    )


def trl_arguments(settings: BenchSettings, folder: Path) -> Any:
    """Return the GRPOConfig: our loss and sampling, and what makes TRL fast on a CPU."""
    import trl

    rules = optimization_settings(settings)
    rows = settings.dialogues * settings.messages
    micro = _largest_divisor(rows, MICRO_BATCH_ROWS)
    generated = _largest_divisor(rows, max(GENERATED_ROWS, settings.group_size), settings.group_size)
    while generated % micro:
        micro -= 1
    return trl.GRPOConfig(
        output_dir=str(folder), report_to="none", disable_tqdm=True, logging_strategy="no", save_strategy="no",
        max_steps=1, use_cpu=True, bf16=False, seed=settings.seed, shuffle_dataset=False,
        learning_rate=rules.learning_rate, weight_decay=rules.weight_decay, max_grad_norm=rules.max_grad_norm,
        loss_type="dapo", epsilon=rules.clip_low, epsilon_high=rules.clip_high, beta=0.0, scale_rewards="none",
        temperature=SAMPLING.temperature, top_p=SAMPLING.top_p, top_k=0,
        num_generations=settings.group_size, max_completion_length=settings.tokens,
        per_device_train_batch_size=micro, gradient_accumulation_steps=rows // micro,
        steps_per_generation=generated // micro, disable_dropout=True,
        # By default every activation is computed twice.
        activation_checkpointing=False, gradient_checkpointing=False,
    )  # fmt: skip


def score_trained_positions_only() -> None:
    """Let TRL compute logits of the trained positions alone on a CPU too, as it does on other devices.

    It chooses between those and all positions of prompt and message by this function, which it asks for nothing else
    in that module.
    """
    from trl.trainer import utils

    if not hasattr(utils, "_use_triton"):
        raise ComityError("--against trl: this version of trl chooses its logits otherwise; install trl 1.16")
    utils._use_triton = lambda device: True


def _step_clock(rounds: Rounds) -> Any:
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):  # type: ignore[misc]
        """Measure from the first micro-batch to the optimiser's step, without the making of loaders and optimiser."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            rounds.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            rounds.seconds = time.perf_counter() - rounds.begun

    return StepClock()


def _largest_divisor(number: int, most: int, multiple: int = 1) -> int:
    # `number` is itself a multiple of `multiple`.
    return max(d for d in range(multiple, min(number, most) + 1, multiple) if number % d == 0)
