"""Paid replies and the ledger, in one SQLite file.

A reply and its row in the ledger are committed together as soon as it arrives, so a killed process loses only what was
still under way. Several processes may share a file.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from comity.access.records import Reply, Spend
from comity.errors import RunError

NOT_KEPT = "none"
LAYOUT_VERSION = 1
_LAYOUT = """
CREATE TABLE IF NOT EXISTS replies(
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT, problem TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls(
    id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, key TEXT NOT NULL, run TEXT NOT NULL,
    account TEXT NOT NULL, model TEXT NOT NULL, answered INTEGER NOT NULL, problem TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, dollars REAL
);
CREATE TABLE IF NOT EXISTS totals(run TEXT PRIMARY KEY, dollars REAL NOT NULL) WITHOUT ROWID;
"""
_KEYS_AT_ONCE = 500


class ReplyStore:
    """The open file; use it from one thread."""

    def __init__(self, path: str) -> None:
        """Open or create the file; `none` keeps everything in memory. Raise RunError when it is no such file."""
        self.path = path
        try:
            if path != NOT_KEPT:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Transactions are opened by hand; another process may hold the file for a moment.
            self._database = sqlite3.connect(":memory:" if path == NOT_KEPT else path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"access.cache {path} cannot be opened ({error}); name another file") from error
        try:
            self._lay_out()
        except sqlite3.Error as error:
            self.close()
            raise RunError(f"access.cache {path} is no file of replies ({error}); name another file") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find_replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Return the kept replies among `keys`, marked as cached."""
        found: dict[str, Reply] = {}
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[first : first + _KEYS_AT_ONCE]
            places = ",".join("?" * len(part))
            query = f"SELECT key, text, problem, input_tokens, output_tokens FROM replies WHERE key IN ({places})"
            for key, text, problem, input_tokens, output_tokens in self._database.execute(query, part):
                found[key] = Reply(text, problem, input_tokens, output_tokens, cost=0.0, cached=True)
        return found

    def save_call(self, key: str, run: str, account: str, model: str, reply: Reply, answered: bool) -> None:
        """Write a call into the ledger and, when the provider answered it, keep the reply; both or neither."""
        tokens = (reply.input_tokens, reply.output_tokens)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(
                "INSERT INTO calls(key, run, account, model, answered, problem, input_tokens, output_tokens, dollars) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, run, account, model, answered, reply.problem, *tokens, reply.cost),
            )
            if reply.cost:
                self._database.execute(
                    "INSERT INTO totals VALUES (?, ?) "
                    "ON CONFLICT(run) DO UPDATE SET dollars = dollars + excluded.dollars",
                    (run, reply.cost),
                )
            if answered:
                row = (key, model, reply.text, reply.problem, *tokens)
                self._database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise RunError(f"access.cache {self.path} cannot be written ({error}); make room and run again") from error

    def spent_dollars(self, run: str) -> float:
        """Return what a run spent in all, over every process."""
        row = self._database.execute("SELECT dollars FROM totals WHERE run = ?", (run,)).fetchone()
        return float(row[0]) if row else 0.0

    def read_spend(self, run: str | None = None) -> list[Spend]:
        """Return the ledger by run, account and model: of one run, or of all."""
        return select_spend(self._database, run)

    def _lay_out(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, LAYOUT_VERSION):
            raise sqlite3.DatabaseError(f"layout {version}, not {LAYOUT_VERSION}")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it returns
        self._database.executescript(_LAYOUT + f"PRAGMA user_version={LAYOUT_VERSION};")


def select_spend(database: sqlite3.Connection, run: str | None) -> list[Spend]:
    """Return the ledger of an open file by run, account and model: of one run, or of all."""
    query = (
        "SELECT run, account, model, SUM(answered), SUM(1 - answered), SUM(answered AND dollars IS NULL), "
        "SUM(input_tokens), SUM(output_tokens), COALESCE(SUM(dollars), 0) FROM calls WHERE ? IS NULL OR run = ? "
        "GROUP BY run, account, model ORDER BY run, account, model"
    )
    return [Spend(*row) for row in database.execute(query, (run, run))]
