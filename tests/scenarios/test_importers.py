"""CaSiNo, LLM-Deliberation games and foreign JSONL become scenario rows; small files of the same forms."""

import json

import pytest

from comity.errors import ComityError, ConfigError, DataError
from comity.scenarios.import_casino import import_casino
from comity.scenarios.import_games import import_games
from comity.scenarios.import_rows import draw_split, import_rows
from comity.scenarios.kinds import check_scenario_row, find_kind
from comity.scenarios.tasks import make_transfer_scenarios


def person(high, medium, low, points):
    return {
        "value2issue": {"Low": low, "High": high, "Medium": medium},
        "value2reason": {"High": f"more  {high}\nfor me", "Medium": '"some"', "Low": "a little"},
        "outcomes": {"points_scored": points, "satisfaction": "Slightly satisfied", "opponent_likeness": "x"},
        "demographics": {"age": 30},
    }


def say(who, text, **data):
    return {"text": text, "task_data": data, "id": f"mturk_agent_{who}"}


def share(food, water, firewood):
    return {"Firewood": str(firewood), "Food": str(food), "Water": str(water)}


DIALOGUE = {
    "dialogue_id": 7,
    "participant_info": {
        "mturk_agent_2": person("Water", "Food", "Firewood", 20),
        "mturk_agent_1": person("Food", "Firewood", "Water", 19),
    },
    "chat_logs": [
        say(1, "Hello!"),
        say(2, "Submit-Deal", issue2youget=share(3, 3, 3), issue2theyget=share(0, 0, 0)),
        say(1, "Reject-Deal", data="reject_deal"),
        say(2, "All water to me?"),
        say(2, "Submit-Deal", issue2youget=share(1, 3, 0), issue2theyget=share(2, 0, 3)),
        say(1, "Accept-Deal", data="accept_deal"),
    ],
    "annotations": [],
}


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_casino_dialogue_becomes_a_conflict_task_with_exact_points(tmp_path):
    (row,) = import_casino(write_json(tmp_path / "casino.json", [DIALOGUE]))
    check_scenario_row(find_kind("conflict-tasks"), row, "here")
    assert row["id"] == "casino-0007"
    assert row["persona_a"].startswith(
        'You need food most, worth 5 points a package to you: "more Food for me" You need f'
    )
    assert row["persona_b"].endswith('You need firewood least, worth 3 points a package to you: "a little"')
    assert row["points_a"] == {"Food": 5, "Water": 3, "Firewood": 4}
    # The second submitted it: a has 2 food and 3 firewood, 2 * 5 + 3 * 4 = 22; b has 1 food and 3 water, 4 + 15 = 19.
    assert row["human"]["deal"] == {
        "a": {"Food": 2, "Water": 0, "Firewood": 3}, "b": {"Food": 1, "Water": 3, "Firewood": 0},
    }  # fmt: skip
    worth = {
        side: sum(row["human"]["deal"][side][issue] * row[f"points_{side}"][issue] for issue in row["points_a"])
        for side in "ab"
    }
    assert worth == {"a": 22, "b": 19}
    assert (row["human"]["points_a"], row["human"]["points_b"]) == (19, 20)  # as the file says, whatever it says
    assert row["human"]["agreed"] is True
    assert row["human"]["messages"] == [{"seat": 0, "text": "Hello!"}, {"seat": 1, "text": "All water to me?"}]
    assert "demographics" not in json.dumps(row)


def test_who_walked_away_has_no_deal(tmp_path):
    walked = DIALOGUE | {"chat_logs": [say(1, "No."), say(2, "Walk-Away")]}
    (row,) = import_casino(write_json(tmp_path / "casino.json", [walked]))
    assert (row["human"]["agreed"], row["human"]["deal"]) == (False, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "is no CaSiNo file (no list of dialogues); give casino_train.json"),
        ([], "is no CaSiNo file (no list of dialogues)"),
        ([3], "dialogue number 0: does not have CaSiNo's form (TypeError"),
        ([DIALOGUE, DIALOGUE | {"participant_info": {}}], "dialogue number 1: does not have CaSiNo's form (ValueError"),
        ([DIALOGUE | {"chat_logs": []}], "dialogue number 0: does not have CaSiNo's form (IndexError"),
        ([{"dialogue_id": 1}], "dialogue number 0: does not have CaSiNo's form (KeyError: 'participant_info')"),
    ],
)
def test_a_file_that_is_not_casino_is_named(tmp_path, value, message):
    with pytest.raises(DataError) as caught:
        import_casino(write_json(tmp_path / "casino.json", value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="is no CaSiNo file"):
            import_casino(path)
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is no CaSiNo file"):
        import_casino(tmp_path / "latin.json")


FILES = {
    "config.txt": "The Mill,mill,p1,greedy,gpt-4\nFishers,fishers,player,cooperative,gpt-4",
    "initial_deal.txt": "A1,B2",
    "global_instructions.txt": "A mill wants a weir.\n\nIssue A: height.\nIssue B: season.",
    "scores_files/mill.txt": "30, 10\n5, 8 , 0 \n33 \n",
    "scores_files/fishers.txt": "0, 40\n10, 20, 60\n50",
    "individual_instructions/greedy/mill.txt": "You are the mill.\nA (max #A_MAX_NUM): A1 (#A1_NUM), A2 (#A2_NUM)",
    "individual_instructions/cooperative/fishers.txt": "You fish. B3 is worth #B3_NUM of #B_MAX_NUM.",
}


def write_game(folder, **changes):
    for name, text in (FILES | changes).items():
        if text is None:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_game_becomes_a_transfer_case_with_its_scores(tmp_path):
    (row,) = import_games(write_game(tmp_path / "weir"))
    check_scenario_row(find_kind("transfer"), row, "here")
    assert (row["id"], row["title"], row["initial_deal"]) == ("game-weir", "weir", "A1,B2")
    assert row["situation"] == "A mill wants a weir. Issue A: height. Issue B: season."
    mill, fishers = row["stakeholders"]
    assert mill["interests"] == (
        "You are the mill. A (max 30): A1 (30), A2 (10) You accept no deal worth less than 33 points to you."
    )
    assert mill["scores"] == {"A": {"A1": 30, "A2": 10}, "B": {"B1": 5, "B2": 8, "B3": 0}}
    assert (mill["threshold"], mill["role"], mill["attitude"]) == (33, "p1", "greedy")
    assert fishers["interests"].startswith("You fish. B3 is worth 60 of 60.")
    (scenario,) = make_transfer_scenarios([row])
    assert scenario.dilemma == row["situation"]  # no score sheet in it


def test_a_folder_of_games_gives_each(tmp_path):
    for name in ("weir", "airport"):
        write_game(tmp_path / name)
    assert [row["id"] for row in import_games(tmp_path)] == ["game-airport", "game-weir"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores_files/mill.txt": "a, b\n3"}, "mill.txt: holds no numbers"),
        ({"scores_files/mill.txt": "1, 2\n3, 4"}, "mill.txt: has no threshold in its last line"),
        ({"scores_files/mill.txt": "5"}, "mill.txt: has no threshold"),
        ({"scores_files/mill.txt": None}, "mill.txt: cannot be read"),
        (
            {"individual_instructions/greedy/mill.txt": "#C1_NUM"},
            "mill.txt: names #C1_NUM, which the party's scores fi",
        ),
        ({"individual_instructions/greedy/mill.txt": "#A3_NUM"}, "mill.txt: names #A3_NUM"),
        ({"config.txt": "The Mill,mill"}, "config.txt, party number 1: has 2 fields; write name, file, role, attitude"),
        ({"global_instructions.txt": None}, "global_instructions.txt: cannot be read"),
    ],
)
def test_a_damaged_game_is_named(tmp_path, changes, message):
    with pytest.raises(DataError) as caught:
        import_games(write_game(tmp_path / "weir", **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_without_a_game_is_named(tmp_path):
    with pytest.raises(DataError, match=r"neither it nor a folder in it has config.txt"):
        import_games(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        import_games(tmp_path / "none")


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_foreign_rows_get_the_names_ids_and_splits_of_a_kind(tmp_path):
    source = [{"id": 3, "prompt": "Who cooks?", "topic": "home", "n": 1}, {"prompt": "Who washes up?"}]
    path = write_lines(tmp_path / "mine.jsonl", *source)
    rows = import_rows(path, find_kind("dilemmas"), {"dilemma": "prompt"}, {"tier": "everyday", "domain": "flat"})
    assert rows == [
        {"id": "3", "tier": "everyday", "domain": "flat", "dilemma": "Who cooks?", "split": draw_split("Who cooks?"),
         "topic": "home", "n": 1},
        {"id": "dilemmas-00002", "tier": "everyday", "domain": "flat", "dilemma": "Who washes up?",
         "split": draw_split("Who washes up?")},
    ]  # fmt: skip
    assert list(rows[0])[:5] == ["id", "tier", "domain", "dilemma", "split"]


def test_rows_without_a_split_fall_into_the_three_in_their_shares():
    counts = dict.fromkeys(("train", "dev", "test"), 0)
    for number in range(2000):
        counts[draw_split(f"text {number}")] += 1
    # Five standard deviations of a share p of 2,000 are at most 5 * sqrt(0.7 * 0.3 / 2000) = 5.1 points.
    assert abs(counts["train"] / 2000 - 0.7) < 0.052
    assert abs(counts["dev"] / 2000 - 0.1) < 0.034
    assert abs(counts["test"] / 2000 - 0.2) < 0.045


@pytest.mark.parametrize(
    ("rows", "renames", "error", "message"),
    [
        ([{"q": "Why?"}], {"question": "query"}, DataError, "mine.jsonl, line 1, field question: is missing"),
        (
            [{"q": "Why?"}],
            {"text": "q"},
            ConfigError,
            "--field text=q: open-ended has no field text; it has id, question",
        ),
        ([{"q": "Why?"}, {"q": 3}], {"question": "q"}, DataError, "mine.jsonl, line 2, field question: is 3"),
        (
            [{"id": 1, "q": "a"}, {"id": "1", "q": "b"}],
            {"question": "q"},
            DataError,
            "line 2, field id: '1' stands on li",
        ),
    ],
)
def test_foreign_rows_that_do_not_fit_are_named(tmp_path, rows, renames, error, message):
    with pytest.raises(ComityError) as caught:
        import_rows(write_lines(tmp_path / "mine.jsonl", *rows), find_kind("open-ended"), renames, {})
    assert isinstance(caught.value, error)
    assert message in str(caught.value)
