"""A training step on a 4-bit base: QLoRA's path, here on the CPU with the real bitsandbytes."""

import dataclasses

import bitsandbytes
import numpy as np
import pytest
import torch
from small_session import build_config, build_session

from comity.config import ModelConfig
from comity.engines.merging import merged_adapter
from comity.plan.architectures import SHIPPED
from comity.plan.memory import weight_bytes
from comity.training.collate import make_micro_batches
from comity.training.policy import load_policy, token_logprobs, trainable_parameters
from comity.training.samples import make_sample
from comity.training.trainer import train_step
from comity.types import Request, Sampling, Verdict
from tiny import build_model

pytestmark = pytest.mark.slow


def quantised_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def quantised_weights(model):
    return {name: layer.weight.data.clone() for name, layer in quantised_layers(model).items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_on_a_4_bit_base_changes_the_adapter_and_nothing_else(tiny_folder, tmp_path, dtype):
    config = build_config(tiny_folder, tmp_path / "run")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, quantization="nf4", dtype=dtype))
    session = build_session(config)
    base = quantised_weights(session.model)
    # 2 layers of 7 linear maps each.
    assert len(base) == 14
    assert all(weight.dtype == torch.uint8 for weight in base.values())
    before = {name: p.detach().clone() for name, p in trainable_parameters(session.model).items()}
    rows = [train_step(session, step) for step in (1, 2)]
    assert all(row["loss/used_samples"] > 0 and row["loss/gradient_norm"] > 0 for row in rows)
    # Engine and trainer read the same quantised weights: what the first sampled, the second finds as likely.
    assert rows[0]["mismatch/mean_ratio"] == pytest.approx(1, abs=1e-3 if dtype == "float32" else 0.05)
    after = trainable_parameters(session.model)
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    assert_same_weights(base, quantised_weights(session.model))


def test_gradients_through_a_4_bit_base_are_those_of_its_plain_copy(tiny_folder):
    model = load_policy(ModelConfig(str(tiny_folder), dtype="float32", device="cpu", quantization="nf4", lora_rank=4))
    plain = build_model()
    for name, layer in quantised_layers(model).items():
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.get_submodule(name.removeprefix("base_model.model.").removesuffix(".base_layer")).weight.data = weight
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(input_ids=ids)  # as sampling does: bitsandbytes may lay the weights out anew in such a pass
    generator = torch.Generator().manual_seed(1)
    for parameter in trainable_parameters(model).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    from peft import LoraConfig, get_peft_model

    copy = get_peft_model(plain, LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    copy.load_state_dict({name: p.data for name, p in trainable_parameters(model).items()}, strict=False)
    for each in (model, copy):
        each(input_ids=ids, labels=ids).loss.backward()
    expected = {name: p.grad for name, p in trainable_parameters(copy).items()}
    found = {name: p.grad for name, p in trainable_parameters(model).items()}
    assert found.keys() == expected.keys()
    assert len(found) == 28  # two matrices for each of the 14 layers
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()), name


def test_a_4_bit_layer_is_sampled_with_the_adapter_beside_it(tiny_folder):
    model = load_policy(ModelConfig(str(tiny_folder), dtype="float32", device="cpu", quantization="nf4", lora_rank=4))
    before = quantised_weights(model)
    with merged_adapter(model):
        assert_same_weights(before, quantised_weights(model))


def weigh_base(model):
    """Return the bytes of all frozen parameters, of 4-bit ones with their scales."""
    total = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    for layer in quantised_layers(model).values():
        state = layer.weight.quant_state
        total += state.absmax.nbytes + state.state2.absmax.nbytes
    return total


def agree(endings):
    return [Verdict("plain function", "", 1.0, agreed=True) for _ in endings]


def grade_by_place(answers):
    """Score 0 and 1 in turn, so that the two dialogues of every group differ."""
    return [Verdict("plain function", "", float(place % 2)) for place, _ in enumerate(answers)]


def reread(model, completions, temperature):
    """Return the engine's log-probabilities of all tokens and those that the trainer gives them."""
    samples = [make_sample(completion, 1.0, temperature) for completion in completions]
    with torch.no_grad():
        pairs = [(b.sampled_logprobs_N, token_logprobs(model, b)[0]) for b in make_micro_batches(samples, 1024, 0)]
    return (torch.cat(column) for column in zip(*pairs, strict=True))


def test_the_embedded_model_takes_a_step_of_the_demo_on_a_4_bit_base(tmp_path):
    # The demo's settings in small: 2 dilemmas x 2 dialogues of one round, messages of 8 tokens.
    model = ModelConfig("embedded", adapter="warm-start", device="cpu", quantization="nf4")
    config = build_config("embedded", tmp_path / "run", group_size=2, learning_rate=4e-4, micro_batch_tokens=1024)
    session = build_session(dataclasses.replace(config, model=model), agree, grade_by_place)
    base = quantised_weights(session.model)
    assert len(base) == 7 * 30
    # Scales of scales are whole numbers a layer, the plan's a share of one.
    assert weigh_base(session.model) == pytest.approx(weight_bytes(SHIPPED["embedded"], model), rel=1e-3)
    before = {name: p.detach().clone() for name, p in trainable_parameters(session.model).items()}
    texts = ("Who draws first?", "The rain is late. " * 9)
    asked = [Request("seat_0", ({"role": "user", "content": text},), Sampling(0.7, 0.95, 24), 0) for text in texts]
    sampled, read = reread(session.model, session.engine(asked), 0.7)
    # Stated in docs/scaling.md: bfloat16 rounds otherwise in batches of other shapes, and nothing else differs.
    assert float((sampled - read).abs().mean()) < 0.05
    assert float((sampled - read).abs().max()) < 0.5
    row = train_step(session, 1)
    assert row["loss/used_samples"] == 4
    assert np.isfinite([value for key, value in row.items() if key.startswith(("loss/", "mismatch/"))]).all()
    assert row["loss/gradient_norm"] > 0
    after = trainable_parameters(session.model)
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    assert_same_weights(base, quantised_weights(session.model))
