"""`comity evaluate --models` from the words of the command line to its tables."""

import json

import pytest
from rich.console import Console

from comity.cli import main
from comity.cli.comparing import _print_table
from comity.cli.options import join_values
from comity.config import EvaluateConfig
from comity.report.contest_tables import PlainTable

TASK = {"id": "t", "tier": "everyday", "domain": "water", "dilemma": "The well is low.", "persona_a": "Save it.",
        "persona_b": "Use it."}  # fmt: skip


def test_several_words_belong_to_one_setting():
    words = ["evaluate", "--models", "base=none", "multi=runs/a/checkpoint-2", "--pairs", "base:multi", "--runs", "3"]
    assert join_values(words, EvaluateConfig) == [
        "evaluate", "--models=base=none,multi=runs/a/checkpoint-2", "--pairs=base:multi", "--runs=3",
    ]  # fmt: skip
    assert join_values(["--open-ended", "shipped", "stray"], EvaluateConfig) == ["--open_ended=shipped", "stray"]


@pytest.mark.slow
def test_two_models_are_compared_and_shown(tiny_folder, tmp_path, capsys):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps(TASK) + "\n", encoding="utf-8")
    words = ["evaluate", "--models", "one=none", "two=none", "--tasks", str(tasks), "--out", str(tmp_path / "out"),
             "--pairs", "one:two", "--runs", "1", "--threads", "1", "--model.name", str(tiny_folder),
             "--model.dtype", "float32", "--judges.heldout", "false", "--negotiation.rounds", "1",
             "--negotiation.dialogue.max_tokens", "4", "--negotiation.completion.max_tokens", "4",
             *(f"--judges.{kind}={tiny_folder}" for kind in ("agreement", "agency"))]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "0 of 3 dialogues written; now 1 of one, sampled" in shown
    assert "2 of 3 dialogues written; now 1 of one against two, sampled" in shown
    assert "Conflict tasks, sampled decoding" in shown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dialogues.jsonl", "inspect", "preferences.jsonl", "results.json", "seconds.jsonl", "settings.json",
    ]  # fmt: skip
    assert main(words) == 0
    assert "dialogues written; now" not in capsys.readouterr().out


def test_a_bad_name_of_a_model_is_one_line(capsys):
    assert main(["evaluate", "--models", "base"]) == 2
    assert "models has 'base': write NAME=ADAPTER" in capsys.readouterr().err


def test_wide_tables_are_printed_as_lines(capsys):
    table = PlainTable("t", "Wide", ("Pair", *"abcde"), (("x over y", *"12345"),))
    _print_table(Console(width=40), table)
    assert capsys.readouterr().out == "\nWide\n  x over y: a 1, b 2, c 3, d 4, e 5\n"
