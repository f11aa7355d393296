"""Every way in which a real server can misbehave leaves a verdict unscored, never 0 and never a guess, and says why.

Silence, which takes its time limit, is in tests/access/test_access.py.
"""

import pytest

from comity.config import AccessConfig, JudgeConfig
from comity.judges.named import open_sources
from comity.judges.preference import compare_both_orders
from comity.types import Answer, AnswerPair, RoundEnding
from loopback import MODEL, Act, serve

MISBEHAVIOUR = {
    "429": (Act("status", status=429), "rate limit"),
    "500": (Act("status", status=500), "http 500"),
    "503": (Act("status", status=503), "http 503"),
    "400": (Act("status", status=400, text="content policy"), "http 400: "),
    "drop": (Act("drop"), "connection failed"),
    "half a document": (Act("half", "4 and so on, as long as it takes"), "connection failed"),
    "no document": (Act("broken"), "malformed reply"),
    "cut off": (Act("text", "4", finish="length"), "truncated"),
    "filtered": (Act("text", "4", finish="content_filter"), "refused"),
    "empty": (Act("text", " \n"), "empty reply"),
    "refusal in words": ("I am sorry, but I cannot rate this.", "no verdict in the reply"),
    "prose first": ("I think that\n4", "no verdict in the reply"),
    "two verdicts": ("4\n5", "no verdict in the reply"),
    "above the scale": ("6", "no verdict in the reply"),
    "below the scale": ("-1", "no verdict in the reply"),
    "a fraction": ("3.5", "no verdict in the reply"),
    "of five": ("4/5", "no verdict in the reply"),
    "a word": ("four", "no verdict in the reply"),
    "json": ('{"score": 4}', "no verdict in the reply"),
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Return judges of a server whose behaviour follows from the text that is judged."""

    def script(call):
        name = next((name for name in MISBEHAVIOUR if f"[{name}]" in call.prompt), None)
        return MISBEHAVIOUR[name][0] if name else "2\nfine"

    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0, connections=4)
    with serve(script) as server:
        server.point(monkeypatch)
        opened = open_sources([MODEL], JudgeConfig(heldout=False), {}, access, "r")
        yield opened
        opened.close()


def test_no_score_comes_of_a_misbehaving_server(sources):
    judge = sources.build_agency(MODEL)
    verdicts = judge([Answer("d", f"[{name}]") for name in MISBEHAVIOUR] + [Answer("d", "sound")])
    told = dict(zip(MISBEHAVIOUR, verdicts, strict=False))
    assert {name: verdict.score for name, verdict in told.items()} == dict.fromkeys(MISBEHAVIOUR)
    wrong = {name: v.text for name, v in told.items() if not v.text.startswith(MISBEHAVIOUR[name][1])}
    assert wrong == {}
    assert verdicts[-1].score == 2.0
    (spend,) = sources.read_spend()
    # Those that brought a reply are calls; four statuses, a reset, half a document and no document brought none.
    assert (spend.calls, spend.failed) == (len(MISBEHAVIOUR) + 1 - 7, 7)


def test_no_agreement_and_no_choice_comes_of_it_either(sources):
    endings = [RoundEnding("d", "x", "y", "By turns?", f"[{name}]") for name in MISBEHAVIOUR]
    assert [verdict.agreed for verdict in sources.build_agreement(MODEL)(endings)] == [None] * len(MISBEHAVIOUR)
    pairs = [AnswerPair("d", "By turns.", f"[{name}]") for name in MISBEHAVIOUR]
    compared = compare_both_orders(sources.build_preference(MODEL), pairs)
    assert [found.outcome for found in compared] == ["unscored"] * len(MISBEHAVIOUR)
