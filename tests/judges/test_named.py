"""What a judge's name means, and judges behind a real address."""

import pytest

from comity.config import AccessConfig, JudgeConfig
from comity.errors import ConfigError, ModelError
from comity.judges.named import open_sources, place_judge, split_names
from comity.judges.preference import compare_both_orders
from comity.prompts import hash_template
from comity.types import Answer, AnswerPair, RoundEnding, Stake
from loopback import MODEL, Act, serve

ENDING = RoundEnding("Who draws first?", "Save water.", "Save time.", "By turns?", "Yes, from Monday.")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("comity/embedded", "embedded"),
        ("openai/gpt-4.1-mini", "external"),
        ("vllm/Qwen/Qwen3-14B", "external"),
        ("openai-api/somewhere/model", "external"),
        ("hf/openai/gpt-oss-20b", "local"),
        ("Qwen/Qwen3-14B", "local"),
        ("openai", "local"),
        ("models/judge", "local"),
    ],
)
def test_the_first_word_of_a_name_says_where_it_runs(name, place):
    assert place_judge(name) == place


def test_a_folder_is_local_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "google" / "judge").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert place_judge("google/judge") == "local"
    assert place_judge("google/other") == "external"


def test_names_stand_between_commas():
    assert split_names("a/b, comity/embedded") == ("a/b", "comity/embedded")
    for wrong in ("", "a,", "a,,b", "a, a"):
        with pytest.raises(ConfigError, match=r"judges\.agency"):
            JudgeConfig(agency=wrong)


def open_loopback(tmp_path, names=(MODEL,), **changes):
    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0, **changes)
    return open_sources(names, JudgeConfig(reply_tokens=99), {}, access, "run")


def test_verdicts_come_from_behind_an_address(tmp_path, monkeypatch):
    replies = {"score": "4\nfair", "yes": "YES\nboth accept", "better": "A\nit has a plan", "serves": "2\na little"}

    def script(call):
        prompt = call.prompt
        if "whole number" in prompt:
            return replies["serves" if "that side" in prompt else "score"]
        return replies["yes" if "YES or NO" in prompt else "better"]

    with serve(script) as server:
        server.point(monkeypatch)
        sources = open_loopback(tmp_path)
        (agency,) = sources.build_agency(MODEL)([Answer("Who draws first?", "By turns.")])
        (agreement,) = sources.build_agreement(MODEL)([ENDING])
        (stake,) = sources.build_satisfaction(MODEL)([Stake("Who draws first?", "Save water.", "By turns.")])
        (pair,) = compare_both_orders(sources.build_preference(MODEL), [AnswerPair("d", "x", "y")])
        spends = sources.read_spend()
        sources.close()
    assert (agency.judge, agency.score, agency.text) == (MODEL, 4.0, "fair")
    assert agency.template_hash == hash_template("agency")
    assert (agreement.agreed, agreement.score, agreement.text) == (True, 1.0, "both accept")
    assert (stake.score, stake.text) == (2.0, "a little")
    assert pair.outcome == "inconsistent"  # A in both orders
    accounts = {spend.account: spend.calls for spend in spends}
    assert accounts == {"judge/agency": 1, "judge/agreement": 1, "judge/preference": 2, "judge/satisfaction": 1}
    assert {call.body["max_tokens"] for call in server.calls} == {99}
    assert {call.body["temperature"] for call in server.calls} == {0.0}


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act("status", status=429), "rate limit"),
        (Act("status", status=500), "http 500"),
        (Act("hang"), "timeout"),
        (Act("drop"), "connection failed"),
        (Act("half", "4\nfair"), "connection failed"),
        (Act("broken"), "malformed reply"),
        (Act("text", "4\nfa", finish="length"), "truncated"),
        (Act("text", "I cannot", finish="content_filter"), "refused"),
        (Act("text", ""), "empty reply"),
        ("7\ntoo good", "no verdict in the reply"),  # off the scale
        ("Four", "no verdict in the reply"),
    ],
    ids=str,
)
def test_what_brings_no_verdict_is_unscored_and_says_why(tmp_path, monkeypatch, act, reason):
    with serve(lambda call: act) as server:
        server.point(monkeypatch)
        silent = isinstance(act, Act) and act.kind == "hang"
        sources = open_loopback(tmp_path, timeout_seconds=0.3 if silent else 60)
        (agency,) = sources.build_agency(MODEL)([Answer("d", "a")])
        (agreement,) = sources.build_agreement(MODEL)([ENDING])
        sources.close()
    assert (agency.score, agency.text) == (None, reason)
    assert (agreement.score, agreement.agreed, agreement.text) == (None, None, reason)


def test_a_judge_is_asked_with_the_sampling_of_its_settings_and_paid_anew_for_another(tmp_path, monkeypatch):
    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0)
    with serve(lambda call: str(call.count)) as server:
        server.point(monkeypatch)
        scores = []
        for judges in (JudgeConfig(), JudgeConfig(temperature=0.7, top_p=0.9), JudgeConfig(temperature=0.7, top_p=0.9)):
            sources = open_sources((MODEL,), judges, {}, access, "run")
            scores += [verdict.score for verdict in sources.build_agency(MODEL)([Answer("d", "a")])]
            sources.close()
    assert scores == [1.0, 2.0, 2.0]
    asked = [(call.body["temperature"], call.body.get("top_p")) for call in server.calls]
    assert asked == [(0.0, None), (0.7, 0.9)]


def test_several_judges_behind_addresses_judge_together(tmp_path, monkeypatch):
    other = "openai-api/loopback/other"
    with serve(lambda call: "5" if call.body["model"] == "other" else "2") as server:
        server.point(monkeypatch)
        sources = open_loopback(tmp_path, (MODEL, other))
        (verdict,) = sources.build_agency(f"{MODEL}, {other}")([Answer("d", "a")])
        sources.close()
    assert (verdict.score, verdict.uncertainty) == (3.5, 1.5)
    assert verdict.text == f"{MODEL} 2; {other} 5"


def test_what_cannot_be_opened_is_one_line_and_leaves_nothing_open(tmp_path, monkeypatch):
    with serve(lambda call: "4") as server:
        server.point(monkeypatch)
        with pytest.raises(ModelError, match="cannot be loaded"):
            open_loopback(tmp_path, (MODEL, str(tmp_path / "none")))
        prices = tmp_path / "prices.toml"
        other = "openai-api/loopback/other"
        prices.write_text(
            f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 1, output = 1 }}\n'
            f'"{other}" = {{ input = 1, output = 1 }}\n'
        )
        access = AccessConfig(cache="none", max_spend=1.0, prices=str(prices))
        with pytest.raises(ConfigError, match=r"name a file as access\.cache"):
            open_sources((MODEL, other), JudgeConfig(), {}, access, "run")
    with pytest.raises(ConfigError, match=r"judges\.satisfaction is 'comity/embedded', which answers no prompts"):
        open_sources((), JudgeConfig(), {}, AccessConfig(), "run").build_satisfaction("comity/embedded")
