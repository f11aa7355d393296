"""The file of paid replies: whole after a kill, shared, and never silently another file."""

import sqlite3
import subprocess
import sys

import pytest

from comity.access.records import Reply
from comity.access.store import ReplyStore
from comity.errors import RunError

WRITER = """
import os, signal, sys
from comity.access.records import Reply
from comity.access.store import ReplyStore

store = ReplyStore(sys.argv[1])
for number in range(50):
    store.save_call(f"k{number}", "r", "a", "m", Reply(f"text {number}", "", 1, 2, 0.5), True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_reply_survives_a_kill(tmp_path):
    path = str(tmp_path / "v.sqlite")
    done = subprocess.run([sys.executable, "-c", WRITER, path], check=False, timeout=60)
    assert done.returncode == -9
    store = ReplyStore(path)
    found = store.find_replies([f"k{number}" for number in range(60)])
    assert {key: reply.text for key, reply in found.items()} == {f"k{n}": f"text {n}" for n in range(50)}
    assert store.spent_dollars("r") == 25.0  # 50 * 0.5
    assert store.read_spend()[0].calls == 50
    store.close()


def test_two_processes_that_paid_for_one_question_both_count(tmp_path):
    path = str(tmp_path / "v.sqlite")
    one, two = ReplyStore(path), ReplyStore(path)
    one.save_call("k", "r", "a", "m", Reply("first", "", 1, 1, 0.5), True)
    two.save_call("k", "r", "a", "m", Reply("second", "", 1, 1, 0.25), True)
    assert one.find_replies(["k"])["k"].text == "first"
    assert one.spent_dollars("r") == two.spent_dollars("r") == 0.75
    one.close()
    two.close()


def test_a_call_without_reply_or_price_is_counted_and_not_kept(tmp_path):
    store = ReplyStore("none")
    store.save_call("k", "r", "a", "m", Reply(None, "timeout"), False)
    store.save_call("l", "r", "a", "m", Reply("x", "", 3, 4, None), True)
    (spend,) = store.read_spend("r")
    assert (spend.calls, spend.failed, spend.unpriced, spend.dollars) == (1, 1, 1, 0.0)
    assert list(store.find_replies(["k", "l"])) == ["l"]
    assert store.read_spend("other") == []
    store.close()


def test_another_file_is_refused(tmp_path):
    text, newer = tmp_path / "notes.txt", tmp_path / "newer.sqlite"
    text.write_text("no database, but long enough to be taken for one\n" * 100)
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    for path, complaint in ((text, "not a database"), (newer, "layout 99"), (text / "below", "cannot be opened")):
        with pytest.raises(RunError, match=complaint) as caught:
            ReplyStore(str(path))
        assert str(path) in str(caught.value)
    assert text.read_text().startswith("no database")


def test_a_full_disk_is_one_line(tmp_path):
    store = ReplyStore(str(tmp_path / "v.sqlite"))
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")

    def fill():
        for number in range(1000):
            store.save_call(f"k{number}", "r", "a", "m", Reply("x" * 4000, "", 1, 1, 0.5), True)

    with pytest.raises(RunError, match="make room"):
        fill()
    # Both or neither: what was booked is kept.
    kept = store._database.execute("SELECT (SELECT COUNT(*) FROM replies), (SELECT COUNT(*) FROM calls)").fetchone()
    assert kept[0] == kept[1]
    store.close()
