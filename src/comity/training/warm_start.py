"""Warm start: fine-tune a small model on demonstration dialogues with TRL's SFTTrainer.

Each demonstrated message becomes one row with the prompt that the protocol would show its speaker, so training and
play see the same text.
"""

import random
from importlib import resources
from pathlib import Path
from typing import Any

from comity.config import NegotiationConfig
from comity.negotiation.protocol import pending, seat_messages, start
from comity.scenarios.load import load_dilemmas, load_persona_pairs, make_scenario
from comity.scenarios.rows import Row, read_rows
from comity.types import Completion, Message, Negotiation, Request, Turn

DEMONSTRATION_FIELDS = {
    "id": str,
    "dilemma_id": str,
    "pair_id": str,
    "swapped": bool,
    "messages": list,
    "agreed": bool,
    "completion?": str,
    "author": str,
}


def shipped_demonstrations() -> Path:
    """Return the path of the shipped demonstration dialogues."""
    return Path(str(resources.files(__package__).joinpath("data", "demonstrations.jsonl")))


def shipped_adapter() -> Path:
    """Return the folder of the shipped warm-start adapter for the embedded model."""
    return Path(str(resources.files(__package__).joinpath("warm_start_adapter")))


def demonstration_rows(path: Path, rules: NegotiationConfig) -> list[dict[str, Any]]:
    """Turn demonstrations into rows `prompt`, `completion` (chat messages), one for each message and joint answer."""
    dilemmas = {row["id"]: row for row in load_dilemmas()}
    pairs = {row["id"]: row for row in load_persona_pairs()}
    rows: list[dict[str, Any]] = []
    for demo in read_rows(path, DEMONSTRATION_FIELDS):
        scenario = make_scenario(dilemmas[demo["dilemma_id"]], pairs[demo["pair_id"]], demo["swapped"])
        rows.extend(_rows_of(demo, start(scenario), rules))
    return rows


def _rows_of(demo: Row, state: Negotiation, rules: NegotiationConfig) -> list[dict[str, Any]]:
    rows = []
    turns: tuple[Turn, ...] = ()
    for index, text in enumerate(demo["messages"]):
        state = Negotiation(state.scenario, turns=turns)
        rows.append(_row("message", seat_messages(state, index % 2, rules), text))
        turns = (*turns, Turn(index % 2, Completion(text)))
    if demo["completion"]:
        ended = Negotiation(state.scenario, turns=turns, ending="agreed")
        request = pending(ended, rules)
        assert isinstance(request, Request)
        rows.append(_row("summary", request.messages, demo["completion"]))
    return rows


def _row(kind: str, messages: tuple[Message, ...], text: str) -> dict[str, Any]:
    return {"kind": kind, "prompt": list(messages), "completion": [{"role": "assistant", "content": text}]}


def fit_warm_start(
    out: Path,
    model_name: str = "embedded",
    demonstrations: Path | None = None,
    share: float = 0.5,
    learning_rate: float = 5e-4,
    epochs: float = 1.0,
    seed: int = 0,
) -> None:
    """Fit a LoRA adapter on a share of the demonstrated messages and write it to `out` as a PEFT folder.

    Source of the recipe: supervised fine-tuning on replies only (loss on the completion).
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    from comity.engines.models import load_model, load_tokenizer

    rows = demonstration_rows(demonstrations or shipped_demonstrations(), NegotiationConfig())
    random.Random(seed).shuffle(rows)
    rows = rows[: round(len(rows) * share)]
    dataset = Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
    settings = SFTConfig(
        output_dir=str(out / "trainer"),
        learning_rate=learning_rate,
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        lr_scheduler_type="cosine",
        warmup_steps=4,
        max_length=1024,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        train_sampling_strategy="group_by_length",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_steps=5,
        report_to="none",
        seed=seed,
    )
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    # Adapters in the compute dtype: in float32 the casts around every layer cost more than the layers on a CPU.
    model = get_peft_model(load_model(model_name), adapter, autocast_adapter_dtype=False)
    trainer = SFTTrainer(model=model, args=settings, train_dataset=dataset, processing_class=load_tokenizer(model_name))
    trainer.train()
    trainer.model.save_pretrained(out)
