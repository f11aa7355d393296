"""A reply becomes a checked row, or the words of what is wrong with it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.scenarios.generation.plan import plan_slots
from comity.scenarios.generation.replies import find_double, make_schema, read_reply
from comity.scenarios.generation.run import load_shipped_texts
from comity.scenarios.hygiene import SimilarTexts
from comity.scenarios.kinds import find_kind, read_kind

DILEMMAS, PAIRS, TASKS = (find_kind(name) for name in ("dilemmas", "persona-pairs", "conflict-tasks"))
SLOT = plan_slots("dilemmas", 1, 0)[0]
TASK_SLOT = plan_slots("conflict-tasks", 1, 0)[0]
# 5 + 20 + 5 = 30 words
TEXT = "Two beekeepers share one orchard " + " ".join(f"row{n}" for n in range(20)) + " and the blossom ends Friday."
SAVE = "You keep what is there. Nothing that still works should be thrown out."
SPEND = "You build what is not there yet. Old things have had their day already."


def reply(**changes):
    return json.dumps({"dilemma": TEXT} | changes)


def test_a_good_reply_is_the_slots_row():
    row, error = read_reply(DILEMMAS, SLOT, reply(), "openai/x")
    assert error == ""
    assert row == {**SLOT.fixed, "dilemma": TEXT, "source": "openai/x"}
    assert list(row) == ["id", "tier", "domain", "dilemma", "split", "source"]


def test_control_characters_and_tags_do_not_reach_the_row():
    row, _ = read_reply(DILEMMAS, SLOT, reply(dilemma=f"<b>\n{TEXT}\x1b\u200b"), "m")
    assert row["dilemma"] == f"‹b› {TEXT}"


def test_the_one_text_of_a_dilemma_may_come_without_its_object():
    assert read_reply(DILEMMAS, SLOT, TEXT, "m")[0]["dilemma"] == TEXT


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "dilemma has 0 words; write 25 to 80"),
        ('{"dilemma": "x"', "it is not JSON"),
        ("{}", "its fields are none; they must be dilemma"),
        (reply(tier="everyday"), "its fields are dilemma, tier; they must be dilemma"),
        (reply(dilemma=["x"]), "dilemma is no text"),
        (reply(dilemma="Too short."), "dilemma has 2 words; write 25 to 80"),
        (reply(dilemma="word " * 81 + "."), "dilemma has 81 words; write 25 to 80"),
        (reply(dilemma=TEXT[:-1]), "dilemma does not end with a full stop"),
        (reply(dilemma=SLOT.prompt.split("phrases: - ")[-1][:250] + "."), "dilemma repeats the words of the request"),
    ],
)
def test_what_is_wrong_with_a_dilemma_is_said(text, error):
    row, said = read_reply(DILEMMAS, SLOT, text, "m")
    assert row is None
    assert said.startswith(error)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, ""),
        ({"persona_b": "They build what is not there yet. Old things are done."}, 'persona_b does not begin'),
        ({"persona_b": SAVE.upper().replace("YOU", "You", 1)}, "the reply, field persona_b: equals persona_a"),
        ({"persona_a": "You save."}, "persona_a has 2 words; write 10 to 40"),
        ({"dilemma": None}, "dilemma is no text"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_task_is_said(changes, error):
    text = json.dumps({"dilemma": TEXT, "persona_a": SAVE, "persona_b": SPEND} | changes)
    row, said = read_reply(TASKS, TASK_SLOT, text, "m")
    assert (row is None) == bool(error)
    assert said.startswith(error)


def test_a_row_that_repeats_a_shipped_or_an_earlier_text_is_named():
    known = SimilarTexts(0.3, load_shipped_texts(0.3))
    shipped = read_kind("shipped", "persona-pairs")[0]
    row = {"id": "gen-pair-0001", "tension": "a / b", "persona_a": shipped["persona_b"], "persona_b": SPEND}
    said = find_double(PAIRS, row, known)
    assert said.startswith(
        f"persona_a is too near to one that exists (shipped persona-pairs {shipped['id']} persona_b)"
    )
    fresh = row | {"persona_a": SAVE}
    # The row that was refused left nothing behind: its second persona is free.
    assert find_double(PAIRS, fresh, known) == ""
    assert find_double(PAIRS, fresh, known).startswith(
        "persona_a is too near to one that exists (generated gen-pair-0001"
    )


@pytest.mark.parametrize(("kind", "count"), [("dilemmas", 1), ("persona-pairs", 3), ("conflict-tasks", 3)])
def test_the_schema_asks_for_what_the_model_writes(kind, count):
    schema = make_schema(kind)
    assert len(schema["properties"]) == count
    assert schema["required"] == list(schema["properties"])


@given(st.text() | st.dictionaries(st.sampled_from(["dilemma", "x"]), st.text() | st.integers()).map(json.dumps))
def test_any_reply_is_a_row_or_an_error(text):
    row, said = read_reply(DILEMMAS, SLOT, text, "m")
    assert (row is None) == bool(said)
