"""Encoders: read both ways, within their window, and told apart from models that play."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, RobertaConfig, RobertaModel

from comity.engines.encoders import is_encoder, layers_of, load_reader, longest_input
from comity.engines.local import LocalEngine
from comity.engines.models import load_tokenizer
from comity.errors import ModelError
from comity.judges.features import extract_features
from comity.types import Answer
from tiny import build_model, build_tokenizer, save_tiny_encoder


def take_first(states_BTD, mask_BT):
    return states_BTD[:, 0]


@pytest.fixture
def engine(tmp_path):
    folder = str(save_tiny_encoder(tmp_path / "bert"))
    return LocalEngine(load_reader(folder, "float32"), load_tokenizer(folder, for_chat=False))


def test_an_encoder_reads_what_comes_after_a_word_and_a_causal_model_does_not(engine, tiny_folder):
    causal = LocalEngine(load_reader(str(tiny_folder), "float32"), build_tokenizer())
    for reader, equal in ((engine, False), (causal, True)):
        one, other = reader.hidden_states(["the end", "the ending"], (1, 2), take_first)
        assert np.allclose(one, other, atol=1e-6) is equal
    assert len(layers_of(engine.model)) == 2


def test_padding_changes_nothing(engine):
    alone = engine.hidden_states(["no"], (2,), take_first)
    beside = engine.hidden_states(["no", "a much longer text beside it"], (2,), take_first)
    assert np.allclose(alone[0], beside[0], atol=1e-5)


def test_a_text_that_is_longer_than_the_window_is_cut_and_not_refused(engine):
    long = Answer("Who rests first?", "by turns " * 400)
    features = extract_features(
        engine, "agency", [long, Answer("Who rests first?", "By turns.")], (1, 2), "answer:mean"
    )
    assert features.shape == (2, 2, 1, 32)
    assert np.isfinite(features).all()


def test_a_window_that_is_smaller_than_the_prompt_is_refused(tmp_path):
    folder = str(save_tiny_encoder(tmp_path / "short", window=16))
    engine = LocalEngine(load_reader(folder, "float32"), load_tokenizer(folder, for_chat=False))
    with pytest.raises(ModelError, match="reads 16 tokens, fewer than the judge's prompt"):
        extract_features(engine, "agency", [Answer("d", "a")], (1,), "answer:mean")
    with pytest.raises(ModelError, match="leave quantization at none"):
        load_reader(folder, quantization="nf4")


@pytest.mark.parametrize(
    ("config", "architecture", "expected"),
    [
        (BertConfig, "BertModel", True),
        (BertConfig, "ModernBertForMaskedLM", True),
        (BertConfig, "XLMRobertaModel", True),
        (BertConfig, "MPNetModel", True),
        (LlamaConfig, "LlamaForCausalLM", False),
        (LlamaConfig, "Gemma3ForConditionalGeneration", False),
        (LlamaConfig, None, False),
    ],
)
def test_the_architecture_says_what_is_an_encoder(config, architecture, expected):
    assert is_encoder(config(architectures=architecture and [architecture])) is expected


def test_windows_and_layers_of_other_builds(tiny_model):
    tokenizer = build_tokenizer()
    assert longest_input(build_model(), tokenizer) is None
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    roberta = RobertaModel(RobertaConfig(**shape, intermediate_size=64, max_position_embeddings=130))
    roberta.config.architectures = ["RobertaModel"]
    # Places begin behind the padding token, whose id is 2 here: 3 to 129.
    assert longest_input(roberta, tokenizer) == 127
    assert len(layers_of(roberta)) == 2
    assert len(layers_of(GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4)))) == 3
    assert isinstance(layers_of(tiny_model), torch.nn.ModuleList)
