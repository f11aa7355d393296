"""Folding an adapter into the base: the same logits, and every bit back in its place."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from comity.engines.merging import adapters_off, merged_adapter
from comity.engines.models import load_model

IDS = torch.arange(3, 60)[None]


def wrap(model, **changes):
    """Return the model with an adapter whose B is random too, so that it changes something."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(**(settings | {"init_lora_weights": False} | changes))).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def snapshot(model):
    state = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    return state, {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def assert_untouched(model, before):
    state, flags = before
    after = model.state_dict()
    assert after.keys() == state.keys()
    for name, (place, value) in state.items():
        assert after[name].data_ptr() == place, name
        assert torch.equal(after[name].view(torch.uint8), value.view(torch.uint8)), name
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def base_weight(model):
    return model.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}])
def test_folded_logits_are_the_adapters(tiny_model, changes):
    plain = logits(tiny_model)
    model = wrap(tiny_model, **changes)
    expected, original = logits(model), base_weight(model).clone()
    assert not torch.allclose(expected, plain, atol=0.1)
    with merged_adapter(model):
        assert not torch.equal(base_weight(model), original)  # it was folded, not left beside its base
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), expected)


def test_a_folded_weight_by_hand(tiny_model):
    model = wrap(tiny_model)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = base_weight(model) + 3.0 * b @ a  # alpha 12 over rank 4
    with merged_adapter(model):
        torch.testing.assert_close(base_weight(model), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_and_flags_come_back_bit_for_bit(tiny_model, dtype):
    model = wrap(tiny_model.to(dtype))
    before = snapshot(model)
    assert any(before[1].values())
    assert not all(before[1].values())
    with merged_adapter(model):
        assert base_weight(model).dtype == dtype
    assert_untouched(model, before)


def test_weights_come_back_after_an_exception(tiny_model):
    model = wrap(tiny_model)
    before, expected = snapshot(model), logits(model)
    with pytest.raises(RuntimeError, match="the sampler broke"), merged_adapter(model):
        raise RuntimeError("the sampler broke")
    assert_untouched(model, before)
    assert torch.equal(logits(model), expected)  # and the adapter is on again


def test_a_frozen_adapter_stays_frozen(tmp_path, tiny_folder):
    wrap(load_model(str(tiny_folder), "float32")).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(load_model(str(tiny_folder), "float32"), str(tmp_path)).eval()
    before = snapshot(model)
    assert not any(before[1].values())
    with merged_adapter(model):
        pass
    assert_untouched(model, before)


def test_gradients_reach_the_adapter_after_sampling(tiny_model):
    model = wrap(tiny_model)
    with merged_adapter(model), torch.no_grad():
        logits(model)
    model(input_ids=IDS).logits.sum().backward()
    graded = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert graded == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert graded


def test_a_plain_model_is_left_alone(tiny_model):
    before, expected = snapshot(tiny_model), logits(tiny_model)
    with merged_adapter(tiny_model):
        assert_untouched(tiny_model, before)
        assert torch.equal(logits(tiny_model), expected)
    assert_untouched(tiny_model, before)


def test_what_cannot_be_folded_is_sampled_beside_its_base(tiny_model):
    model = wrap(tiny_model)
    model.merge_adapter()
    before, expected = snapshot(model), logits(model)
    with merged_adapter(model):
        assert_untouched(model, before)
        assert torch.equal(logits(model), expected)
    with model.disable_adapter(), merged_adapter(model):
        assert not torch.allclose(logits(model), expected, atol=0.1)  # switched off stays off


def test_adapters_off_shows_the_base(tiny_model):
    plain = logits(tiny_model)
    with adapters_off(tiny_model):
        assert torch.equal(logits(tiny_model), plain)
    model = wrap(tiny_model)
    adapted = logits(model)
    with adapters_off(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), adapted)


@pytest.mark.parametrize("variant", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_that_cannot_be_folded_is_sampled_beside_its_base(tiny_model, variant):
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **variant)
    model = get_peft_model(tiny_model, config).eval()
    expected = logits(model)
    with merged_adapter(model):
        assert torch.equal(logits(model), expected)
