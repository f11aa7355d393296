"""The written-down gradients against autograd through PEFT and transformers, parameter by parameter."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from comity.engines.llama import open_llama
from comity.training.collate import make_micro_batches
from comity.training.llama_gradient import pack_batch
from comity.training.policy import token_logprobs, trainable_parameters
from comity.types import TurnSample
from tiny import build_model

PAD = 2


def build_policy(dtype, **changes):
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | changes
    model = get_peft_model(build_model().to(dtype), LoraConfig(**settings), autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def build_samples():
    """Return samples of two shared beginnings and of their own, some with tokens that are not trained in between."""
    rng = np.random.default_rng(1)
    beginnings = [rng.integers(3, 300, 40), rng.integers(3, 300, 60)]
    samples = []
    for number in range(10):
        tail, sampled = rng.integers(3, 300, 1 + number % 4 * 7), rng.integers(3, 300, 3 + number % 3 * 5)
        prompt = np.concatenate([beginnings[number % 3], tail]) if number % 3 < 2 else rng.integers(3, 300, 12)
        tokens = np.concatenate([prompt, sampled]).astype(np.int32)
        mask = np.arange(len(tokens)) >= len(prompt)
        if number % 2:
            mask[len(prompt) + 1 : len(prompt) + 3] = False
        logprobs = np.zeros(len(tokens), np.float32)
        samples.append(TurnSample(tokens, mask, logprobs, float(rng.normal()), (0.7, 1.0)[number % 2]))
    return samples


def plain_logprobs(model, sample):
    """Return the log-probabilities of one sample's trained tokens through PEFT and transformers."""
    ids = torch.from_numpy(sample.token_ids.astype(np.int64))
    place = torch.from_numpy(sample.loss_mask.nonzero()[0])
    logits = model(input_ids=ids[None]).logits[0, place - 1].double() / sample.temperature
    return logits.log_softmax(-1).gather(1, ids[place, None])[:, 0]


def collect(model, logprobs, advantages):
    (logprobs * advantages).sum().backward()
    gradients = {name: parameter.grad.double() for name, parameter in trainable_parameters(model).items()}
    model.zero_grad()
    return gradients


def our_gradients(model, samples, budget):
    parts = []
    for batch in make_micro_batches(samples, budget, PAD):
        logprobs, _ = token_logprobs(model, batch)
        parts.append(collect(model, logprobs, batch.advantages_N))
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def their_gradients(model, samples):
    parts = [collect(model, plain_logprobs(model, sample), sample.advantage) for sample in samples]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def distance(one, other):
    """Return the largest relative distance of two sets of gradients over all parameters."""
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "down_proj"]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_gradients_of_every_parameter_are_autograds(dtype, tolerance, targets):
    model, samples = build_policy(dtype, target_modules=targets), build_samples()
    assert open_llama(model) is not None
    theirs = their_gradients(model, samples)
    assert all(float(gradient.norm()) > 0 for gradient in theirs.values())
    for budget in (10**6, 200):
        ours = our_gradients(model, samples, budget)
        assert ours.keys() == theirs.keys()
        # The loss's own float32 (advantages, temperatures) is what is left in float64.
        assert distance(ours, theirs) < tolerance


def test_gradients_in_bfloat16_are_as_near_the_truth_as_autograds():
    samples = build_samples()
    rounded = build_policy(torch.bfloat16)
    exact = build_policy(torch.float64)
    with torch.no_grad():
        for parameter, other in zip(exact.parameters(), rounded.parameters(), strict=True):
            parameter.copy_(other)
    truth = their_gradients(exact, samples)
    ours, theirs = (
        distance(found, truth) for found in (our_gradients(rounded, samples, 10**6), their_gradients(rounded, samples))
    )
    assert ours < 1.5 * theirs


def test_nothing_but_needed_tokens_is_computed():
    samples = build_samples()
    (batch,) = make_micro_batches(samples, 10**6, PAD)
    packed, place_N = pack_batch(batch)
    # Every row without its last trained token and what follows; beginnings once.
    needed = sum(int(sample.loss_mask.nonzero()[0][-1]) for sample in samples)
    shared = batch.prefix_mask_CP.sum(1)[batch.prefix_of_B].sum() - batch.prefix_mask_CP.sum()
    assert len(packed.ids_T) == needed - int(shared)
    trained = batch.suffix_ids_BS[batch.loss_row_N, batch.loss_place_N - 1]
    assert packed.ids_T[place_N].tolist() == trained.tolist()


def test_another_architecture_learns_through_transformers():
    config = Qwen2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(Qwen2ForCausalLM(config), LoraConfig(r=4, target_modules="all-linear")).eval()
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    assert open_llama(model) is None
    samples = build_samples()
    assert distance(our_gradients(model, samples, 200), their_gradients(model, samples)) < 1e-4


def test_without_gradients_nothing_is_kept():
    model = build_policy(torch.float32)
    (batch,) = make_micro_batches(build_samples(), 10**6, PAD)
    with torch.no_grad():
        logprobs, _ = token_logprobs(model, batch)
    assert not logprobs.requires_grad
