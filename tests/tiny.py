"""A two-layer random-weight Llama and a byte-level tokenizer: real transformers objects that cost nothing to run.

From a test: `from tiny import build_model, build_tokenizer, save_tiny`, or the fixtures of conftest.py.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# fmt: off
# Ġ is the byte-level alphabet's space. With them the vocabulary has 3 + 256 + 41 = 300 entries.
MERGES = (
    "th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed", "is", "it", "al",
    "ar", "st", "to", "nt", "ng", "se", "ha", "as", "ou", "io", "le",
    "Ġt", "Ġa", "Ġs", "Ġw", "Ġo", "Ġi", "Ġb", "Ġc", "Ġp", "Ġm", "Ġh",
)
# fmt: on
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 300 entries with the special tokens and the chat template of SmolLM2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet, *MERGES))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(pair[0], pair[1]) for pair in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(seed: int = 0) -> LlamaForCausalLM:
    """Return the model in float32 and evaluation mode; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,  # wide enough for clear differences between the logits
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    return model.float().eval()


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write the model and its tokenizer to a folder that commands load by path; return the folder."""
    build_model(seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def save_tiny_encoder(folder: Path, window: int = 512) -> Path:
    """Write a two-layer random-weight BERT that reads `window` tokens, and the tokenizer; return the folder."""
    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=window,
        initializer_range=0.2,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
