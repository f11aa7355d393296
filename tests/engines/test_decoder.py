"""Both decoders: ours for Llama and the one for any model of transformers."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from comity.engines.decoder import TransformersDecoder
from comity.engines.kernels import open_kernels
from comity.engines.llama import open_llama
from comity.engines.llama_decoder import LlamaDecoder
from comity.engines.local import LocalEngine
from comity.engines.row_attention import KernelRows, ProductRows
from comity.types import Request, Sampling
from tiny import build_model, build_tokenizer

PAD = 2


def draw_prompts():
    """Return prompts of two shared beginnings, of their own, and of very different lengths."""
    rng = np.random.default_rng(4)
    beginnings = [rng.integers(3, 300, 40), rng.integers(3, 300, 61)]
    prompts = [np.concatenate([beginnings[n % 2], rng.integers(3, 300, 1 + 9 * n)]) for n in range(5)]
    prompts += [beginnings[0], rng.integers(3, 300, 5), rng.integers(3, 300, 90)]
    return [prompt.astype(np.int32) for prompt in prompts]


@pytest.fixture(params=["products", "kernels of 16", "kernels of 64"])
def model(request):
    """Return a model whose heads are too thin for the kernels, or one with heads of 16 or 64."""
    if request.param == "products":
        model, kind = build_model(), ProductRows
    else:
        if open_kernels(torch.float32) is None:
            pytest.skip("no C compiler")
        width, kind = int(request.param.split()[-1]), KernelRows
        config = LlamaConfig(
            vocab_size=300, hidden_size=6 * width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, initializer_range=0.1, max_position_embeddings=2048,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = LlamaForCausalLM(config).eval()
    with torch.inference_mode():
        assert isinstance(LlamaDecoder(open_llama(model), draw_prompts()[:1], 1).rows, kind)
    return model


@torch.inference_mode()
def test_both_decoders_give_the_same_logits_while_rows_leave(model):
    prompts, rng = draw_prompts(), np.random.default_rng(5)
    theirs, ours = TransformersDecoder(model, prompts, 12, PAD), LlamaDecoder(open_llama(model), prompts, 12)
    torch.testing.assert_close(ours.logits_BV, theirs.logits_BV, rtol=0, atol=1e-4)
    rows = len(prompts)
    # All of one beginning go first, then all that share one.
    for leaving in ([], [0], [1, 2], [], [3], [0, 1], []):
        kept = torch.tensor([row for row in range(rows) if row not in leaving])
        rows = len(kept)
        token_B = torch.tensor(rng.integers(3, 300, rows))
        for decoder in (ours, theirs):
            decoder.keep_rows(kept)
        torch.testing.assert_close(ours.step(token_B), theirs.step(token_B), rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 3])
def test_prompts_that_share_nothing_are_decoded_too(model, count):
    prompts = [prompt for prompt in draw_prompts() if len(prompt) in (5, 90, 41)][:count]
    ours, theirs = LlamaDecoder(open_llama(model), prompts, 3), TransformersDecoder(model, prompts, 3, PAD)
    token_B = torch.arange(count) + 7
    torch.testing.assert_close(ours.logits_BV, theirs.logits_BV, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.step(token_B), theirs.step(token_B), rtol=0, atol=1e-4)


def test_another_architecture_answers_through_transformers():
    config = Qwen2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).eval()
    assert open_llama(model) is None
    engine = LocalEngine(model, build_tokenizer())
    system = {"role": "system", "content": "You are one side in a negotiation about a well and its water."}
    requests = [
        Request("seat_0", (system, {"role": "user", "content": text}), Sampling(0.0, 1.0, 12), 1)
        for text in ("Who draws first?", "The rain is late. " * 9, "")
    ]
    for reply in engine(requests):
        prompt = torch.tensor(reply.prompt_ids, dtype=torch.long)[None]
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, pad_token_id=2
        )
        assert reply.token_ids.tolist() == expected[0, prompt.shape[1] :].tolist()
