"""Llama's arithmetic over plain weights against transformers itself, on the tiny model."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

from comity.engines.llama import LinearMap, can_pack, open_llama
from comity.engines.llama_pass import pass_packed
from comity.engines.packing import pack
from tiny import build_model


def wrap(model, **changes):
    """Return the model with an adapter whose B is random too, so that it changes something."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LoraConfig(**(settings | {"init_lora_weights": False} | changes))
        return get_peft_model(model, config, autocast_adapter_dtype=False).eval()


def draw_ids(*sizes):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 300, (size,), generator=generator) for size in sizes]


def our_states(model, packed):
    llama = open_llama(model)
    with torch.no_grad():
        return llama.norm_states(pass_packed(llama, packed), llama.norm)


def their_states(model, ids):
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad():
        return base.model(input_ids=ids[None]).last_hidden_state[0]


def pack_some():
    """Return packed sequences and, one by one, the whole ids of their rows."""
    beginning, first, second, alone = draw_ids(30, 9, 21, 40)
    packed = pack([beginning], [0, 0, -1], [first, second, alone])
    return packed, [torch.cat((beginning, first)), torch.cat((beginning, second)), alone]


@pytest.mark.parametrize("adapted", [False, True])
# In float64 transformers still norms in float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 2e-5)])
def test_states_are_those_of_transformers(dtype, tolerance, adapted):
    model = build_model().to(dtype)
    model = wrap(model) if adapted else model
    packed, wholes = pack_some()
    states = our_states(model, packed)
    for whole, places in zip(wholes, packed.places, strict=True):
        assert packed.ids_T[places].tolist() == whole.tolist()
        torch.testing.assert_close(states[places], their_states(model, whole), rtol=0, atol=tolerance)


@pytest.mark.parametrize("adapted", [False, True])
def test_states_in_bfloat16_are_as_near_the_truth_as_those_of_transformers(adapted):
    model = build_model().bfloat16()
    model = wrap(model) if adapted else model
    exact = copy.deepcopy(model).double()
    packed, wholes = pack_some()
    states = our_states(model, packed)
    ours, theirs = 0.0, 0.0
    for whole, places in zip(wholes, packed.places, strict=True):
        truth = their_states(exact, whole)
        ours += float((states[places] - truth).square().sum())
        theirs += float((their_states(model, whole) - truth).square().sum())
    assert ours < 1.5 * theirs


def test_the_opened_model_is_kept_until_its_weights_change():
    model = wrap(build_model())
    opened = open_llama(model)
    assert open_llama(model) is opened
    layer = model.get_base_model().model.layers[1].mlp.up_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.add_(0.25)
    changed = open_llama(model)
    assert changed is not opened
    base, a, b = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(changed.layers[1].up.weight_OI, base + 3.0 * b @ a)  # alpha 12 over rank 4
    kept = b.data
    b.data = kept.clone()  # the same numbers elsewhere: another tensor, whatever it holds
    assert open_llama(model) is not changed
    with model.disable_adapter():
        assert torch.equal(open_llama(model).layers[1].up.weight_OI, base)
    torch.testing.assert_close(open_llama(model).layers[1].up.weight_OI, base + 3.0 * b @ a)


def test_what_is_not_a_plain_llama_is_left_to_transformers():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    assert open_llama(Qwen2ForCausalLM(Qwen2Config(vocab_size=300, num_key_value_heads=2, **small))) is None
    assert open_llama(build_model().half()) is None
    assert open_llama(wrap(build_model(), use_dora=True)) is None
    assert open_llama(wrap(build_model(), target_modules=["q_proj", "embed_tokens"])) is None
    biased = build_model()
    biased.config.attention_bias = True
    assert open_llama(biased) is None
    # Dropout changes what is computed while it is on.
    dropping = wrap(build_model(), lora_dropout=0.5)
    assert open_llama(dropping) is not None
    assert open_llama(dropping.train()) is None


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this processor has no bfloat16 in oneDNN")
def test_packed_products_are_the_plain_ones():
    generator = torch.Generator().manual_seed(7)
    weight, states, other, upper = (
        torch.randn(shape, generator=generator).bfloat16() for shape in ((48, 32), (5, 32), (5, 48), (5, 48))
    )
    packed = LinearMap.create(weight)
    assert packed.packed
    exact = states.float() @ weight.float().T
    expected = {
        "call": (packed(states), exact),
        "swish": (packed.swish(states), functional.silu(exact)),
        "times": (packed.times(states, other), exact * other.float()),
        "plus": (packed.plus(states, other), exact + other.float()),
        "backward": (packed.backward(upper), upper.float() @ weight.float()),
    }
    for name, (found, wanted) in expected.items():
        # bfloat16 keeps 8 bits: one rounding is at most 1/256 of the value
        torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=2**-8, msg=name)
