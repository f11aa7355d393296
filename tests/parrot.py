"""A model that answers every chat with the same text: a judge of a few tokens' wit that is a real model."""

import itertools

import torch

from tiny import build_model, build_tokenizer


def save_parrot(folder, reply):
    """Write a model that answers every chat with the same text: each token decides the next, nothing else counts."""
    tokenizer, model = build_tokenizer(), build_model()
    ids = [*tokenizer("\n", add_special_tokens=False)["input_ids"],
           *tokenizer(reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]  # fmt: skip
    assert len(set(ids)) == len(ids)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "lm_head.weight")):
                weight.zero_()
        for place, (token, following) in enumerate(itertools.pairwise(ids)):
            model.get_input_embeddings().weight[token, place] = 1
            model.get_output_embeddings().weight[following, place] = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
