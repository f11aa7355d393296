"""An index of a run's negotiations in SQLite, so that 200,000 of them can be filtered, sorted and paged.

The index lies in the cache folder, one file a run (`viewer/HASH.sqlite`, named by the run's path), never in the run
directory, which has one writer. It holds figures, places in the JSONL files and a full-text index; the texts themselves
stay in the files. It follows the files by name, size and time, and can be deleted at any moment.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from comity.errors import RunError
from comity.viewer.sources import ReadSource, Source, list_sources, read_source

VERSION = 2
BATCH_ROWS = 2000
RESCAN_SECONDS = 1.0
WASTE_ROWS = 50_000
"""Rows that were replaced stay in the full-text index as numbers without a row; beyond so many it is made anew."""

SCHEMA = """
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, step INTEGER, size INTEGER, changed INTEGER,
  skipped INTEGER);
CREATE TABLE parts (file INTEGER, part INTEGER, PRIMARY KEY (file, part)) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE negotiations (
  id INTEGER PRIMARY KEY AUTOINCREMENT, part INTEGER, step INTEGER, place INTEGER, scenario TEXT, sample INTEGER,
  tier INTEGER, ending INTEGER, rounds INTEGER, reward REAL, score REAL, heldout_score REAL, advantage REAL,
  words INTEGER, start INTEGER, size INTEGER, file INTEGER);
CREATE UNIQUE INDEX by_place ON negotiations (part, step, place);
CREATE INDEX by_scenario ON negotiations (part, scenario, step, sample);
CREATE INDEX by_reward ON negotiations (part, reward);
CREATE INDEX by_score ON negotiations (part, score);
CREATE INDEX by_heldout_score ON negotiations (part, heldout_score);
CREATE INDEX by_advantage ON negotiations (part, advantage);
CREATE INDEX by_rounds ON negotiations (part, rounds);
CREATE INDEX by_words ON negotiations (part, words);
CREATE VIRTUAL TABLE texts USING fts5 (text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2');
"""
EMPTY = """
BEGIN IMMEDIATE;
INSERT INTO texts (texts) VALUES ('delete-all');
DELETE FROM files; DELETE FROM parts; DELETE FROM negotiations; DELETE FROM sqlite_sequence;
COMMIT;
"""
INSERT = """
INSERT INTO negotiations (part, step, place, start, size, file, scenario, sample, tier, ending, rounds, reward, score,
  heldout_score, advantage, words) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far an index has come; `skipped` rows could not be read, `problem` says why the index stopped."""

    files_done: int = 0
    files: int = 0
    skipped: int = 0
    problem: str = ""
    scanned: bool = False

    @property
    def complete(self) -> bool:
        """Tell whether every file of the last look is in the index."""
        return self.scanned and self.files_done == self.files


class RunIndex:
    """The index of one run; a thread of its own brings it up to date while pages read what is there."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.run = run
        self.path = folder / "viewer" / f"{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]}.sqlite"
        self.state = IndexState()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun = 0.0

    def refresh(self, wait_seconds: float = 0.25) -> IndexState:
        """Look for new files unless that was done a moment ago; wait at most so long, and return how far it came.

        Raise RunError when the cache folder cannot be written.
        """
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if not running and time.monotonic() - self._begun > RESCAN_SECONDS:
                self._begun = time.monotonic()
                self._prepare()
                self._thread = threading.Thread(target=self._update, daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(wait_seconds)
        return self.state

    def connect(self) -> sqlite3.Connection:
        """Return a connection for reading; raise sqlite3.OperationalError before there is an index."""
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=5, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA cache_size = -8000")
        return connection

    def generation(self) -> int:
        """Return a number that grows with every negotiation that is added; 0 before there is an index."""
        try:
            with closing(self.connect()) as connection:
                return int(connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()[0])
        except sqlite3.DatabaseError:
            return 0

    def _prepare(self) -> None:
        try:
            open_index(self.path).close()
        except OSError as error:
            raise RunError(f"cache {self.path.parent}: cannot be written ({error.strerror}); choose --cache") from error
        except sqlite3.DatabaseError:
            # A damaged index holds nothing that cannot be made again.
            self._discard()
            open_index(self.path).close()

    def _discard(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def _update(self) -> None:
        try:
            self._follow_files()
        except sqlite3.DatabaseError as error:
            self._discard()
            self.state = IndexState(problem=f"{self.path}: was damaged ({error}); load the page again")
        except OSError as error:
            self.state = IndexState(problem=f"{error.filename or self.path}: {error.strerror}")

    def _follow_files(self) -> None:
        with closing(open_index(self.path)) as connection:
            sources = {source.path: source for source in list_sources(self.run)}
            known = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT path, size, changed FROM files")}
            stale = [path for path, mark in known.items() if path not in sources or sources[path].mark != mark]
            fresh = [source for source in sources.values() if known.get(source.path) != source.mark]
            self.state = IndexState(len(sources) - len(fresh), len(sources), _count_skipped(connection), "", not fresh)
            for path in stale:
                _forget(connection, path)
            if _is_wasteful(connection):
                connection.executescript(EMPTY)
                fresh = list(sources.values())
            done = len(sources) - len(fresh)
            for batch in _in_batches(self.run, fresh):
                _insert(connection, batch)
                done += len(batch)
                self.state = IndexState(done, len(sources), _count_skipped(connection), "", True)
            connection.execute("PRAGMA optimize")


class IndexShelf:
    """The indexes of all runs that were looked at, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indexes: dict[Path, RunIndex] = {}
        self._lock = threading.Lock()

    def open(self, run: Path) -> RunIndex:
        """Return the index of a run, which may still be empty."""
        with self._lock:
            return self._indexes.setdefault(run, RunIndex(run, self._folder))


def open_index(path: Path) -> sqlite3.Connection:
    """Return a connection for writing; an index of another version is made anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # a power cut costs the index, which can be made again
    connection.execute("PRAGMA cache_size = -16000")
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return connection
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in ("texts", "negotiations", "names", "parts", "files"):
        if name in names:
            connection.execute(f"DROP TABLE {name}")
    connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    return connection


def _in_batches(run: Path, sources: list[Source]) -> Iterator[list[ReadSource]]:
    batch: list[ReadSource] = []
    for source in sources:
        batch.append(read_source(run, source))
        if sum(len(item.rows) for item in batch) >= BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _insert(connection: sqlite3.Connection, batch: list[ReadSource]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for item in batch:
        source = item.source
        known = connection.execute("SELECT size, changed FROM files WHERE path = ?", (source.path,)).fetchone()
        if known is not None and tuple(known) == source.mark:
            continue  # another viewer of the same run was faster
        _delete_rows(connection, source.path)
        values = (source.path, source.step, *source.mark, item.skipped)
        insert = "INSERT INTO files (path, step, size, changed, skipped) VALUES (?, ?, ?, ?, ?)"
        file = connection.execute(insert, values).lastrowid
        names = dict.fromkeys(name for row in item.rows for name in (row.part, row.tier, row.ending))
        numbers = {name: _number_of(connection, name) for name in names}
        connection.executemany("INSERT INTO parts VALUES (?, ?)", {(file, numbers[row.part]) for row in item.rows})
        for row in item.rows:
            place = (numbers[row.part], source.step, row.place, row.start, row.size, file, row.scenario, row.sample)
            figures = (numbers[row.tier], numbers[row.ending], *row.figures, row.words)
            number = connection.execute(INSERT, (*place, *figures)).lastrowid
            connection.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (number, row.text))
    connection.execute("COMMIT")


def _number_of(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("INSERT OR IGNORE INTO names (name) VALUES (?)", (name,))
    return int(connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()[0])


def _forget(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    _delete_rows(connection, path)
    connection.execute("COMMIT")


def _delete_rows(connection: sqlite3.Connection, path: str) -> None:
    known = connection.execute("SELECT id, step FROM files WHERE path = ?", (path,)).fetchone()
    if known is None:
        return
    file, step = known
    for (part,) in connection.execute("SELECT part FROM parts WHERE file = ?", (file,)).fetchall():
        connection.execute("DELETE FROM negotiations WHERE part = ? AND step = ? AND file = ?", (part, step, file))
    connection.execute("DELETE FROM parts WHERE file = ?", (file,))
    connection.execute("DELETE FROM files WHERE id = ?", (file,))


def _is_wasteful(connection: sqlite3.Connection) -> bool:
    ever = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()[0]
    if ever <= WASTE_ROWS:
        return False
    living = connection.execute("SELECT count(*) FROM negotiations").fetchone()[0]
    return bool(ever > 2 * living + WASTE_ROWS)


def _count_skipped(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(sum(skipped), 0) FROM files").fetchone()[0])
