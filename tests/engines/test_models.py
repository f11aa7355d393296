"""Loading models: by folder on the tiny model; the embedded one in the slow tests."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer, resolve_model
from comity.errors import ModelError
from comity.types import Request, Sampling


def test_the_tiny_model_loads_by_its_folder(tiny_folder, tiny_model, tiny_tokenizer):
    model, tokenizer = load_model(str(tiny_folder), "float32"), load_tokenizer(str(tiny_folder))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for name, weights in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weights)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert tokenizer("Thé <|im_end|>")["input_ids"] == tiny_tokenizer("Thé <|im_end|>")["input_ids"]
    assert load_model(str(tiny_folder), "bfloat16").dtype == torch.bfloat16


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model '.*empty' cannot be loaded \(.*\): give 'embedded', a folder, or"):
        load_model(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"model '.*empty' cannot be loaded"):
        load_tokenizer(str(tmp_path / "empty"))


def test_a_model_without_a_chat_template_is_refused(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    for path in (tmp_path / "chat_template.jinja",):
        path.unlink(missing_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"has no chat template: choose an instruction-tuned model"):
        load_tokenizer(str(tmp_path))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Convert the embedded model into a fresh cache and load it; return the model, the tokenizer and the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMITY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_model("embedded", "float32"), load_tokenizer("embedded"), Path(resolve_model("embedded"))


CHAT = (
    {"role": "system", "content": "You are one side in a negotiation. Your goal: You keep the peace."},
    {"role": "user", "content": "Dilemma: Two villages share one well.\n\nYou speak first."},
)


@pytest.mark.slow
def test_the_embedded_model_converts_and_loads(embedded):
    model, tokenizer, folder = embedded
    assert (folder / "model.safetensors").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no scratch folder is left
    assert sum(p.numel() for p in model.parameters()) == 134_515_008  # SmolLM2-135M, embeddings tied
    assert tokenizer.eos_token == "<|im_end|>"
    assert "<|im_start|>assistant" in tokenizer.chat_template


@pytest.mark.slow
def test_greedy_tokens_of_the_embedded_model_are_those_of_generate(embedded):
    model, tokenizer, _ = embedded
    engine = LocalEngine(model, tokenizer)
    longer = (*CHAT, {"role": "assistant", "content": "Let us share it by days."}, {"role": "user", "content": "How?"})
    replies = engine([Request("seat_0", chat, Sampling(0.0, 1.0, 24), 0) for chat in (CHAT, longer)])
    for reply in replies:
        prompt = torch.tensor(reply.prompt_ids, dtype=torch.long)[None]
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        assert reply.token_ids.tolist() == expected[0, prompt.shape[1] :].tolist()
        assert reply.text
        assert np.isfinite(reply.logprobs).all()
