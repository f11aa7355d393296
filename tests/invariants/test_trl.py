"""Our loss and its gradient equal TRL's GRPO (loss_type "dapo") on the same batch of a tiny LoRA model in float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import GRPOConfig, GRPOTrainer

from comity.config import OptimizationConfig
from comity.training.collate import make_micro_batches
from comity.training.loss import policy_loss
from comity.training.policy import token_logprobs, trainable_parameters
from comity.types import TurnSample
from tiny import build_model, build_tokenizer

PAD = 2
SETTINGS = OptimizationConfig(clip_low=0.2, clip_high=0.28, importance_cap=2.0)
ADVANTAGES = [1.5, -0.8, 0.0, 0.6, -1.3, 0.4]
TEMPERATURE = 0.7


def build_policy():
    """Return the tiny model with an adapter that already does something; the same each time."""
    model = get_peft_model(build_model(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def reward_nothing(completions, **_):
    return [0.0] * len(completions)


def build_trainer(model, folder, use_importance):
    config = GRPOConfig(
        output_dir=str(folder), loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, temperature=TEMPERATURE,
        num_generations=2, per_device_train_batch_size=6, gradient_accumulation_steps=1, max_completion_length=16,
        report_to="none", use_cpu=True, bf16=False, activation_checkpointing=False, disable_dropout=True,
        vllm_importance_sampling_mode="token_truncate", vllm_importance_sampling_clip_max=SETTINGS.importance_cap,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "Who draws first?"}] * 6)
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward_nothing, args=config, train_dataset=rows, processing_class=build_tokenizer()
    )
    # Only the loss is asked for: the flags that vLLM would set, without vLLM.
    trainer.use_vllm = use_importance
    trainer.vllm_importance_sampling_correction = use_importance
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def build_samples():
    """Return six turns: four share a beginning of 40 tokens, lengths differ everywhere."""
    rng = np.random.default_rng(3)
    shared = rng.integers(3, 300, 40)
    samples = []
    for number, advantage in enumerate(ADVANTAGES):
        tail = rng.integers(3, 300, 5 + 3 * number)
        prompt = np.concatenate([shared, tail]) if number < 4 else rng.integers(3, 300, 20 + number)
        sampled = rng.integers(3, 300, 4 + 2 * number % 9)
        mask = np.arange(len(prompt) + len(sampled)) >= len(prompt)
        tokens = np.concatenate([prompt, sampled]).astype(np.int32)
        samples.append(TurnSample(tokens, mask, np.zeros(len(tokens), np.float32), advantage, TEMPERATURE))
    return samples


def plain_logprobs(model, sample):
    """Return the log-probabilities of a sample's trained tokens by one plain forward pass."""
    ids = torch.tensor(sample.token_ids, dtype=torch.long)[None]
    with torch.no_grad():
        logprobs = (model(input_ids=ids).logits[0, :-1] / TEMPERATURE).log_softmax(-1)
    return logprobs.gather(1, ids[0, 1:, None])[:, 0][torch.tensor(sample.loss_mask[1:])]


def move(logprobs, seed, width):
    """Return log-probabilities moved by noise, as those of an engine or of an earlier policy."""
    noise = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(seed))
    return logprobs + width * noise


def to_trl(samples, sampled, old):
    """Lay samples out as TRL does: prompts padded left, completions right."""
    prompts = [torch.tensor(s.token_ids[~s.loss_mask], dtype=torch.long) for s in samples]
    completions = [torch.tensor(s.token_ids[s.loss_mask], dtype=torch.long) for s in samples]
    lengths = max(map(len, prompts)), max(map(len, completions))

    def left(rows, value):
        return torch.stack([torch.nn.functional.pad(r, (lengths[0] - len(r), 0), value=value) for r in rows])

    def right(rows, value):
        return torch.stack([torch.nn.functional.pad(r, (0, lengths[1] - len(r)), value=value) for r in rows])

    mask = right([torch.ones_like(c) for c in completions], 0)
    inputs = {
        "prompt_ids": left(prompts, PAD),
        "prompt_mask": left([torch.ones_like(p) for p in prompts], 0),
        "completion_ids": right(completions, PAD),
        "completion_mask": mask,
        "advantages": torch.tensor([s.advantage for s in samples]),
        "num_items_in_batch": mask.sum().float(),
    }
    if old is not None:
        inputs["old_per_token_logps"] = right(old, 0.0)
    if sampled is not None:
        # As in GRPOTrainer._generate_and_score_completions, mode token_truncate.
        difference = (inputs["old_per_token_logps"] - right(sampled, 0.0)) * mask
        inputs["importance_sampling_ratio"] = difference.exp().clamp(max=SETTINGS.importance_cap)
    return inputs


def our_loss(model, samples, old, settings, budget):
    """Return loss and gradients by parameter through micro-batches, as `update_policy` adds them up."""
    step_tokens = sum(int(s.loss_mask.sum()) for s in samples)
    total = 0.0
    for batch in make_micro_batches(samples, budget, PAD):
        logprobs, _ = token_logprobs(model, batch)
        before = logprobs.detach()
        if old is not None:
            # Rows of a batch in their order; each sample is known by its advantage.
            rows = [int((batch.loss_row_N == i).nonzero()[0]) for i in range(len(batch.suffix_ids_BS))]
            advantages = [float(batch.advantages_N[row]) for row in rows]
            before = torch.cat([old[int(np.argmin(np.abs(np.array(ADVANTAGES) - a)))] for a in advantages])
        output = policy_loss(logprobs, before, batch.sampled_logprobs_N, batch.advantages_N, settings, step_tokens)
        output.loss.backward()
        total += float(output.loss.detach())
    return total, {name: p.grad.clone() for name, p in trainable_parameters(model).items()}


@pytest.mark.parametrize("budget", [10**6, 150], ids=["one batch", "many batches"])
@pytest.mark.parametrize("epoch", [0, 1], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize("use_importance", [False, True], ids=["no weights", "importance weights"])
def test_loss_and_gradient_equal_trl(tmp_path, use_importance, epoch, budget):
    ours, theirs = build_policy(), build_policy()
    samples = build_samples()
    now = [plain_logprobs(ours, s) for s in samples]
    # In a later epoch the old log-probabilities are those of the policy before it moved: some ratios are clipped.
    old = [move(row, 10 + i, 0.3) for i, row in enumerate(now)] if epoch else None
    before = now if old is None else old
    sampled = [move(row, 20 + i, 0.8) for i, row in enumerate(before)]
    for number, sample in enumerate(samples):
        logprobs = np.zeros(len(sample.token_ids), np.float32)
        logprobs[sample.loss_mask] = sampled[number].numpy()
        samples[number] = replace(sample, logprobs=logprobs)
    settings = SETTINGS if use_importance else replace(SETTINGS, importance_cap=0.0)

    trainer = build_trainer(theirs, tmp_path, use_importance)
    # With engine weights TRL always gives the old log-probabilities.
    given = before if use_importance else old
    inputs = to_trl(samples, sampled if use_importance else None, given)
    expected = trainer.compute_loss(trainer.model, inputs)
    expected.backward()
    loss, gradients = our_loss(ours, samples, old, settings, budget)

    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    parameters = trainable_parameters(trainer.model)
    assert parameters.keys() == gradients.keys()
    for name, parameter in parameters.items():
        torch.testing.assert_close(
            gradients[name], parameter.grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert float(parameter.grad.abs().max()) > 1e-3  # the tolerance says something
    if epoch:
        ratios = torch.cat([(n - o).exp() for n, o in zip(now, old, strict=True)])
        assert bool((ratios > 1.28).any())
        assert bool((ratios < 0.8).any())
    if use_importance:
        weights = inputs["importance_sampling_ratio"]
        assert bool((weights == SETTINGS.importance_cap).any())
        assert bool((weights < 1).any())
