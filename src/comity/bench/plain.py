"""transformers and PEFT as a contender: `generate`, and an update written down as plainly as it goes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from comity.bench.outcomes import Contender, Outcome, Stopwatch
from comity.bench.settings import BenchSettings
from comity.bench.work import SAMPLING, Row, choose_reward, optimization_settings, split_messages
from comity.config import ModelConfig
from comity.engines.models import decoder_of, load_model
from comity.training.policy import load_policy, trainable_parameters

MICRO_BATCH_ROWS = 4
"""Rows of one forward and backward pass of the update; 4 was the fastest of 4, 8 and 16."""
ENCODED_ROWS = 8
PAD = 0
"""Padded places are masked, so any id does."""


def open_plain(settings: BenchSettings) -> Contender:
    """Return what does the work of the settings with transformers and PEFT."""
    opens = {"rollout": open_generation, "update": open_update, "judge": open_encoding}
    return opens[settings.measured](settings)


def open_generation(settings: BenchSettings) -> Contender:
    """Return what calls `generate` for all first messages, then all second ones and so on, with the same prompts.

    The model is plain: a fresh adapter changes nothing, and merging it is spared.
    """
    model = load_model(settings.model, settings.dtype)

    def run(repeat: int, rows: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        torch.manual_seed(repeat)
        with watch.measure("rollout"):
            drawn = sum(_generate(model, batch, settings.tokens) for batch in split_messages(rows))
        return Outcome(watch.parts, drawn, list(rows))

    return run


def pad_left(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask (B, T) of sequences that all end at the last column."""
    longest = max(map(len, sequences))
    ids_BT = torch.tensor([[PAD] * (longest - len(row)) + list(row) for row in sequences])
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in sequences])
    return ids_BT, mask_BT


def _generate(model: PreTrainedModel, rows: Sequence[Row], tokens: int) -> int:
    ids_BT, mask_BT = pad_left([row.prompt for row in rows])
    result_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        max_new_tokens=tokens,
        do_sample=True,
        temperature=SAMPLING.temperature,
        top_p=SAMPLING.top_p,
        top_k=0,  # 50 by default, which would draw from another distribution
        pad_token_id=PAD,
        eos_token_id=model.config.get_text_config().vocab_size,  # an id without a logit: no text ends early
    )
    return int(result_BT[:, ids_BT.shape[1] :].numel())


def open_update(settings: BenchSettings) -> Contender:
    """Return what trains once on the given rows with PEFT and AdamW: the clipped surrogate over all trained tokens.

    Its adapter has the compute dtype, logits are of the trained positions alone, and rows of like length go together.
    """
    model = load_policy(ModelConfig(name=settings.model, dtype=settings.dtype, device="cpu"))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(
        trainable_parameters(model).values(), lr=optimization_settings(settings).learning_rate
    )

    def run(_: int, rows: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("update"):
            learn_plainly(model, optimizer, rows, settings)
        return Outcome(watch.parts, sum(len(row.prompt) + len(row.tokens) for row in rows), list(rows))

    return run


def learn_plainly(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, rows: Sequence[Row], settings: BenchSettings
) -> None:
    """Take one step of the optimiser on the rows."""
    rules = optimization_settings(settings)
    mean = sum(map(choose_reward, range(settings.group_size))) / settings.group_size
    trained = sum(len(row.tokens) for row in rows)
    ordered = sorted(rows, key=lambda row: len(row.prompt))
    for place in range(0, len(ordered), MICRO_BATCH_ROWS):
        batch = ordered[place : place + MICRO_BATCH_ROWS]
        advantage_B1 = torch.tensor([[choose_reward(row.sample) - mean] for row in batch])
        logprob_BN = _token_logprobs(model, batch, settings.tokens)
        ratio_BN = (logprob_BN - logprob_BN.detach()).exp()
        clipped_BN = ratio_BN.clamp(1 - rules.clip_low, 1 + rules.clip_high)
        loss = -torch.minimum(ratio_BN * advantage_B1, clipped_BN * advantage_B1).sum() / trained
        loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trainable_parameters(model).values(), rules.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _token_logprobs(model: PreTrainedModel, batch: Sequence[Row], tokens: int) -> Tensor:
    ids_BT, mask_BT = pad_left([row.prompt + row.tokens for row in batch])
    logits_BNV = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=tokens + 1,
        use_cache=False,
    ).logits[:, :-1]
    logprobs_BNV = (logits_BNV.float() / SAMPLING.temperature).log_softmax(-1)
    logprob_BN: Tensor = logprobs_BNV.gather(2, ids_BT[:, -tokens:, None])[:, :, 0]
    return logprob_BN


def open_encoding(settings: BenchSettings) -> Contender:
    """Return what reads the hidden states of all layers for the prompts of each call, the shortest first."""
    decoder = decoder_of(load_model(settings.model, settings.dtype))

    @torch.inference_mode()
    def run(_: int, rows: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("judge"):
            for call in split_messages(rows):
                ordered = sorted(call, key=lambda row: len(row.prompt))
                for place in range(0, len(ordered), ENCODED_ROWS):
                    ids_BT, mask_BT = pad_left([row.prompt for row in ordered[place : place + ENCODED_ROWS]])
                    decoder(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=True, use_cache=False)
        return Outcome(watch.parts, sum(len(row.prompt) for row in rows), list(rows))

    return run
