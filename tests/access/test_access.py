"""Asking a real server: order, one payment a question, limits, retries and what each failure becomes."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.access import Question, open_access
from comity.access.limits import RateLimits
from comity.access.records import estimate_input_tokens, hash_question
from comity.config import AccessConfig
from comity.errors import ConfigError, ModelError
from comity.types import Sampling
from loopback import MODEL, Act, serve


def ask_for(text, **changes):
    given_values = {"sampling": Sampling(0.0, 1.0, 64), "template_hash": "h", "account": "judge/agency"} | changes
    return Question(({"role": "user", "content": text},), **given_values)


def settings(tmp_path, **changes):
    return AccessConfig(**({"cache": str(tmp_path / "v.sqlite"), "backoff_seconds": 0.01, "retries": 2} | changes))


def test_replies_come_in_order_and_a_question_asked_twice_is_paid_for_once(tmp_path, monkeypatch):
    with serve(lambda call: f"{call.prompt}!") as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            arrived = {}
            replies = access.ask([ask_for(t) for t in "abcab"], lambda place, reply: arrived.update({place: reply}))
            again = access.ask([ask_for("c"), ask_for("b")])
            spend = access.read_spend()
    assert [reply.text for reply in replies] == ["a!", "b!", "c!", "a!", "b!"]
    assert [reply.cached for reply in replies] == [False, False, False, True, True]
    assert arrived == dict(enumerate(replies))
    assert [(reply.text, reply.cached, reply.cost) for reply in again] == [("c!", True, 0.0), ("b!", True, 0.0)]
    assert server.counts() == {"a": 1, "b": 1, "c": 1}
    # Three calls of one word in and one word out; nobody knows the price.
    assert [(s.account, s.calls, s.unpriced, s.input_tokens, s.output_tokens, s.dollars) for s in spend] == [
        ("judge/agency", 3, 3, 3, 3, 0.0)
    ]


def test_replies_outlive_the_process_and_a_repeat_is_another_question(tmp_path, monkeypatch):
    with serve(lambda call: str(call.count)) as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            first = access.ask([ask_for("a"), ask_for("a", repeat=1)])
        with open_access(MODEL, settings(tmp_path)) as access:
            second = access.ask([ask_for("a", repeat=1), ask_for("a"), ask_for("a", template_hash="other")])
    assert sorted(reply.text for reply in first) == ["1", "2"]
    assert [reply.text for reply in second] == [first[1].text, first[0].text, "3"]


def test_the_server_gets_roles_sampling_and_the_shape_of_the_reply(tmp_path, monkeypatch):
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"})
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    question = Question(messages, Sampling(0.7, 0.9, 33), "h", "data/dilemmas", json_schema=schema)
    with serve(lambda call: '{"x": 1}') as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            assert access.ask([question])[0].text == '{"x": 1}'
    body = server.calls[0].body
    assert [(m["role"], m["content"]) for m in body["messages"]] == [("system", "be brief"), ("user", "hello")]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 33)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["x"]["type"] == "integer"


@pytest.mark.parametrize(
    ("act", "problem", "calls"),
    [
        (Act("status", status=429), "rate limit", 3),  # the first attempt and two retries
        (Act("status", status=500), "http 500", 3),
        (Act("status", status=400, text="no such setting"), "http 400: Error code: 400 - no such setting", 1),
        (Act("drop"), "connection failed", 3),
        (Act("half", "a reply of some length"), "connection failed", 3),
        (Act("broken"), "malformed reply", 1),
        (Act("text", "4", finish="length"), "truncated", 1),
        (Act("text", "no", finish="content_filter"), "refused", 1),
        (Act("text", " \n"), "empty reply", 1),
    ],
    ids=lambda value: value.kind if isinstance(value, Act) else None,
)
def test_a_failure_is_no_reply_and_says_why(tmp_path, monkeypatch, act, problem, calls):
    with serve(lambda call: act) as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            (reply,) = access.ask([ask_for("a")])
    assert (reply.text, reply.problem.startswith(problem), len(server.calls)) == (None, True, calls)


def test_silence_ends_at_the_time_limit_and_is_tried_again(tmp_path, monkeypatch):
    with serve(lambda call: Act("hang")) as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path, timeout_seconds=0.3, retries=1)) as access:
            begun = time.monotonic()
            (reply,) = access.ask([ask_for("a")])
            waited = time.monotonic() - begun
    assert (reply.text, reply.problem) == (None, "timeout")
    assert waited >= 0.6  # both attempts; a busy machine may end one before its request is sent


def test_a_failure_that_passes_is_retried_and_only_the_reply_is_kept(tmp_path, monkeypatch):
    with serve(lambda call: Act("status", status=503) if call.count < 3 else "fine") as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            (reply,) = access.ask([ask_for("a")])
            (spend,) = access.read_spend()
    assert (reply.text, len(server.calls), spend.calls, spend.failed) == ("fine", 3, 1, 0)


def test_what_brought_no_reply_is_asked_anew_and_what_was_paid_for_is_not(tmp_path, monkeypatch):
    acts = {"failed": Act("status", status=500), "cut": Act("text", "4", finish="length")}
    with serve(lambda call: acts[call.prompt]) as server:
        server.point(monkeypatch)
        for _ in range(2):
            with open_access(MODEL, settings(tmp_path, retries=0)) as access:
                replies = access.ask([ask_for("failed"), ask_for("cut")])
    assert [reply.problem for reply in replies] == ["http 500", "truncated"]
    assert [reply.cached for reply in replies] == [False, True]
    assert server.counts() == {"failed": 2, "cut": 1}


def test_the_provider_says_how_long_to_wait(tmp_path, monkeypatch):
    act = Act("status", status=429, headers={"Retry-After": "0.6"})
    with serve(lambda call: act if call.count == 1 else "fine") as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path)) as access:
            begun = time.monotonic()
            assert access.ask([ask_for("a")])[0].text == "fine"
    assert time.monotonic() - begun >= 0.6


def test_a_refused_key_stops_after_what_is_under_way_is_stored(tmp_path, monkeypatch):
    refused = threading.Event()

    def script(call):
        if call.prompt == "a":
            assert refused.wait(30)
            return "fine"
        refused.set()
        return Act("status", status=401, text="bad key")

    with serve(script) as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path, connections=2)) as access:
            with pytest.raises(ModelError, match="refused the key") as caught:
                access.ask([ask_for("a"), ask_for("b")])
            assert "\n" not in str(caught.value)
            assert access.ask([ask_for("a")])[0].cached
    assert server.counts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("connections", [1, 3])
def test_no_more_requests_at_once_than_connections(tmp_path, monkeypatch, connections):
    # A barrier that fills only when as many requests as there are connections wait in it.
    barrier = threading.Barrier(connections, timeout=30)

    def script(call):
        barrier.wait()
        return "fine"

    with serve(script) as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path, connections=connections)) as access:
            access.ask([ask_for(str(number)) for number in range(2 * connections)])
    assert server.most_at_once == connections


def test_requests_per_minute_are_let_out_second_by_second(tmp_path, monkeypatch):
    with serve(lambda call: "fine") as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path, requests_per_minute=300)) as access:
            begun = time.monotonic()
            access.ask([ask_for(str(number)) for number in range(8)])
    # Five at once, then one each fifth of a second: the eighth waits 0.6 s.
    assert time.monotonic() - begun >= 0.6


def test_tokens_per_minute_of_the_settings_hold_questions_back(tmp_path, monkeypatch):
    with serve(lambda call: "fine") as server:
        server.point(monkeypatch)
        with open_access(MODEL, settings(tmp_path, tokens_per_minute=7200)) as access:
            begun = time.monotonic()
            access.ask([ask_for(f"{number:03}") for number in range(101)])
    # Each counts 3 // 3 + 8 tokens and 64 that may come back: 101 * 73 = 7,373, 173 more than a minute's share.
    # At 120 a second they take 1.44 s.
    assert time.monotonic() - begun >= 1.4


def test_tokens_per_minute_hold_a_request_back():
    async def wait_for(*amounts):
        limits = RateLimits(0, 60_000)
        begun = time.monotonic()
        for tokens in amounts:
            await limits.acquire(tokens)
        return time.monotonic() - begun

    # A minute's share goes at once; 60,000 a minute are 1,000 a second, so 500 more take half a second.
    assert asyncio.run(wait_for(60_000, 500)) >= 0.5
    # What is longer than a minute's share takes the whole share instead of never going.
    assert asyncio.run(wait_for(10**9)) < 0.5


def test_a_request_is_estimated_from_its_bytes():
    # 30 bytes // 3 + 8 = 18; an umlaut has two bytes: 60 // 3 + 8 = 28.
    assert estimate_input_tokens(ask_for("x" * 30)) == 18
    assert estimate_input_tokens(ask_for("ä" * 30)) == 28


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("gpt-4.1", "write PROVIDER/MODEL"),
        ("hf/some-model", "write PROVIDER/MODEL"),
        ("openai-api/nowhere/model", "NOWHERE_API_KEY"),
    ],
)
def test_a_model_that_cannot_be_opened_is_one_line(tmp_path, name, mend):
    with pytest.raises(ConfigError, match=mend) as caught:
        open_access(name, settings(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.sqlite").exists()


def test_a_closed_access_may_be_closed_again(tmp_path, monkeypatch):
    with serve(lambda call: "fine") as server:
        server.point(monkeypatch)
        access = open_access(MODEL, settings(tmp_path))
        access.close()
        access.close()


@given(st.text(), st.text(), st.integers(0, 3), st.floats(0, 2))
def test_the_key_holds_what_decides_a_reply_and_not_the_account(text, other, repeat, temperature):
    sampling = Sampling(temperature, 1.0, 64)
    key = hash_question("m", ask_for(text, repeat=repeat, sampling=sampling))
    assert key == hash_question("m", ask_for(text, repeat=repeat, sampling=sampling, account="data/dilemmas"))
    different = [
        hash_question("n", ask_for(text, repeat=repeat, sampling=sampling)),
        hash_question("m", ask_for(text, repeat=repeat + 1, sampling=sampling)),
        hash_question("m", ask_for(text, repeat=repeat, sampling=Sampling(temperature, 1.0, 65))),
        hash_question("m", ask_for(text, repeat=repeat, sampling=sampling, template_hash="i")),
        hash_question("m", ask_for(text, repeat=repeat, sampling=sampling, json_schema={})),
    ]
    if other != text:
        different.append(hash_question("m", ask_for(other, repeat=repeat, sampling=sampling)))
    assert key not in different
