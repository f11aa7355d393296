"""The shipped demonstrations and the rows that the warm start is fitted on."""

import json
from collections import Counter

import pytest

from comity.config import NegotiationConfig
from comity.engines.scripted import scripted_judge
from comity.errors import DataError
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.scenarios.load import load_dilemmas, load_persona_pairs, make_scenario
from comity.scenarios.rows import read_rows
from comity.training.warm_start import DEMONSTRATION_FIELDS, demonstration_rows, shipped_demonstrations
from comity.types import Completion

RULES = NegotiationConfig()


@pytest.fixture(scope="module")
def demonstrations():
    return read_rows(shipped_demonstrations(), {**DEMONSTRATION_FIELDS, "second_pass": bool}, extra=False)


@pytest.fixture(scope="module")
def rows():
    return demonstration_rows(shipped_demonstrations(), RULES)


def replay(demo):
    """Play a demonstration through the protocol; return every request with the text that answered it."""
    dilemmas = {row["id"]: row for row in load_dilemmas()}
    pairs = {row["id"]: row for row in load_persona_pairs()}
    scenario = make_scenario(dilemmas[demo["dilemma_id"]], pairs[demo["pair_id"]], demo["swapped"])
    texts = [*demo["messages"], *([demo["completion"]] if demo["completion"] else [])]
    asked = []

    def respond(requests):
        (request,) = requests
        asked.append(request)
        return [Completion(texts[len(asked) - 1])]

    rounds = (len(demo["messages"]) + 1) // 2
    decisions = [False] * (rounds - 1) + [bool(demo["agreed"])]
    limited = NegotiationConfig(rounds=rounds)
    # As in evaluation, a dialogue without agreement may have a joint answer too.
    play([start(scenario)], limited, respond, scripted_judge(decisions), always_complete=bool(demo["completion"]))
    assert len(asked) == len(texts)
    return list(zip(asked, texts, strict=True))


def test_every_row_is_what_the_protocol_asks_and_the_author_answered(demonstrations, rows):
    expected = [pair for demo in demonstrations for pair in replay(demo)]
    assert len(rows) == len(expected)
    for row, (request, text) in zip(rows, expected, strict=True):
        assert row["prompt"] == list(request.messages)
        assert row["completion"] == [{"role": "assistant", "content": text}]
        assert row["kind"] == ("summary" if request.target == "summary" else "message")


def test_dilemmas_are_of_the_train_split_only(demonstrations):
    splits = {row["id"]: row["split"] for row in load_dilemmas()}
    assert {splits[demo["dilemma_id"]] for demo in demonstrations} == {"train"}


def test_pairs_are_known_and_varied(demonstrations):
    known = {row["id"] for row in load_persona_pairs()}
    used = {demo["pair_id"] for demo in demonstrations}
    assert used <= known
    assert len(used) >= 20
    assert {demo["swapped"] for demo in demonstrations} == {True, False}


def test_there_are_enough_and_they_differ_in_length_and_outcome(demonstrations):
    assert len(demonstrations) >= 300
    lengths = Counter(len(demo["messages"]) for demo in demonstrations)
    assert len(lengths) >= 3
    assert max(lengths.values()) < 0.8 * len(demonstrations)
    failing = sum(not demo["agreed"] for demo in demonstrations)
    assert 0.05 * len(demonstrations) <= failing <= 0.75 * len(demonstrations)


def test_every_agreement_has_a_joint_answer(demonstrations):
    assert [demo["id"] for demo in demonstrations if demo["agreed"] and not demo["completion"]] == []


def test_dialogues_are_whole_rounds_within_the_limit(demonstrations):
    wrong = [
        d["id"] for d in demonstrations if len(d["messages"]) % 2 or not 2 <= len(d["messages"]) <= 2 * RULES.rounds
    ]
    assert wrong == []


def test_messages_are_texts_without_speaker_labels_or_template_marks(demonstrations):
    for demo in demonstrations:
        for text in [*demo["messages"], demo["completion"] or "-"]:
            assert isinstance(text, str), demo["id"]
            assert text == text.strip(), demo["id"]
            assert text, demo["id"]
            assert "<|" not in text, demo["id"]
            assert not text.startswith(("A:", "B:")), demo["id"]


def test_no_message_is_written_twice_in_one_dialogue(demonstrations):
    # The policy must not learn to parrot.
    assert [demo["id"] for demo in demonstrations if len(set(demo["messages"])) < len(demo["messages"])] == []


def write(path, **changes):
    demo = {
        "id": "x", "dilemma_id": load_dilemmas(split="train")[0]["id"], "pair_id": load_persona_pairs()[0]["id"],
        "swapped": False, "messages": ["one", "two", "three", "four"], "agreed": True, "completion": "five",
        "author": "t",
    }  # fmt: skip
    path.write_text(json.dumps(demo | changes) + "\n", encoding="utf-8")
    return path


def test_hand_made_dialogue(tmp_path):
    rows = demonstration_rows(write(tmp_path / "demo.jsonl"), RULES)
    assert [row["completion"][0]["content"] for row in rows] == ["one", "two", "three", "four", "five"]
    assert [row["kind"] for row in rows] == ["message"] * 4 + ["summary"]
    pair = load_persona_pairs()[0]
    # Seats take turns, so the objectives do; the window shows a speaker the two latest messages.
    for number, row in enumerate(rows[:4]):
        mine, other = ("persona_a", "persona_b") if number % 2 == 0 else ("persona_b", "persona_a")
        assert pair[mine] in row["prompt"][0]["content"]
        assert pair[other] not in row["prompt"][0]["content"]
    shown = " ".join(message["content"] for message in rows[3]["prompt"])
    assert "two" in shown
    assert "three" in shown
    assert [message["role"] for message in rows[3]["prompt"]] == ["system", "user", "assistant", "user"]


def test_swapped_dialogue_gives_the_first_seat_the_second_persona(tmp_path):
    rows = demonstration_rows(write(tmp_path / "demo.jsonl", swapped=True), RULES)
    assert load_persona_pairs()[0]["persona_b"] in rows[0]["prompt"][0]["content"]


def test_failing_dialogue_has_no_joint_answer(tmp_path):
    rows = demonstration_rows(write(tmp_path / "demo.jsonl", agreed=False, completion=None), RULES)
    assert [row["kind"] for row in rows] == ["message"] * 4


def test_bad_row_is_named(tmp_path):
    with pytest.raises(DataError, match="line 1, field messages"):
        demonstration_rows(write(tmp_path / "demo.jsonl", messages="one"), RULES)


def test_rows_say_whether_their_dialogue_is_learned_from_twice(tmp_path):
    assert [row["second_pass"] for row in demonstration_rows(write(tmp_path / "a.jsonl"), RULES)] == [False] * 5
    assert all(row["second_pass"] for row in demonstration_rows(write(tmp_path / "b.jsonl", second_pass=True), RULES))
    with pytest.raises(DataError, match="field second_pass: give true or false"):
        demonstration_rows(write(tmp_path / "c.jsonl", second_pass="yes"), RULES)


def test_what_is_learned_from_twice_agrees_within_two_rounds(demonstrations):
    # The second pass teaches when to accept; all of it must be something to accept.
    again = [demo for demo in demonstrations if demo["second_pass"]]
    assert len(again) >= 200
    assert all(demo["agreed"] and len(demo["messages"]) <= 4 for demo in again)
