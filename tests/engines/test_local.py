"""The local engine against transformers itself, on the tiny model in float32."""

import itertools

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from comity.engines.local import LocalEngine, split_batches
from comity.errors import ModelError
from comity.types import Request, Sampling

GREEDY = Sampling(0.0, 1.0, 24)
HOT = Sampling(1.0, 1.0, 24)
SYSTEM = {"role": "system", "content": "You are one side in a negotiation about a well and its water."}
STOPS = list(range(40))  # so many that random weights soon draw one


@pytest.fixture
def engine(tiny_model, tiny_tokenizer):
    return LocalEngine(tiny_model, tiny_tokenizer)


@pytest.fixture
def exact_engine(tiny_model, tiny_tokenizer):
    """Return the engine in float64.

    Padding and batch size change the last bits of a logit, and in float32 such a bit now and then decides on which
    side of a border of the nucleus a draw falls. In float64 it does not, so equality can be asserted.
    """
    return LocalEngine(tiny_model.double(), tiny_tokenizer)


def ask(text, sampling=HOT, seed=1):
    return Request("seat_0", (SYSTEM, {"role": "user", "content": text}), sampling, seed)


def asks(sampling=HOT, n=6):
    # Prompts of very different lengths with one common beginning; the third is the first again with another seed.
    texts = ["Who draws first?", "x " * 90, "Who draws first?", "", "The rain is late. " * 9, "é\U0001f600"]
    return [ask(text, sampling, seed) for seed, text in enumerate(texts[:n])]


def assert_same(one, other):
    assert one.token_ids.tolist() == other.token_ids.tolist()
    assert (one.text, one.finish) == (other.text, other.finish)
    assert one.prompt_ids.tolist() == other.prompt_ids.tolist()
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def forward_logprobs(model, completion, temperature):
    """Return the log-probabilities of a completion by one plain forward pass."""
    ids = torch.tensor(np.concatenate([completion.prompt_ids, completion.token_ids]), dtype=torch.long)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(completion.prompt_ids) - 1 : -1].float()
    chosen = ids[0, len(completion.prompt_ids) :, None]
    return torch.log_softmax(logits / (temperature or 1.0), -1).gather(1, chosen)[:, 0].numpy()


def test_prompts_are_those_of_the_chat_template(engine, tiny_tokenizer):
    request = ask("Who draws first?")
    ids = engine.encode_chat(request.messages)
    assert ids.dtype == np.int32
    assert tiny_tokenizer.decode(ids) == (
        f"<|im_start|>system\n{SYSTEM['content']}<|im_end|>\n"
        "<|im_start|>user\nWho draws first?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert engine([request])[0].prompt_ids.tolist() == ids.tolist()


def test_greedy_tokens_are_those_of_generate(engine):
    for completion in engine(asks(GREEDY)):
        prompt = torch.tensor(completion.prompt_ids, dtype=torch.long)[None]
        expected = engine.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24, pad_token_id=2
        )[0, prompt.shape[1] :]
        assert completion.token_ids.tolist() == expected.tolist()


@pytest.mark.parametrize("sampling", [GREEDY, HOT, Sampling(0.7, 0.95, 24), Sampling(2.0, 0.5, 24)])
def test_logprobs_are_those_of_a_forward_pass(engine, sampling):
    for completion in engine(asks(sampling)):
        assert completion.logprobs.dtype == np.float32
        assert completion.token_ids.dtype == completion.prompt_ids.dtype == np.int32
        expected = forward_logprobs(engine.model, completion, sampling.temperature)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, HOT, Sampling(0.7, 0.95, 24)])
def test_a_reply_does_not_depend_on_its_neighbours(exact_engine, sampling):
    # Greedy and hot rows, an early stop, common beginnings: whatever the batch, each reply is as when asked alone.
    exact_engine.model.generation_config.eos_token_id = STOPS
    requests = asks(sampling)
    together = exact_engine(requests)
    for request, reply in zip(requests, together, strict=True):
        assert_same(reply, exact_engine([request])[0])
    for request, reply in zip(requests[::-1], exact_engine(requests[::-1]), strict=True):
        assert_same(reply, together[requests.index(request)])


def test_a_reply_does_not_depend_on_the_neighbours_settings(exact_engine):
    mixed = [
        ask("a", Sampling(0.0, 1.0, 5)), ask("b", Sampling(1.0, 1.0, 40), 2), ask("c", Sampling(0.7, 0.9, 1), 3),
        ask("d", Sampling(1.5, 0.5, 17), 4),
    ]  # fmt: skip
    for request, reply in zip(mixed, exact_engine(mixed), strict=True):
        assert_same(reply, exact_engine([request])[0])
        assert len(reply.token_ids) <= request.sampling.max_tokens


def test_the_seed_decides_the_draw(engine):
    same, again, other = engine([ask("x", seed=5), ask("x", seed=5), ask("x", seed=6)])
    assert_same(same, again)
    assert same.token_ids.tolist() != other.token_ids.tolist()
    (large,) = engine([ask("x", seed=2**63 - 1)])  # the largest seed that a request can carry
    assert len(large.token_ids)


@pytest.mark.parametrize("batch_tokens", [1, 300, 700])
def test_small_batches_change_nothing_but_the_cost(tiny_model, tiny_tokenizer, batch_tokens):
    tiny_model.double()
    whole = LocalEngine(tiny_model, tiny_tokenizer)(asks())
    split = LocalEngine(tiny_model, tiny_tokenizer, batch_tokens=batch_tokens)(asks())
    for one, other in zip(whole, split, strict=True):
        assert_same(one, other)


def test_prompts_with_a_common_beginning_get_the_same_replies(exact_engine):
    long = "The village elders met under the tree. " * 12
    requests = [ask(long + end, HOT, seed) for seed, end in enumerate(["", "Yes.", "No, not yet.", "Yes."])]
    # The very same prompt several times, as the rollouts of one group ask it.
    requests += [ask(long, HOT, 10 + seed) for seed in range(4)]
    replies = exact_engine(requests)
    for request, reply in zip(requests, replies, strict=True):
        assert_same(reply, exact_engine([request])[0])
        np.testing.assert_allclose(reply.logprobs, forward_logprobs(exact_engine.model, reply, 1.0), atol=1e-4)


def test_max_tokens_is_respected(engine):
    engine.model.generation_config.eos_token_id = None
    for limit in (1, 2, 7, 33):
        for reply in engine(asks(Sampling(1.0, 0.9, limit))):
            stopped = reply.token_ids[-1] == engine.tokenizer.eos_token_id
            assert reply.finish == ("stop" if stopped else "length")
            assert len(reply.token_ids) <= limit
            assert stopped or len(reply.token_ids) == limit


def test_the_stop_token_is_kept_in_the_tokens_and_out_of_the_text(engine, tiny_tokenizer):
    engine.model.generation_config.eos_token_id = STOPS
    assert engine.stop_ids == frozenset(STOPS)  # the tokenizer's own, 2, is one of them
    replies = engine([ask("Who draws first?", HOT, seed) for seed in range(16)])
    assert {reply.finish for reply in replies} == {"stop", "length"}
    for reply in replies:
        *body, last = reply.token_ids.tolist()
        assert not set(body) & set(STOPS)
        assert (last in STOPS) == (reply.finish == "stop")
        kept = body if reply.finish == "stop" else [*body, last]
        assert reply.text == tiny_tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert len(reply.logprobs) == len(reply.token_ids)


def test_texts_are_told_as_they_grow_and_change_nothing(engine):
    told = {0: [], 1: [], 2: []}
    requests = asks(n=3)
    replies = engine.answer(requests, lambda place, text: told[place].append(text))
    for place, (reply, alone) in enumerate(zip(replies, engine(requests), strict=True)):
        assert reply.text == alone.text
        assert len(told[place]) == len(reply.token_ids)  # once for each token
        assert told[place][-1] == reply.text.rstrip("\ufffd")
        assert all(len(one) <= len(other) + 1 for one, other in itertools.pairwise(told[place]))


def test_what_the_listener_raises_ends_the_text_and_leaves_the_engine_usable(engine):
    def refuse(place, text):
        raise InterruptedError

    (before,) = engine(asks(n=1))
    with pytest.raises(InterruptedError):
        engine.answer(asks(n=1), refuse)
    (after,) = engine(asks(n=1))
    assert_same(after, before)


def test_replies_carry_the_policy_version(engine):
    engine.policy_version = 7
    assert [reply.policy_version for reply in engine(asks(n=2))] == [7, 7]
    assert engine([]) == []


def test_an_adapter_changes_replies_and_its_logprobs_are_its_own(engine):
    plain = engine(asks(GREEDY))
    engine.model = with_adapter(engine.model)
    adapted = engine(asks(GREEDY))
    assert any(a.token_ids.tolist() != b.token_ids.tolist() for a, b in zip(plain, adapted, strict=True))
    for reply in adapted:
        np.testing.assert_allclose(reply.logprobs, forward_logprobs(engine.model, reply, 0.0), atol=1e-4)


def test_sampling_with_an_adapter_leaves_every_weight_as_it_was(engine):
    engine.model = with_adapter(engine.model)
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    trainable = {name for name, p in engine.model.named_parameters() if p.requires_grad}
    engine(asks(GREEDY))
    after = engine.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name for name, p in engine.model.named_parameters() if p.requires_grad} == trainable


TEXTS = ["Who draws first?", "x " * 60, "The rain is late.", "é"]


@pytest.mark.parametrize("budget", [40, 32768])
def test_options_weigh_what_a_forward_pass_gives_their_tokens(tiny_model, tiny_tokenizer, budget):
    engine = LocalEngine(with_adapter(tiny_model), tiny_tokenizer, batch_tokens=budget)
    chats = [({"role": "user", "content": text},) for text in ("Who draws first?", "Is it fair, then, to both?", "Why")]
    options = ("0", "3", "5")
    found = engine.weigh_options(chats, options)
    token_ids = [tiny_tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
    for row, chat in zip(found, chats, strict=True):
        prompt = torch.tensor(engine.encode_chat(chat), dtype=torch.long)[None]
        logprob_V = engine.model(prompt).logits[0, -1].double().log_softmax(-1)
        assert row == pytest.approx([logprob_V[ids[0]].item() for ids in token_ids], abs=1e-4)
    with pytest.raises(ModelError, match="writes 'two words' as several tokens"):
        engine.weigh_options(chats, ("two words",))


def mean_pool(states_BTD, mask_BT):
    mask_BT1 = mask_BT[..., None].to(states_BTD.dtype)
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def last_pool(states_BTD, mask_BT):
    return states_BTD[torch.arange(len(mask_BT)), mask_BT.sum(1) - 1]


def states_by_hand(model, tokenizer, text):
    """Return each layer's hidden states (T, D) of one text without padding; the last ones are after the final norm."""
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return [states[0] for states in model(input_ids=ids, output_hidden_states=True).hidden_states]


def test_hidden_states_are_those_of_the_model(engine):
    features = engine.hidden_states(TEXTS, [1], mean_pool)
    assert features.shape == (4, 1, 32)
    assert features.dtype == np.float32
    for text, row in zip(TEXTS, features, strict=True):
        by_hand = states_by_hand(engine.model, engine.tokenizer, text)[1].mean(0)
        np.testing.assert_allclose(row[0], by_hand.numpy(), atol=1e-5)


def test_layers_come_in_the_order_asked_for(engine):
    features = engine.hidden_states(TEXTS, [2, 1], last_pool)
    for text, row in zip(TEXTS, features, strict=True):
        _, first, second = states_by_hand(engine.model, engine.tokenizer, text)
        np.testing.assert_allclose(row[1], first[-1].numpy(), atol=1e-5)
        # transformers shows the last layer after the final norm; the engine gives the layer's own output.
        normed = engine.model.model.norm(torch.tensor(row[0]))
        np.testing.assert_allclose(normed.numpy(), second[-1].numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [2, 200])
def test_hidden_states_do_not_depend_on_the_batches(tiny_model, tiny_tokenizer, batch_tokens):
    whole = LocalEngine(tiny_model, tiny_tokenizer).hidden_states(TEXTS, [1, 2], mean_pool)
    split = LocalEngine(tiny_model, tiny_tokenizer, batch_tokens=batch_tokens).hidden_states(TEXTS, [1, 2], mean_pool)
    np.testing.assert_allclose(whole, split, atol=1e-5)


def with_adapter(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        # init_lora_weights=False: random B as well, so the adapter changes something.
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(model, config).eval()


def test_hidden_states_are_those_of_the_frozen_base(engine):
    plain = engine.hidden_states(TEXTS, [1, 2], mean_pool)
    engine.model = with_adapter(engine.model)
    np.testing.assert_array_equal(engine.hidden_states(TEXTS, [1, 2], mean_pool), plain)
    # The adapter is on again afterwards: a forward pass differs from the base's.
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        adapted = engine.model(input_ids=ids).logits
        with engine.model.disable_adapter():
            base = engine.model(input_ids=ids).logits
    assert not torch.allclose(adapted, base, atol=1e-3)


def test_batches_hold_every_row_once_within_the_budget():
    sizes = [5, 90, 7, 7, 1, 40, 200]
    batches = list(split_batches(sizes, 100))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(sizes[i] for i in batch) <= 100 for batch in batches)
    assert batches[0] == [6]  # longer than the budget: alone
