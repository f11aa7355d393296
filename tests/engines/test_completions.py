"""Which log-probabilities a server reports, told apart by three requests; replies that are none are refused."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from comity.engines.completions import (
    PROBE_SAMPLINGS,
    MalformedReply,
    OtherModel,
    find_kind,
    fits,
    read_likeliest,
    read_reply,
    write_request,
)
from comity.types import Sampling
from serving import first_values

PROMPT = np.array([5, 6, 7], np.int32)
CHOICE = {"prompt_token_ids": [5, 6, 7], "token_ids": [8, 2], "logprobs": {"token_logprobs": [-0.5, -1.5]}}


def probe(logits_V, kind):
    bodies = [{"temperature": item.temperature, "top_p": item.top_p} for item in PROBE_SAMPLINGS]
    return [first_values(logits_V, body, kind).topk(2).values.tolist() for body in bodies]


@pytest.mark.parametrize(
    ("kind", "plain", "heated", "cut"),
    [
        # Two tokens of probabilities 3/4 and 1/4. At T = 1/2 they are squared: 9/16 and 1/16, that is 0.9 and 0.1.
        ("whole", (-0.2877, -1.3863), (-0.1054, -2.3026), (-0.1054, -2.3026)),
        ("nucleus", (-0.2877, -1.3863), (-0.1054, -2.3026), (0.0, -9999.0)),
        ("raw", (-0.2877, -1.3863), (-0.2877, -1.3863), (-0.2877, -1.3863)),
        ("logits", (3.0, 1.9014), (6.0, 3.8028), (6.0, -9999.0)),
        ("logits", (-3.0, -4.0986), (-6.0, -8.1972), (-6.0, -9999.0)),
    ],
)
def test_each_kind_is_told_by_hand(kind, plain, heated, cut):
    assert find_kind(plain, heated, cut) == kind


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=12), st.sampled_from(["whole", "nucleus", "raw", "logits"]))
def test_each_kind_is_told_for_any_distribution_that_is_not_too_certain(logits, kind):
    plain, heated, cut = probe(torch.tensor(logits), kind)
    found = find_kind(plain, heated, cut)
    assume(found is not None)
    # Raw log-probabilities of a model that ignores nothing else: raw logits are not among vLLM's modes that we tell.
    assert found == kind


def test_a_certain_first_token_tells_nothing():
    assert find_kind((-0.01, -4.6), (-0.0001, -9.2), (0.0, -9999.0)) is None
    assert find_kind((-0.7, -0.7), (-0.7, -0.7), (-0.7, -0.7)) is None  # nor do two that are alike


def test_which_kinds_are_what_the_trainer_computes():
    usual, plain, cold = Sampling(0.7, 0.95), Sampling(1.0, 0.95), Sampling(0.1, 1.0)
    assert fits("whole", [usual, plain, cold])
    assert fits("raw", [plain])
    assert not fits("raw", [plain, cold])
    assert fits("nucleus", [cold])
    assert not fits("nucleus", [cold, usual])
    assert not fits("logits", [plain])


def test_a_request_names_every_setting_that_a_server_would_fill_in():
    body = write_request("m", PROMPT, Sampling(0.7, 0.95, 9), 11, frozenset({2, 0}))
    assert body["prompt"] == [5, 6, 7]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.7, 0.95, 0, 0.0)
    assert (body["repetition_penalty"], body["presence_penalty"], body["frequency_penalty"]) == (1.0, 0.0, 0.0)
    assert (body["seed"], body["stop_token_ids"], body["max_tokens"]) == (11, [0, 2], 9)


def test_a_reply_is_read():
    sampled = read_reply({"model": "m", "choices": [CHOICE]}, "m", PROMPT)
    assert sampled.token_ids.tolist() == [8, 2]
    assert sampled.logprobs.tolist() == [-0.5, -1.5]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"model": "m"},
        {"model": "m", "choices": []},
        {"model": "m", "choices": [CHOICE, CHOICE]},
        {"model": "m", "choices": [{**CHOICE, "prompt_token_ids": [5, 6]}]},
        {"model": "m", "choices": [{**CHOICE, "token_ids": [8]}]},
        {"model": "m", "choices": [{**CHOICE, "token_ids": [], "logprobs": {"token_logprobs": []}}]},
        {"model": "m", "choices": [{**CHOICE, "token_ids": [8, 2**40]}]},
        {"model": "m", "choices": [{**CHOICE, "logprobs": None}]},
        {"model": "m", "choices": [{**CHOICE, "logprobs": {"token_logprobs": [-0.5, "x"]}}]},
        {"model": "m", "choices": [{**CHOICE, "logprobs": {"token_logprobs": [-0.5, None]}}]},
    ],
)
def test_what_is_no_reply_is_refused(document):
    with pytest.raises(MalformedReply):
        read_reply(document, "m", PROMPT)


def test_a_reply_of_another_model_is_not_taken():
    with pytest.raises(OtherModel, match="answered as base"):
        read_reply({"model": "base", "choices": [CHOICE]}, "m", PROMPT)


@pytest.mark.parametrize("top", [None, [], [{}], [{"a": -1.0}], [{"a": None, "b": 1}]])
def test_likeliest_tokens_that_are_none_are_refused(top):
    with pytest.raises(MalformedReply):
        read_likeliest({"choices": [{"logprobs": {"top_logprobs": top}}]})
