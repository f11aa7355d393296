"""Parameter counts equal those of the models that transformers builds."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BertConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from comity.engines.models import load_model
from comity.errors import ModelError
from comity.plan.architectures import SHIPPED, Architecture, count_parameters, find_architecture, read_architecture
from tiny import build_model

SMALL = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


def count(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def test_a_small_model_by_hand():
    # Embedding 10 x 8 = 80 (tied). Layer: q 8 x 8, k and v 8 x 4, o 8 x 8, three of 8 x 12: 64 + 64 + 64 + 288 = 480,
    # norms 2 x 8; two layers: 992. Last norm 8. Together 1,080.
    architecture = Architecture(2, 8, 12, 2, 1, 4, 10, tied=True)
    assert architecture.linear_parameters == 960
    assert architecture.parameters == 1080
    # Rank 2: inputs + outputs are 16, 12, 12, 16, 20, 20, 20: 116 a layer; 2 x 2 x 116.
    assert architecture.adapter_parameters(2) == 464


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("qwen3")])
def test_a_shipped_model_has_the_parameters_of_the_real_one(name):
    numbers = SHIPPED[name]
    config = Qwen3Config(
        vocab_size=numbers.vocabulary,
        hidden_size=numbers.width,
        intermediate_size=numbers.inner_width,
        num_hidden_layers=numbers.layers,
        num_attention_heads=numbers.heads,
        num_key_value_heads=numbers.kv_heads,
        head_dim=numbers.head_width,
        tie_word_embeddings=numbers.tied,
    )
    assert count(config) == numbers.parameters
    # What the makers say: 0.6, 1.7, 4, 8.2, 14.8 and 32.8 billion.
    told = {"0.6b": 0.6e9, "1.7b": 1.7e9, "4b": 4.0e9, "8b": 8.2e9, "14b": 14.8e9, "32b": 32.8e9}
    assert numbers.parameters == pytest.approx(told[name.removeprefix("qwen3-")], rel=0.02)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        LlamaConfig(**SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
        MistralConfig(**SMALL, head_dim=32),
        Qwen2Config(**SMALL),
        Qwen3Config(**SMALL, head_dim=32),
    ],
    ids=["llama", "llama with biases", "mistral", "qwen2", "qwen3"],
)
def test_a_configuration_gives_the_parameters_of_its_model(config):
    assert read_architecture(config).parameters == count(config)


def test_an_adapter_has_the_parameters_that_peft_gives_it():
    model = get_peft_model(build_model(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert read_architecture(build_model().config).adapter_parameters(4) == trained


def test_names_are_found_in_the_table_or_as_a_folder(tiny_folder, tmp_path):
    assert find_architecture("Qwen/Qwen3-14B") is SHIPPED["qwen3-14b"]
    assert find_architecture("embedded") is SHIPPED["embedded"]
    assert find_architecture(str(tiny_folder)).parameters == build_model().num_parameters()
    # A folder is what its configuration says, whatever it is called.
    named = tmp_path / "qwen3-14b"
    build_model().config.save_pretrained(named)
    assert find_architecture(str(named)).layers == 2


def test_a_model_that_cannot_be_planned_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model.name 'nobody/nothing' has no configuration in reach .*give a folder"):
        find_architecture("nobody/nothing")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="is of type gpt2: a plan can be made for llama, mistral, qwen2, qwen3"):
        find_architecture(str(tmp_path))


def test_a_judge_of_any_kind_is_counted(tmp_path, tiny_folder):
    parameters, architecture = count_parameters(str(tiny_folder))
    assert parameters == build_model().num_parameters()
    assert architecture is not None
    BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30,
               max_position_embeddings=10).save_pretrained(tmp_path)  # fmt: skip
    # Embeddings of 30 words, 10 places and 2 kinds and a norm: 42 x 16 + 32; four maps of 16 x 16 with biases, two of
    # 16 x 8, biases of 8 and 16, two norms: 1,024 + 64 + 256 + 24 + 64; a pooler of 16 x 16 + 16.
    assert count_parameters(str(tmp_path)) == (704 + 1432 + 272, None)


def test_a_llama_that_our_own_code_computes_is_known():
    assert read_architecture(LlamaConfig(**SMALL)).llama
    for other in (LlamaConfig(**SMALL, mlp_bias=True), LlamaConfig(**SMALL, hidden_act="gelu"), MistralConfig(**SMALL)):
        assert not read_architecture(other).llama


@pytest.mark.slow
def test_the_embedded_model_has_the_parameters_in_the_table():
    assert load_model("embedded").num_parameters() == SHIPPED["embedded"].parameters == 134_515_008
