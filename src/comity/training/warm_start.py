"""Warm start: fine-tune a small model on demonstration dialogues with transformers' Trainer.

Each demonstrated message becomes one row with the prompt that the protocol would show its speaker, so training and
play see the same text.
"""

import random
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from comity.config import NegotiationConfig
from comity.errors import DataError
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
SECOND_RATE = 0.7
"""The learning rate of the second pass, as a share of that of the first."""
SECOND_WEIGHT = 0.4
"""How far the adapter goes from its weights after the first pass to those after the second."""


def shipped_demonstrations() -> Path:
    """Return the path of the shipped demonstration dialogues."""
    return Path(str(resources.files(__package__).joinpath("data", "demonstrations.jsonl")))


def shipped_adapter() -> Path:
    """Return the folder of the shipped warm-start adapter for the embedded model."""
    return Path(str(resources.files(__package__).joinpath("warm_start_adapter")))


def demonstration_rows(path: Path, rules: NegotiationConfig) -> list[dict[str, Any]]:
    """Turn demonstrations into rows `prompt`, `completion` (chat messages), one for each message and joint answer.

    `second_pass` says whether a row's dialogue is learned from once more, after all others.
    """
    dilemmas = {row["id"]: row for row in load_dilemmas()}
    pairs = {row["id"]: row for row in load_persona_pairs()}
    rows: list[dict[str, Any]] = []
    for demo in read_rows(path, DEMONSTRATION_FIELDS):
        if not isinstance(demo.get("second_pass", False), bool):
            raise DataError(f"{path}, row {demo['id']!r}, field second_pass: give true or false, or leave it out")
        scenario = make_scenario(dilemmas[demo["dilemma_id"]], pairs[demo["pair_id"]], demo["swapped"])
        rows.extend(_rows_of(demo, start(scenario), rules))
    return rows


def _rows_of(demo: Row, state: Negotiation, rules: NegotiationConfig) -> list[dict[str, Any]]:
    rows = []
    turns: tuple[Turn, ...] = ()
    for index, text in enumerate(demo["messages"]):
        state = Negotiation(state.scenario, turns=turns)
        rows.append(_row(demo, "message", seat_messages(state, index % 2, rules), text))
        turns = (*turns, Turn(index % 2, Completion(text)))
    if demo["completion"]:
        ended = Negotiation(state.scenario, turns=turns, ending="agreed")
        request = pending(ended, rules)
        assert isinstance(request, Request)
        rows.append(_row(demo, "summary", request.messages, demo["completion"]))
    return rows


def _row(demo: Row, kind: str, messages: tuple[Message, ...], text: str) -> dict[str, Any]:
    reply = [{"role": "assistant", "content": text}]
    return {"kind": kind, "prompt": list(messages), "completion": reply, "second_pass": demo.get("second_pass", False)}


def fit_warm_start(
    out: Path,
    model_name: str = "embedded",
    demonstrations: Path | None = None,
    share: float = 1.0,
    learning_rate: float = 1e-3,
    epochs: float = 1.0,
    seed: int = 0,
) -> None:
    """Fit a LoRA adapter on a share of the demonstrated messages and write it to `out` as a PEFT folder.

    Rows marked `second_pass` are learned from once more, after all others, and the adapter is a mean of both passes. A
    small model does nearly always what it saw most: after the first pass it refuses, after the second it accepts. The
    mean does both, so reinforcement learning has something to choose from.
    Source of the recipe: supervised fine-tuning on replies only (loss on the completion).
    """
    from peft import LoraConfig, get_peft_model

    from comity.engines.models import load_model, load_tokenizer

    rows = demonstration_rows(demonstrations or shipped_demonstrations(), NegotiationConfig())
    random.Random(seed).shuffle(rows)
    rows = rows[: round(len(rows) * share)]
    again = [row for row in rows if row["second_pass"]]
    tokenizer = load_tokenizer(model_name)
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    # Adapters in the compute dtype: in float32 the casts around every layer cost more than the layers on a CPU.
    model = get_peft_model(load_model(model_name), adapter, autocast_adapter_dtype=False)
    _learn(model, tokenizer, rows, _trainer_settings(out, learning_rate, epochs, seed))
    if again:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        first = [parameter.detach().clone() for parameter in trained]
        _learn(model, tokenizer, again, _trainer_settings(out, SECOND_RATE * learning_rate, epochs, seed))
        for parameter, begun in zip(trained, first, strict=True):
            parameter.data = begun.float().lerp(parameter.data.float(), SECOND_WEIGHT).to(parameter.dtype)
    model.save_pretrained(out)


def _trainer_settings(out: Path, learning_rate: float, epochs: float, seed: int) -> Any:
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(out / "trainer"),
        learning_rate=learning_rate,
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        lr_scheduler_type="cosine",
        warmup_steps=4,
        train_sampling_strategy="group_by_length",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=5,
        report_to="none",
        seed=seed,
    )


def _learn(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], settings: Any) -> None:
    from transformers import Trainer

    from comity.training.masters import MasterAdamW

    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=[_encode(row, tokenizer) for row in rows],
        data_collator=partial(_collate, pad_id=tokenizer.pad_token_id),
        compute_loss_func=_reply_loss,
        optimizers=(MasterAdamW(trained, lr=settings.learning_rate), None),
    )
    trainer.train()


def _encode(row: dict[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    reply_ids = tokenizer.encode(row["completion"][0]["content"], add_special_tokens=False)
    reply_ids = [*reply_ids, tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + reply_ids, "labels": [-100] * len(prompt_ids) + reply_ids}


def _collate(examples: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, Any]:
    # Padded on the left, so that all replies stand at the end and only their places need logits.
    import torch

    width = max(len(example["input_ids"]) for example in examples)
    replies = max(sum(label != -100 for label in example["labels"]) for example in examples)

    def pad(values: list[int], filler: int) -> list[int]:
        return [filler] * (width - len(values)) + values

    return {
        "input_ids": torch.tensor([pad(example["input_ids"], pad_id) for example in examples]),
        "attention_mask": torch.tensor([pad([1] * len(example["input_ids"]), 0) for example in examples]),
        "labels": torch.tensor([pad(example["labels"], -100) for example in examples]),
        "logits_to_keep": replies + 1,
    }


def _reply_loss(outputs: Any, labels_BT: Any, num_items_in_batch: Any = None) -> Any:
    # The mean over the reply tokens of the whole optimiser step.
    from torch.nn.functional import cross_entropy

    logits_BKV = outputs.logits[:, :-1].float()
    targets_BK = labels_BT[:, -logits_BKV.shape[1] :]
    total = cross_entropy(logits_BKV.flatten(0, 1), targets_BK.flatten(), ignore_index=-100, reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else (targets_BK != -100).sum())
