"""The ledger read beside its writer, and in the words of a command."""

import pytest
from rich.console import Console

from comity.access.ledger import read_ledger
from comity.access.records import Reply
from comity.access.store import ReplyStore
from comity.cli import main
from comity.cli.spending import Spending
from comity.config import AccessConfig
from comity.errors import RunError
from test_cli import complain


@pytest.fixture
def path(tmp_path):
    """Return the file of a store with two runs: one with two judges and a failure, one of unknown price."""
    path = str(tmp_path / "v.sqlite")
    store = ReplyStore(path)
    store.save_call("a", "one", "judge/agency", "m", Reply("3", "", 100, 2, 0.5), True)
    store.save_call("b", "one", "judge/agency", "m", Reply("4", "", 1000, 2, 0.25), True)
    store.save_call("c", "one", "judge/agreement", "m", Reply(None, "timeout"), False)
    store.save_call("d", "one", "judge/agreement", "m", Reply("YES", "", 10, 1, 0.125), True)
    store.save_call("e", "two", "data/dilemmas", "n", Reply("x", "", 7, 8, None), True)
    store.close()
    return path


def test_it_is_read_while_another_writes_and_never_made(path, tmp_path):
    writer = ReplyStore(path)
    assert sum(spend.dollars for spend in read_ledger(path, "one")) == 0.875
    writer.save_call("f", "one", "judge/agency", "m", Reply("5", "", 1, 1, 1.0), True)
    assert sum(spend.dollars for spend in read_ledger(path, "one")) == 1.875
    writer.close()
    assert read_ledger(path, "three") == []
    assert read_ledger("none") == []
    assert read_ledger(str(tmp_path / "missing.sqlite")) == []
    assert not (tmp_path / "missing.sqlite").exists()


def test_another_file_is_refused(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("no database, but long enough to be taken for one\n" * 100)
    with pytest.raises(RunError, match=r"notes.txt is no file of replies"):
        read_ledger(str(notes))


def test_a_running_command_tells_what_each_judge_cost(path, capsys):
    spending = Spending(AccessConfig(cache=path), "one")
    assert spending.describe() == "spent 0.8750 dollars (agency 0.7500, agreement 0.1250)"
    assert Spending(AccessConfig(cache=path), "two").describe() == "spent 0.0000 dollars, 1 calls of unknown price"
    assert Spending(AccessConfig(cache=path, book_under="one"), "two").describe() == spending.describe()
    assert Spending(AccessConfig(cache=path), "three").describe() == ""
    spending.print(Console(width=200))
    assert capsys.readouterr().out.splitlines() == [
        "agency by m: 2 calls paid, 1100 tokens in, 4 out, 0.7500 dollars",
        "agreement by m: 1 calls paid, 1 failed, 10 tokens in, 1 out, 0.1250 dollars",
    ]


def test_the_command_shows_all_runs_or_one(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["spend", "--cache", path]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "agency", "m", "2", "0", "1,100", "4", "0.7500"] in lines
    assert ["two", "dilemmas", "n", "1", "0", "7", "8", "0.0000", "+", "1", "unpriced"] in lines
    assert any(line[:1] == ["all"] and "0.8750" in line for line in lines)
    assert main(["spend", "--cache", path, "--run", "two"]) == 0
    assert "agency" not in capsys.readouterr().out
    assert "has no run 'three'; choose among one, two" in complain(capsys, "spend", "--cache", path, "--run", "three")
    assert "no such file" in complain(capsys, "spend", "--cache", path + "x")
