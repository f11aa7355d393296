"""vLLM in this process speaks with the policy or not at all; vLLM itself is played by `tiny_vllm.py`."""

import asyncio

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

import tiny_vllm
from comity.config import ModelConfig, RolloutConfig, TrainConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.versions import PolicyVersion
from comity.engines.vllm import VllmEngine, load_vllm
from comity.errors import ConfigError, ModelError
from comity.types import Request, Sampling


def build_engine(folder, **changes):
    """Return the tiny model with a random adapter that changes what it says."""
    model = load_model(str(folder), "float32", "cpu")
    settings = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = get_peft_model(model, LoraConfig(**settings), autocast_adapter_dtype=False).eval()
    return LocalEngine(policy, load_tokenizer(str(folder)))


def requests(count=4):
    chats = [({"role": "user", "content": f"Field {number} is dry."},) for number in range(count)]
    return [Request("seat_0", chat, Sampling(0.7, 0.95, 6), seed=number) for number, chat in enumerate(chats)]


def ask(host, version, asked):
    async def main():
        async with host.open([version]) as opened:
            replies = await asyncio.gather(*(opened.answer(request, version) for request in asked))
            return replies, opened.figures()

    return asyncio.run(asyncio.wait_for(main(), 60))


def test_it_says_what_the_local_engine_says(tiny_folder, tmp_path, monkeypatch):
    tiny_vllm.install(monkeypatch)
    engine, llm = build_engine(tiny_folder), tiny_vllm.TinyVllm(tiny_folder)
    host = VllmEngine(engine, llm, merges=True)
    version = host.take(engine.model, tmp_path, 3)
    replies, figures = ask(host, version, requests())
    expected = [engine([request])[0] for request in requests()]
    assert [reply.text for reply in replies] == [item.text for item in expected]
    for reply, wanted in zip(replies, expected, strict=True):
        assert reply.token_ids.tolist() == wanted.token_ids.tolist()
        assert reply.logprobs.tolist() == pytest.approx(wanted.logprobs.tolist(), abs=1e-5)
        assert reply.policy_version == 3
    assert figures == {"vllm/refused": 0}
    # A run that was resumed may come to a version again with other weights.
    host.take(engine.model, tmp_path, 3)
    assert llm.emptied == 2


def test_adapters_beside_the_base_are_read_once_and_forgotten_with_their_step(tiny_folder, tmp_path, monkeypatch):
    tiny_vllm.install(monkeypatch)
    engine = build_engine(tiny_folder)
    host = load_vllm(ModelConfig(name=str(tiny_folder), dtype="float32"), engine, False, 4, 0.4, 2)
    first = host.take(engine.model, tmp_path, 1)
    expected = [engine([request])[0].text for request in requests()]
    with torch.no_grad():
        for name, weight in engine.model.named_parameters():
            if "lora_B" in name:
                weight.mul_(-2)
    second = host.take(engine.model, tmp_path, 2)
    texts = {}

    async def play(versions, label):
        async with host.open(versions) as opened:
            for version in versions:
                replies = await asyncio.gather(*(opened.answer(request, version) for request in requests()))
                texts[label, version.number] = [reply.text for reply in replies]
                assert {reply.policy_version for reply in replies} == {version.number}
            return host.list_forgettable()

    base = PolicyVersion(0)
    assert asyncio.run(play([first, base], "one")) == set()
    assert texts["one", 1] == expected
    assert asyncio.run(play([second, first], "two")) == set()
    assert texts["two", 1] == expected
    assert len({tuple(texts[key]) for key in (("one", 0), ("one", 1), ("two", 2))}) == 3
    assert len(host.llm.adapted) == 2
    assert asyncio.run(play([second, base], "three")) == {first.name}
    assert texts["three", 2] == texts["two", 2]
    assert texts["three", 0] == texts["one", 0]


@pytest.mark.parametrize("refusal", [tiny_vllm.VLLMClientError, ValueError], ids=["0.32", "older"])
def test_one_prompt_that_is_too_long_fails_alone(tiny_folder, tmp_path, monkeypatch, refusal):
    tiny_vllm.install(monkeypatch, has_exceptions=refusal is not ValueError)
    engine = build_engine(tiny_folder)
    asked = requests()
    long = Request("seat_0", ({"role": "user", "content": "Rain. " * 200},), Sampling(0.7, 0.95, 6), seed=9)
    host = VllmEngine(engine, tiny_vllm.TinyVllm(tiny_folder, 200, refusal), merges=True)
    version = host.take(engine.model, tmp_path, 0)
    replies, figures = ask(host, version, [*asked[:2], long, *asked[2:]])
    assert [reply.finish == "error" for reply in replies] == [False, False, True, False, False]
    assert figures == {"vllm/refused": 1}
    # Also as the only one: nothing is under way then.
    (reply,), _ = ask(host, version, [long])
    assert (reply.finish, len(reply.token_ids)) == ("error", 0)
    assert ask(host, version, asked[:1])[0][0].text == replies[0].text


def test_an_engine_that_breaks_ends_the_step_with_one_line(tiny_folder, tmp_path, monkeypatch):
    tiny_vllm.install(monkeypatch)
    engine, llm = build_engine(tiny_folder), tiny_vllm.TinyVllm(tiny_folder)
    host = VllmEngine(engine, llm, merges=True)
    version = host.take(engine.model, tmp_path, 0)
    llm.fault = RuntimeError("out of\nmemory")
    with pytest.raises(ModelError, match=r"vLLM ended \(RuntimeError: out of memory\)"):
        ask(host, version, requests())


@pytest.mark.parametrize("variant", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_that_cannot_be_folded_is_refused(tiny_folder, tmp_path, variant):
    engine = build_engine(tiny_folder, **variant)
    llm = tiny_vllm.TinyVllm(tiny_folder)
    with pytest.raises(ModelError, match=r"the adapter at base_model.* cannot be folded: train plain LoRA"):
        VllmEngine(engine, llm, merges=True).take(engine.model, tmp_path, 0)
    assert llm.emptied == 0
    # And before vLLM is looked for.
    with pytest.raises(ModelError, match="cannot be folded"):
        load_vllm(ModelConfig(name=str(tiny_folder)), engine, True, 4, 0.4, 2)


def test_another_kind_of_adapter_is_refused(tiny_folder, tmp_path):
    base = load_model(str(tiny_folder), "float32", "cpu")
    settings = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    engine = LocalEngine(get_peft_model(base, settings).eval(), load_tokenizer(str(tiny_folder)))
    with pytest.raises(ModelError, match="cannot be folded"):
        VllmEngine(engine, tiny_vllm.TinyVllm(tiny_folder), merges=True).take(engine.model, tmp_path, 0)


def test_weights_of_four_bits_are_refused():
    vllm = RolloutConfig(engine="vllm")
    assert TrainConfig(rollouts=vllm).rollouts.engine == "vllm"
    with pytest.raises(ConfigError, match=r"model.quantization is nf4, but rollouts.engine vllm .* choose none"):
        TrainConfig(rollouts=vllm, model=ModelConfig(quantization="nf4"))
