"""One update is the same however its samples are split and whatever beginnings are shared."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from comity.config import NegotiationConfig, OptimizationConfig
from comity.engines.local import LocalEngine
from comity.training.collate import make_micro_batches
from comity.training.loss import policy_loss
from comity.training.policy import PolicyOptimizer, token_logprobs, trainable_parameters
from comity.training.samples import make_samples
from comity.training.update import update_policy
from comity.types import Judged, Negotiation, Persona, Request, Sampling, Scenario, Turn, TurnSample
from tiny import build_model, build_tokenizer

PAD = 2


def build_policy():
    model = get_peft_model(build_model(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def build_samples(count=12):
    """Return turns of three kinds: two beginnings that several share, and prompts that stand alone."""
    rng = np.random.default_rng(1)
    beginnings = [rng.integers(3, 300, 45), rng.integers(3, 300, 70)]
    samples = []
    for number in range(count):
        tail = rng.integers(3, 300, 1 + number % 5)
        prompt = np.concatenate([beginnings[number % 3], tail]) if number % 3 < 2 else rng.integers(3, 300, 9 + number)
        sampled = rng.integers(3, 300, 1 + number % 4 * 3)
        mask = np.arange(len(prompt) + len(sampled)) >= len(prompt)
        logprobs = np.where(mask, rng.normal(-6, 0.5, len(mask)), 0).astype(np.float32)
        advantage = float(rng.normal()) if number != 4 else 0.0
        tokens = np.concatenate([prompt, sampled]).astype(np.int32)
        samples.append(TurnSample(tokens, mask, logprobs, advantage, (0.7, 1.0)[number % 2]))
    return samples


def gradients(samples, budget, share=True):
    model = build_policy()
    tokens = sum(int(s.loss_mask.sum()) for s in samples)
    loss, count = 0.0, 0
    for batch in make_micro_batches(samples, budget, PAD, share):
        logprobs, _ = token_logprobs(model, batch)
        output = policy_loss(
            logprobs, logprobs.detach(), batch.sampled_logprobs_N, batch.advantages_N, OptimizationConfig(), tokens
        )
        output.loss.backward()
        loss, count = loss + float(output.loss.detach()), count + 1
    return loss, {name: p.grad for name, p in trainable_parameters(model).items()}, count


def assert_close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert float(gradient.norm()) > 0, name
        assert float((gradient - other[name]).norm() / gradient.norm()) < tolerance, name


@pytest.mark.parametrize("share", [True, False])
def test_many_micro_batches_equal_one(share):
    loss, whole, one = gradients(build_samples(), 10**6, share)
    other_loss, parts, many = gradients(build_samples(), 160, share)
    assert one == 1
    assert many >= 4
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert_close(whole, parts)


@pytest.mark.parametrize("budget", [10**6, 400])
def test_sharing_beginnings_equals_not_sharing(budget):
    samples = build_samples()
    assert any(batch.prefix_ids_CP.numel() for batch in make_micro_batches(samples, budget, PAD))
    loss, plain, _ = gradients(samples, budget, share=False)
    other_loss, shared, _ = gradients(samples, budget, share=True)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert_close(plain, shared)


def test_logprobs_equal_those_of_a_plain_pass_for_each_sample():
    model, samples = build_policy(), build_samples()
    for batch in make_micro_batches(samples, 700, PAD):
        logprobs, entropies = token_logprobs(model, batch)
        for line in range(len(batch.suffix_ids_BS)):
            here = batch.loss_row_N == line
            owner = batch.prefix_of_B[line]
            prefix = batch.prefix_ids_CP[owner][batch.prefix_mask_CP[owner].bool()]
            ids = torch.cat([prefix, batch.suffix_ids_BS[line][batch.suffix_mask_BS[line].bool()]])
            place = batch.loss_place_N[here] + len(prefix)
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0, place - 1] / batch.temperatures_N[here][:, None]
            expected = logits.log_softmax(-1)
            torch.testing.assert_close(logprobs[here], expected.gather(1, ids[place][:, None])[:, 0], rtol=0, atol=1e-5)
            torch.testing.assert_close(entropies[here], -(expected.exp() * expected).sum(-1), rtol=0, atol=1e-5)


def run_update(budget, samples=None, **settings):
    """Update once and return the metrics, AdamW's first moments (0.1 x gradient after one step) and the adapter."""
    model = build_policy()
    config = OptimizationConfig(micro_batch_tokens=budget, max_grad_norm=0.0, learning_rate=1e-3, **settings)
    optimizer = PolicyOptimizer.create(model, config)
    metrics = update_policy(model, optimizer, build_samples() if samples is None else samples, 1, PAD)
    moments = {name: optimizer.adam.state[master].get("exp_avg") for name, master in optimizer.masters.items()}
    return metrics, moments, trainable_parameters(model)


@pytest.mark.parametrize("settings", [{}, {"kl_coefficient": 0.04}], ids=["no penalty", "penalty"])
def test_update_does_not_depend_on_the_budget(settings):
    whole_metrics, whole, _ = run_update(10**6, **settings)
    metrics, parts, _ = run_update(160, **settings)
    assert_close(whole, parts)
    assert metrics == pytest.approx(whole_metrics, rel=1e-4)


def test_the_penalty_is_towards_the_adapter_that_the_run_began_with():
    model = build_policy()
    (batch,) = make_micro_batches(build_samples(), 10**6, PAD)
    optimizer = PolicyOptimizer.create(model, OptimizationConfig(learning_rate=1e-3, kl_coefficient=0.04))
    with torch.no_grad():
        begun, _ = token_logprobs(model, batch)
    first = update_policy(model, optimizer, build_samples(), 1, PAD)
    second = update_policy(model, optimizer, build_samples(), 2, PAD)
    assert first["loss/reference_kl"] == 0
    assert second["loss/reference_kl"] > 0
    with torch.no_grad(), optimizer.reference_policy():
        reference, _ = token_logprobs(model, batch)
    with torch.no_grad():
        now, _ = token_logprobs(model, batch)
    torch.testing.assert_close(reference, begun, rtol=0, atol=0)
    assert not torch.equal(now, begun)


def test_two_epochs_do_not_depend_on_the_budget():
    # AdamW divides by the gradient's size, so what rounding leaves is larger here.
    whole_metrics, whole, _ = run_update(10**6, epochs_per_step=2)
    metrics, parts, _ = run_update(160, epochs_per_step=2)
    assert_close(whole, parts, 1e-2)
    assert metrics == pytest.approx(whole_metrics, rel=1e-2)


def test_samples_without_advantage_count_among_the_tokens_only():
    samples = build_samples()
    metrics, moments, _ = run_update(10**6, samples)
    without, others, _ = run_update(10**6, [s for s in samples if s.advantage])
    # Sample 4 has no advantage; 1 + 4 % 4 * 3 = 1 token of the step.
    tokens = sum(int(s.loss_mask.sum()) for s in samples)
    assert metrics["loss/tokens"] == tokens == without["loss/tokens"] + 1
    assert metrics["loss/used_samples"] == len(samples) - 1
    share = (tokens - 1) / tokens
    assert_close(moments, {name: moment * share for name, moment in others.items()})


def test_step_without_advantage_leaves_the_policy_exactly_as_it_is():
    flat = [replace(sample, advantage=0.0) for sample in build_samples()]
    before = {name: p.detach().clone() for name, p in trainable_parameters(build_policy()).items()}
    metrics, _, after = run_update(10**6, flat, weight_decay=0.1)
    assert metrics["loss/used_samples"] == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in after.items())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 0.0])
def test_engine_and_trainer_agree_on_logprobs(temperature):
    engine = LocalEngine(build_policy(), build_tokenizer())
    rules = NegotiationConfig(dialogue=Sampling(temperature, 0.95, 12))
    texts = ["Who draws first?", "x " * 40, "The rain is late. " * 9, "", "Who draws last?", "é\U0001f600"]
    system = {"role": "system", "content": "You are one side in a negotiation about a well and its water."}
    requests = [
        Request("seat_0", (system, {"role": "user", "content": text}), rules.dialogue, seed)
        for seed, text in enumerate(texts)
    ]
    scenario = Scenario("d/p", "The well", "everyday", (Persona("a", "cost"), Persona("b", "quality")), "train")
    items = [
        Judged(Negotiation(scenario, turns=(Turn(0, reply),), ending="no_agreement"), (), 0.0)
        for reply in engine(requests)
    ]
    samples = make_samples(items, np.ones(len(items)), OptimizationConfig(), rules)
    assert len(samples) == len(texts)
    seen = 0
    for batch in make_micro_batches(samples, 500, PAD):
        logprobs, _ = token_logprobs(engine.model, batch)
        torch.testing.assert_close(logprobs.detach(), batch.sampled_logprobs_N, rtol=0, atol=1e-4)
        seen += len(logprobs)
    assert seen == sum(len(item.negotiation.turns[0].completion.token_ids) for item in items)


def test_temperature_and_order_matter():
    # Guards the equalities above: the loss is not blind to what they compare.
    samples = build_samples()
    loss, _, _ = gradients(samples, 10**6)
    hotter, _, _ = gradients([replace(s, temperature=1.3) for s in samples], 10**6)
    moved = [replace(a, advantage=b.advantage) for a, b in pairwise([*samples, samples[0]])]
    shifted, _, _ = gradients(moved, 10**6)
    assert abs(hotter - loss) > 1e-3
    assert abs(shifted - loss) > 1e-3
