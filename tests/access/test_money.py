"""Prices, the ledger and the cap."""

import asyncio

import pytest
from test_access import ask_for, settings

from comity.access import open_access
from comity.access.budget import Budget
from comity.access.prices import Price, find_price, load_prices
from comity.access.provider import LOCAL_PROVIDERS, PROVIDERS
from comity.errors import ConfigError, DataError, SpendCapReached
from loopback import MODEL, Act, serve

# 1,000 dollars a million tokens in and 100,000 out: 0.001 and 0.1 each.
PRICES = f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 1000, output = 100000.0 }}\n'


def priced(tmp_path, **changes):
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    return settings(tmp_path, prices=str(path), **changes)


def test_the_ledger_books_by_run_account_and_model_and_a_kept_reply_costs_nothing(tmp_path, monkeypatch):
    with serve(lambda call: Act("status", status=500) if call.prompt == "x" else "two words") as server:
        server.point(monkeypatch)
        with open_access(MODEL, priced(tmp_path, retries=0), run="one") as access:
            replies = access.ask([ask_for("a b c"), ask_for("x"), ask_for("d", account="judge/agreement")])
            one = access.read_spend()
        with open_access(MODEL, priced(tmp_path), run="two") as access:
            again = access.ask([ask_for("a b c")])
            two = access.read_spend()
    # 3 * 0.001 + 2 * 0.1 = 0.203 and 1 * 0.001 + 2 * 0.1 = 0.201
    assert [reply.cost for reply in replies] == pytest.approx([0.203, 0.0, 0.201])
    assert [(s.run, s.account, s.calls, s.failed, s.unpriced) for s in one] == [
        ("one", "judge/agency", 1, 1, 0),
        ("one", "judge/agreement", 1, 0, 0),
    ]
    assert [s.dollars for s in one] == pytest.approx([0.203, 0.201])
    assert again[0].cached
    assert again[0].cost == 0.0
    assert two == []


def test_the_cap_stops_before_it_is_passed_and_the_run_goes_on_with_a_higher_one(tmp_path, monkeypatch):
    questions = [ask_for(f"q{number}", sampling=ask_for("").sampling.__class__(0.0, 1.0, 1)) for number in range(6)]
    # A question of 2 bytes is taken for 8 tokens and its reply for 1: 0.008 + 0.1 = 0.108 are set aside; the reply then
    # costs 0.101. After two, 0.202 are spent, and 0.202 + 0.108 = 0.310 passes 0.305.
    with serve(lambda call: "word") as server:
        server.point(monkeypatch)
        with open_access(MODEL, priced(tmp_path, max_spend=0.305), run="r") as access:
            with pytest.raises(SpendCapReached, match="raise --max-spend") as caught:
                access.ask(questions)
            (spend,) = access.read_spend()
        assert spend.dollars == pytest.approx(0.202)
        assert "\n" not in str(caught.value)
        # A resumed run counts what it spent before.
        with open_access(MODEL, priced(tmp_path, max_spend=0.305), run="r") as access:
            assert [reply.cached for reply in access.ask(questions[:2])] == [True, True]
            with pytest.raises(SpendCapReached):
                access.ask(questions)
        with open_access(MODEL, priced(tmp_path, max_spend=1.0), run="r") as access:
            replies = access.ask(questions)
    assert [reply.cached for reply in replies] == [True, True, False, False, False, False]
    assert set(server.counts().values()) == {1}


def test_runs_may_share_one_cap(tmp_path, monkeypatch):
    with serve(lambda call: "word") as server:
        server.point(monkeypatch)
        for run in ("one", "two"):
            with open_access(MODEL, priced(tmp_path, book_under="study"), run=run) as access:
                access.ask([ask_for(run)])
        with open_access(MODEL, priced(tmp_path, book_under="study", max_spend=0.2), run="three") as access:
            (spend,) = access.read_spend()
            with pytest.raises(SpendCapReached):
                access.ask([ask_for("three")])
    assert (spend.run, spend.calls, spend.dollars) == ("study", 2, pytest.approx(0.202))  # 2 * (0.001 + 0.1)


def test_a_cap_needs_a_price(tmp_path):
    with pytest.raises(ConfigError, match=r"has no price: give a TOML file .* as access.prices") as caught:
        open_access(MODEL, settings(tmp_path, max_spend=1.0))
    assert "\n" not in str(caught.value)


def test_a_budget_waits_for_what_is_under_way():
    spent = 0.0

    async def story():
        nonlocal spent
        budget = Budget(1.0, lambda: spent)
        assert await budget.reserve(0.6)
        second = asyncio.create_task(budget.reserve(0.6))
        await asyncio.sleep(0)
        assert not second.done()
        spent += 0.2  # the first one cost less than was set aside
        await budget.give_back(0.6)
        assert await second
        spent += 0.5
        await budget.give_back(0.6)
        return await budget.reserve(0.4)  # 0.7 + 0.4 passes 1 and nothing is under way

    assert asyncio.run(story()) is False


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("openai/gpt-4o", Price(2.5, 10.0)),
        ("openai/gpt-4o-2024-08-06", Price(2.5, 10.0)),
        ("anthropic/claude-sonnet-4-5-20250929", Price(3.0, 15.0)),
        ("openai/gpt-4o-mini", Price(0.15, 0.6)),
        ("openai/gpt-4o-audio", None),
        ("vllm/any/name", Price(0.0, 0.0)),
        ("openai-api/somewhere/gpt-4o", None),
    ],
)
def test_a_price_is_found_by_name_by_name_without_date_or_by_provider(model, price):
    assert find_price(load_prices("shipped"), model) == price


def test_own_prices_go_before_the_shipped_ones(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('[dollars_per_million_tokens]\n"openai/gpt-4o" = { input = 1, output = 2 }\n')
    prices = load_prices(str(path))
    assert prices["openai/gpt-4o"] == Price(1.0, 2.0)
    assert prices["openai/gpt-4o-mini"] == Price(0.15, 0.6)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("= 1", "is not valid TOML"),
        ("x = 1", "has no table"),
        ('[dollars_per_million_tokens]\n"m" = 3', "the price of 'm' is 3"),
        ('[dollars_per_million_tokens]\n"m" = { input = 1 }', "the price of 'm'"),
        ('[dollars_per_million_tokens]\n"m" = { input = 1, output = -1 }', "has -1"),
        ('[dollars_per_million_tokens]\n"m" = { input = nan, output = 1 }', "has nan"),
        ('[dollars_per_million_tokens]\n"m" = { input = true, output = 1 }', "has True"),
    ],
)
def test_a_bad_price_file_is_named(tmp_path, text, complaint):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        load_prices(str(path))
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        load_prices(str(tmp_path / "missing.toml"))


def test_every_provider_of_inspect_is_known():
    from inspect_ai._util.registry import registry_find, registry_unqualified_name
    from inspect_ai.model import get_model

    get_model("mockllm/model")  # fills the registry
    names = {registry_unqualified_name(info) for info in registry_find(lambda info: info.type == "modelapi")}
    assert names == PROVIDERS | LOCAL_PROVIDERS
