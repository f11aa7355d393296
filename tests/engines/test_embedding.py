"""Texts as vectors of the model."""

import numpy as np
import torch

from comity.engines.embedding import embed_texts
from comity.engines.local import LocalEngine


def test_a_vector_is_the_mean_over_all_tokens_but_the_first_at_the_middle_layer(tiny_model, tiny_tokenizer):
    texts = ["the well is low", "rest", "the mayor reads the gauge on Sundays"]
    vectors = embed_texts(LocalEngine(tiny_model, tiny_tokenizer), texts)
    assert vectors.shape == (3, tiny_model.config.hidden_size)
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([tiny_tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            states = tiny_model(ids, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(vector, states[1][0][1:].mean(0).numpy(), atol=1e-5)  # layer 1 of 2
