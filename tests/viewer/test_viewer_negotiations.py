"""The index of negotiations and the pages that read it."""

import dataclasses
import json
import re
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_index import ask, fresh_index
from made_runs import add_evaluation, judge_made, make_run, open_viewer, write_step

from comity.config import NegotiationConfig, OptimizationConfig
from comity.errors import RunError
from comity.negotiation.protocol import seat_messages
from comity.runs import negotiation_row, truncate_run, write_negotiations
from comity.types import Completion, Turn
from comity.viewer.dialogue import Rules, lay_out
from comity.viewer.excerpts import cut_excerpt
from comity.viewer.index import RunIndex, open_index
from comity.viewer.query import Filter, find_group, find_pairs, find_record, list_parts, match_expression
from comity.viewer.sources import read_row
from comity.viewer.tokens import list_tokens

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def run(tmp_path):
    """Return a run of three steps with an evaluation: 24 and 2 x 3 negotiations."""
    return add_evaluation(make_run(tmp_path / "runs" / "one")) or tmp_path / "runs" / "one"


def test_every_negotiation_is_in_the_index_once(run, tmp_path):
    index = fresh_index(run, tmp_path / "cache")
    page = ask(index)
    assert (page.total, page.pages, len(page.records)) == (24, 1, 24)
    assert [record.step for record in page.records] == [1] * 8 + [2] * 8 + [3] * 8
    with closing(index.connect()) as connection:
        assert list_parts(connection) == ["train", "before", "after"]
        record = find_record(connection, "train", 2, 5)
    row = read_row(run, record.path, record.start, record.size)
    assert (row["scenario"], row["sample"], row["reward"]) == ("day-002/pair-1", 1, 1.0)
    assert not any((run / name).exists() for name in (".viewer", "index.sqlite"))


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Filter(step_from=2), 16), (Filter(step_from=2, step_to=2), 8), (Filter(scenario="PAIR-1"), 12),
        (Filter(ending="agreed"), 18), (Filter(ending="no_agreement"), 6), (Filter(ending="unscored"), 6),
        (Filter(ending="odd"), 0), (Filter(tier="everyday"), 24), (Filter(tier="professional"), 0),
        (Filter(reward_from=1.0), 12), (Filter(reward_from=0.5, reward_to=1.5), 6), (Filter(text="garden"), 24),
        (Filter(score_from=0.5), 12), (Filter(score_from=0.5, score_to=1.5), 6),
        (Filter(text="sample 2"), 6), (Filter(text='"accept half"'), 24), (Filter(text='"half accept"'), 0),
        (Filter(text="gard*"), 24), (Filter(text="ga*"), 0), (Filter(text="GÀRDEN"), 24), (Filter(text='" AND *'), 18),
        (Filter(part="after"), 3), (Filter(part="nothing"), 0),
        (Filter(text="garden", ending="agreed", step_from=3, reward_from=2.0, scenario="pair-0"), 1),
    ],
)  # fmt: skip
def test_filters(run, tmp_path, wanted, count):
    assert ask(fresh_index(run, tmp_path / "cache"), wanted).total == count


def test_order_puts_the_unscored_last_in_both_directions(run, tmp_path):
    index = fresh_index(run, tmp_path / "cache")
    up = [record.reward for record in ask(index, sort="reward").records]
    down = [record.reward for record in ask(index, sort="reward", descending=True).records]
    assert up == [0.0] * 6 + [1.0] * 6 + [2.0] * 6 + [None] * 6
    assert down == [2.0] * 6 + [1.0] * 6 + [0.0] * 6 + [None] * 6


def test_pages_hold_fifty_and_none_twice(tmp_path):
    run = make_run(tmp_path / "one", steps=15)  # 120 negotiations
    index = fresh_index(run, tmp_path / "cache")
    pages = [ask(index, sort="reward", number=number) for number in (1, 2, 3)]
    assert [len(page.records) for page in pages] == [50, 50, 20]
    assert len({(record.step, record.place) for page in pages for record in page.records}) == 120
    assert ask(index, number=99).number == 3


@given(st.text())
def test_any_search_is_taken_by_the_full_text_index(text):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5 (text, content='')")
        connection.execute("INSERT INTO texts (rowid, text) VALUES (1, 'one garden')")
        words = match_expression(text)
        if words:
            connection.execute("SELECT rowid FROM texts WHERE texts MATCH ?", (words,)).fetchall()


def test_the_index_follows_a_run_that_was_cut_back(run, tmp_path):
    index = fresh_index(run, tmp_path / "cache")
    truncate_run(run, 1)
    write_step(run, 2, scenarios=1)
    again = fresh_index(run, tmp_path / "cache")
    assert [record.step for record in ask(again).records] == [1] * 8 + [2] * 4
    assert ask(again, Filter(text="garden")).total == 12
    assert again.path == index.path


def test_an_index_that_was_rewritten_too_often_is_made_anew(run, tmp_path, monkeypatch):
    monkeypatch.setattr("comity.viewer.index.WASTE_ROWS", 10)
    fresh_index(run, tmp_path / "cache")
    for texts in (("One.", "Two."), ("Three.", "Four.")):
        for step in (1, 2, 3):
            write_negotiations(run, step, [negotiation_row(judge_made(f"x-{step}", s, 1.0, texts)) for s in range(9)])
        index = fresh_index(run, tmp_path / "cache")
    with closing(index.connect()) as connection:
        assert connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] == 3 * 9 + 6
    assert ask(index, Filter(text="three")).total == 27
    assert ask(index, Filter(text="one")).total == 0


@pytest.mark.parametrize("damage", [b"", b"this is no database" * 100])
def test_a_damaged_index_is_made_anew(run, tmp_path, damage):
    path = fresh_index(run, tmp_path / "cache").path
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    path.write_bytes(damage)
    assert ask(fresh_index(run, tmp_path / "cache")).total == 24


def test_an_index_of_another_version_is_made_anew(run, tmp_path):
    index = fresh_index(run, tmp_path / "cache")
    with closing(sqlite3.connect(index.path)) as connection:
        connection.executescript("PRAGMA user_version = 99; DELETE FROM files;")
    with closing(open_index(index.path)) as connection:
        assert connection.execute("SELECT count(*) FROM negotiations").fetchone()[0] == 0
    assert ask(fresh_index(run, tmp_path / "cache")).total == 24


def test_a_cache_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match="choose --cache"):
        RunIndex(run, tmp_path / "cache").refresh()


def test_damaged_and_foreign_rows_are_counted_and_left_out(run, tmp_path):
    path = run / "negotiations" / "step-000002.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"torn": \n[1, 2]\n{"messages": "none"}\n')
        odd = {"messages": [1, {"text": "odd \ud800 garden"}], "reward": True, "sample": "x", "scenario": None}
        stream.write(json.dumps(odd) + "\n")
    (run / "evaluation" / "other.jsonl").write_text('{"id": 1}\n')
    index = fresh_index(run, tmp_path / "cache")
    assert index.state.skipped == 3
    page = ask(index, Filter(text="odd"))
    assert (page.total, page.records[0].reward, page.records[0].ending) == (1, None, "")
    client = open_viewer(run.parent, tmp_path / "cache")
    assert "3 rows could not be read" in client.get("/runs/one/negotiations").text
    assert client.get(f"/runs/one/negotiations/train/2/{page.records[0].place}").status_code == 200


def test_a_row_that_moved_is_told(run, tmp_path):
    index = fresh_index(run, tmp_path / "cache")
    record = ask(index).records[1]
    (run / record.path).write_text("short\n")
    with pytest.raises(RunError, match="has changed since it was indexed; load the page again"):
        read_row(run, record.path, record.start, record.size)


def test_groups_and_pairs(run, tmp_path):
    with closing(fresh_index(run, tmp_path / "cache").connect()) as connection:
        group = find_group(connection, "train", 2, "day-002/pair-1")
        pairs = find_pairs(connection, "before", "after")
    assert [record.sample for record in group] == [0, 1, 2, 3]
    # Scenario i has reward 1 before and 1 + i after: gains 2, 1, 0.
    assert [(first.reward, second.reward) for first, second in pairs] == [(1.0, 3.0), (1.0, 2.0), (1.0, 1.0)]
    assert all(first.scenario == second.scenario for first, second in pairs)


def test_the_list_page_filters_sorts_and_marks(run, tmp_path):
    client = open_viewer(run.parent, tmp_path / "cache")
    page = client.get("/runs/one/negotiations?text=accept&sort=reward&down=1&step_from=2").text
    assert "16 negotiations" in page
    assert "<mark>accept</mark>" in page
    assert 'aria-sort="descending"' in page
    assert "Nothing matches" in client.get("/runs/one/negotiations?text=zebra").text
    assert client.get("/runs/one/negotiations?step_from=two").status_code == 422
    assert client.get("/runs/one/negotiations?step_from=1e99").status_code == 422
    rows = client.get("/runs/one/negotiations/rows")
    assert client.get("/runs/one/negotiations/rows", headers={"if-none-match": rows.headers["etag"]}).status_code == 304


def test_one_negotiation_as_a_chat(run, tmp_path):
    client = open_viewer(run.parent, tmp_path / "cache")
    page = client.get("/runs/one/negotiations/train/2/1").text
    assert "You count costs." in page
    assert "Half for each." in page
    assert "in the loss, advantage +0.00" in page  # seat A is trained
    assert page.count("in the loss, advantage") == 1  # seat B is not
    assert "clear and fair" in page  # the judge's reason
    assert "mean reward 1.00" in page  # (0 + 1 + 2) / 3, the unscored one left out
    assert page.count('class="rollouts"') == 1
    assert "No tokens are stored" in page
    shaded = client.get("/runs/one/negotiations/train/1/1").text
    assert "No tokens are stored" not in shaded
    assert [len(re.findall(rf'class="lp{shade} (?:up|down)\d[^"]*" title=', shaded)) for shade in range(7)] == [2] * 7
    assert "more likely now" in shaded
    assert "unscored" in client.get("/runs/one/negotiations/train/1/3").text
    assert client.get("/runs/one/negotiations/train/1/99").status_code == 404
    assert client.get("/runs/one/negotiations/metrics/1/0").status_code == 404


def test_group_and_pair_pages(run, tmp_path):
    client = open_viewer(run.parent, tmp_path / "cache")
    group = client.get("/runs/one/group?part=train&step=1&scenario=day-001/pair-0").text
    assert group.count("<article") == 4
    assert client.get("/runs/one/group?part=train&step=1&scenario=other").status_code == 404
    pairs = client.get("/runs/one/pairs").text
    assert pairs.index("test-2/pair-0") < pairs.index("test-0/pair-0")
    assert "+2.00" in pairs
    pair = client.get("/runs/one/pair?scenario=test-2/pair-0&sample=0").text
    assert pair.count("<article") == 2
    assert client.get("/runs/one/pair?scenario=test-2/pair-0&sample=5").status_code == 404


def test_hostile_text_is_only_ever_escaped(tmp_path):
    run = make_run(tmp_path / "runs" / HOSTILE.replace("/", ""), steps=0)
    row = negotiation_row(judge_made(HOSTILE, 0, 1.0, (HOSTILE, HOSTILE)), 0.5) | {
        HOSTILE: HOSTILE,
        "reasons": [HOSTILE],
    }
    write_negotiations(run, 1, [row])
    for side in ("before", "after"):
        (run / "evaluation").mkdir(exist_ok=True)
        (run / "evaluation" / f"{side}.jsonl").write_text(json.dumps(row) + "\n")
    client = open_viewer(run.parent, tmp_path / "cache")
    link = re.search(r'href="(/runs/[^"]+)"', client.get("/").text)[1]
    for path in ("", "/negotiations", "/negotiations?text=script", "/negotiations/train/1/0", "/pairs", "/config"):
        page = client.get(link + path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
    assert "&lt;script&gt;alert(1)" in client.get(f"{link}/negotiations/train/1/0").text


def test_the_window_is_what_the_protocol_gave():
    texts = ("A one.", "B one.", "A two.", "B two.")
    judged = judge_made("day-1/pair-0", 0, 1.0, texts)
    rules = NegotiationConfig(window=2)
    dialogue = lay_out(negotiation_row(judged, 0.5), Rules(rules, OptimizationConfig()))
    speeches = [speech for item in dialogue.rounds for speech in item.speeches]
    turns = tuple(Turn(place % 2, Completion(text)) for place, text in enumerate(texts))
    for place, speech in enumerate(speeches):
        before = dataclasses.replace(judged.negotiation, turns=turns[:place])
        assert speech.seen == seat_messages(before, place % 2, rules)
    assert "A one." not in str(speeches[3].seen)  # two messages back is out of the window
    assert "B one." in str(speeches[3].seen)
    assert "A one." in str(dialogue.answer.seen)  # the writer of the answer sees all


@pytest.mark.parametrize(
    ("settings", "trained", "answer"),
    [
        (OptimizationConfig(), [True, False], False),
        (OptimizationConfig(seats="both"), [True, True], False),
        (OptimizationConfig(tokens="completion"), [False, False], True),
        (OptimizationConfig(tokens="both"), [True, False], True),
    ],
)
def test_what_carries_loss(settings, trained, answer):
    dialogue = lay_out(negotiation_row(judge_made("x/y", 0, 1.0), 0.5), Rules(None, settings))
    assert [speech.trained for speech in dialogue.rounds[0].speeches] == trained
    assert dialogue.answer.trained is answer
    unscored = lay_out(negotiation_row(judge_made("x/y", 0, None), 0.0), Rules(None, settings))
    assert [speech.trained for speech in unscored.rounds[0].speeches] == [False, False]
    unknown = lay_out(negotiation_row(judge_made("x/y", 0, 1.0)), Rules())
    assert [speech.trained for speech in unknown.rounds[0].speeches] == [None, None]


def test_stored_tokens_are_shaded_with_their_figures():
    # ln 0.95 = -0.0513 is expected; ln 0.2 = -1.61 lies between 30 and 10 per cent: shade 3.
    reply = Completion("Half.", token_ids=np.array([5, 6], np.int32), logprobs=np.array([-0.0513, -1.6094], np.float32))
    judged = judge_made("x/y", 0, 1.0)
    negotiation = dataclasses.replace(judged.negotiation, turns=(Turn(0, reply), judged.negotiation.turns[1]))
    row = negotiation_row(dataclasses.replace(judged, negotiation=negotiation), -0.5, lambda token: f"<{token}>")
    row = json.loads(json.dumps(row))
    assert row["messages"][0]["sampled"] == {"ids": [5, 6], "texts": ["<5>", "<6>"], "logprobs": [-0.0513, -1.6094]}
    dialogue = lay_out(row, Rules(None, OptimizationConfig()))
    first, second = dialogue.rounds[0].speeches[0].tokens
    assert (first.text, first.classes, second.classes) == ("<5>", "lp0 lose1", "lp3 lose1")
    assert second.hint == "log-probability −1.61 (20.0 %) when it was sampled · in the loss, advantage −0.50"
    assert dialogue.has_tokens
    assert not dialogue.has_changes


def test_what_the_step_changed_is_told_and_shaded():
    # e^-1.6094 = 20 %, e^-0.6931 = 50 %: the change of 0.92 is above 0.7, a factor of 2.5.
    old, new = [-1.6094, -0.6931, -0.01], [-0.6931, -1.6094, None]
    first, second, third = list_tokens({"texts": ["a", "b", "c"], "logprobs": old, "new_logprobs": new}, True, 1.5)
    assert (first.classes, second.classes, third.classes) == ("lp3 up3 win3", "lp2 down3 win3", "lp0 win3")
    assert first.hint == (
        "log-probability −1.61 (20.0 %) when it was sampled, −0.69 (50.0 %) after the step, +0.92 · "
        "in the loss, advantage +1.50"
    )
    (quiet,) = list_tokens({"texts": ["a"], "logprobs": [-1.0], "new_logprobs": [-1.04]}, False, 1.5)
    assert quiet.classes == "lp2 up0"
    assert quiet.hint.endswith("−0.04 · not in the loss")


def test_a_third_seat_is_shown_without_its_window():
    row = negotiation_row(judge_made("x/y", 0, 1.0), 0.5)
    row["messages"].append({"seat": 2, "text": "Me too."})
    dialogue = lay_out(row, Rules(NegotiationConfig(), OptimizationConfig()))
    speeches = [speech for item in dialogue.rounds for speech in item.speeches]
    assert [speech.name for speech in speeches] == ["A", "B", "C"]
    assert all(speech.seen == () for speech in speeches)


@pytest.mark.parametrize("stored", [None, {}, [], {"texts": ["a"], "logprobs": []}, {"texts": "a", "logprobs": [1]}])
def test_tokens_that_do_not_fit_are_not_shown(stored):
    assert list_tokens(stored, True, 1.0) == ()


def test_excerpts_show_where_the_words_stand():
    row = {"messages": [{"text": "x" * 60 + " the garden gate"}], "dilemma": "Whose garden?"}
    pieces = cut_excerpt(row, ["garden"])
    assert ("garden", True) in pieces
    assert pieces[0] == ("… the ", False)  # whole words, so few that a narrow column still shows what was searched
    assert cut_excerpt({"messages": [{"text": "x" * 60 + "-garden"}]}, ["garden"])[:2] == [
        ("… ", False),
        ("garden", True),
    ]
    assert cut_excerpt(row, []) == [("Whose garden?", False)]
    assert cut_excerpt({"messages": []}, ["a(b"]) == [("", False)]
