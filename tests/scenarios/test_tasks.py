"""Conflict tasks, open-ended questions and transfer cases become scenarios that can be played."""

from math import comb

import pytest

from comity.config import NegotiationConfig
from comity.errors import DataError
from comity.negotiation.protocol import is_solo, pending, start
from comity.scenarios.load import load_persona_pairs
from comity.scenarios.rows import write_rows
from comity.scenarios.tasks import (
    load_conflict_tasks,
    load_open_questions,
    load_task_scenarios,
    load_transfer_cases,
    make_transfer_scenarios,
)
from comity.types import Persona, Scenario

CASE = {
    "id": "case-x",
    "title": "The well",
    "situation": "Three villages share a well.",
    "stakeholders": [
        {"name": "Upper village", "interests": "It wants mornings."},
        {"name": "Lower village", "interests": "It wants evenings."},
        {"name": "Herders", "interests": "They want a trough."},
    ],
}


def test_conflict_tasks_keep_their_personas_and_ids():
    rows, scenarios = load_conflict_tasks(), load_task_scenarios("conflict-tasks")
    assert [s.id for s in scenarios] == [row["id"] for row in rows]
    assert all(s.id.startswith("task-") and s.split == "test" and not is_solo(s) for s in scenarios)
    assert scenarios[3] == Scenario(
        "task-004",
        rows[3]["dilemma"],
        rows[3]["tier"],
        (Persona("task-004a", rows[3]["persona_a"]), Persona("task-004b", rows[3]["persona_b"])),
        "test",
        rows[3]["domain"],
    )


def test_no_task_reuses_a_training_persona():
    training = {row[side] for row in load_persona_pairs() for side in ("persona_a", "persona_b")}
    tasks = [p.objective for s in load_task_scenarios("conflict-tasks") for p in s.personas]
    assert len(set(tasks)) == 200
    assert not training & set(tasks)


def test_open_questions_are_answered_alone():
    rows, scenarios = load_open_questions(), load_task_scenarios("open-ended")
    assert [(s.id, s.dilemma) for s in scenarios] == [(row["id"], row["question"]) for row in rows]
    assert all(is_solo(s) and s.tier is None and s.split == "test" for s in scenarios)


def test_each_two_stakeholders_of_a_case_meet_once():
    first, second, third = make_transfer_scenarios([CASE])
    assert [s.id for s in (first, second, third)] == ["case-x/1-2", "case-x/1-3", "case-x/2-3"]
    assert first.dilemma == "Three villages share a well. Not at the table: Herders: They want a trough."
    assert second.personas == (
        Persona("case-x/1", "You speak for Upper village. It wants mornings."),
        Persona("case-x/3", "You speak for Herders. They want a trough."),
    )
    assert make_transfer_scenarios([CASE], "first") == [first]
    two = CASE | {"stakeholders": CASE["stakeholders"][:2]}
    assert [s.dilemma for s in make_transfer_scenarios([two])] == ["Three villages share a well."]


def test_what_a_stakeholder_keeps_secret_is_not_told_to_others():
    secret = [party | {"secret": True} for party in CASE["stakeholders"]]
    scenarios = make_transfer_scenarios([CASE | {"stakeholders": secret}])
    assert {s.dilemma for s in scenarios} == {"Three villages share a well."}


def test_shipped_cases_give_all_their_pairs():
    cases = load_transfer_cases()
    # 10 cases of 2, 20 of 3, 18 of 4 and 12 of 5 stakeholders: 10 * 1 + 20 * 3 + 18 * 6 + 12 * 10 = 298
    assert sum(comb(len(case["stakeholders"]), 2) for case in cases) == 298
    scenarios = load_task_scenarios("transfer")
    assert len({s.id for s in scenarios}) == 298
    assert len(load_task_scenarios("transfer", "first")) == 60


@pytest.mark.parametrize("source", ["conflict-tasks", "open-ended", "transfer"])
def test_every_task_can_be_started(source):
    for scenario in load_task_scenarios(source):
        request = pending(start(scenario), NegotiationConfig())
        assert request.target == "seat_0"
        assert scenario.dilemma.split()[0] in request.messages[-1]["content"]


def test_a_file_of_tasks_is_known_by_its_fields(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_rows(path, [CASE])
    assert load_task_scenarios(str(path)) == make_transfer_scenarios([CASE])
    write_rows(path, load_persona_pairs())
    with pytest.raises(DataError, match="holds persona-pairs, no tasks; give conflict-tasks, open-ended, transfer or"):
        load_task_scenarios(str(path))
