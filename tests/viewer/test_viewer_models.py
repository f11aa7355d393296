"""A comparison of several models: one file, a part for each of those who played."""

import json
from contextlib import closing

from made_index import ask, fresh_index
from made_runs import judge_made, open_viewer

from comity.runs import negotiation_row, write_json
from comity.scenarios.rows import write_rows
from comity.viewer.dialogue import read_rules
from comity.viewer.query import Filter, find_pairs, list_parts


def write_comparison(folder):
    """Write what `comity evaluate --models` leaves: two models and a match of them, two tasks, two runs each."""
    rules = {"negotiation.rounds": 2, "negotiation.window": 1}
    write_json(folder / "settings.json", {"settings": rules | {"seed": 1}, "tasks": {}, "models": {}})
    rows = [
        {"model": model, "opponent": other, "task": "conflict", "decoding": "sampled", "run": run}
        | negotiation_row(judge_made(f"task-{task}", run, float(gain + task)))
        for model, other, gain in (("base", "base", 1), ("multi", "multi", 2), ("multi", "base", 3))
        for task in (0, 1)
        for run in (0, 1)
    ]
    write_rows(folder / "dialogues.jsonl", rows)
    write_rows(folder / "preferences.jsonl", [{"first": "base", "second": "multi"}])
    return folder


def test_a_comparison_of_models_has_a_part_for_each(tmp_path):
    folder = write_comparison(tmp_path / "runs" / "models")
    index = fresh_index(folder, tmp_path / "cache")
    with closing(index.connect()) as connection:
        assert list_parts(connection) == ["base, sampled", "multi against base, sampled", "multi, sampled"]
        pairs = find_pairs(connection, "base, sampled", "multi, sampled")
    assert [after.reward - before.reward for before, after in pairs] == [1.0] * 4
    assert ask(index, Filter(part="multi against base, sampled", reward_from=4.0)).total == 2
    assert read_rules(folder, "multi, sampled").negotiation.window == 1
    client = open_viewer(folder.parent, tmp_path / "cache")
    assert "evaluation" in client.get("/").text
    assert "An evaluation takes no steps." in client.get("/runs/models").text
    page = client.get("/runs/models/pairs?before=base, sampled&after=multi, sampled").text
    assert "4 pairs" in page
    pair = client.get("/runs/models/pair?scenario=task-1&sample=1&before=base, sampled&after=multi, sampled").text
    assert pair.count("<article") == 2
    assert client.get("/runs/models/negotiations/multi%2C%20sampled/0/4").status_code == 200
    assert "models, multi against base, sampled" in client.get("/rate").text
    # The comparison goes on: its file grows, and no negotiation is there twice.
    rows = [json.loads(line) for line in (folder / "dialogues.jsonl").read_text().split("\n") if line]
    write_rows(folder / "dialogues.jsonl", [*rows, rows[0] | {"model": "single", "opponent": "single"}])
    index = fresh_index(folder, tmp_path / "cache")
    with closing(index.connect()) as connection:
        assert "single, sampled" in list_parts(connection)
        assert connection.execute("SELECT count(*) FROM negotiations").fetchone()[0] == 13
