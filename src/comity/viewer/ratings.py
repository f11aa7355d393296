"""Human ratings in SQLite, append-only: studies, their items, what raters said and took back.

Nothing is ever changed or deleted; the database refuses it. Taking a rating back is one more row.
"""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from comity.errors import ConfigError, RunError

Kind = Literal["preference", "agency", "agreement"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST_NAME = 40
CHOICES: dict[Kind, tuple[float, ...]] = {
    "preference": (0.0, 0.5, 1.0),
    "agency": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    "agreement": (0.0, 1.0),
}
"""Values a rating may take; a preference is 0 for an item's first answer, 1 for its second, 0.5 for neither."""

SCHEMA = """
CREATE TABLE studies (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, seed INTEGER NOT NULL, at REAL);
CREATE TABLE items (id TEXT PRIMARY KEY, study INTEGER NOT NULL, place INTEGER NOT NULL, content TEXT NOT NULL);
CREATE TABLE ratings (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL, rater TEXT NOT NULL,
  value REAL NOT NULL, at REAL NOT NULL);
CREATE TABLE withdrawals (rating INTEGER PRIMARY KEY, at REAL NOT NULL);
""" + "".join(
    f"CREATE TRIGGER {table}_{action} BEFORE {action} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;\n"
    for table in ("studies", "items", "ratings", "withdrawals")
    for action in ("UPDATE", "DELETE")
)


@dataclass(frozen=True, slots=True)
class Study:
    """A set of items that are rated one way."""

    id: int
    kind: Kind
    name: str
    seed: int


@dataclass(frozen=True, slots=True)
class Item:
    """What is rated; see `studies` for the fields of `content`."""

    id: str
    place: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating that stands."""

    id: int
    item: Item
    rater: str
    value: float


class RatingStore:
    """The ratings of one file, which is made when the first study is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def add_study(self, kind: Kind, name: str, seed: int, contents: Sequence[dict[str, Any]]) -> Study:
        """Add a study with its items; raise ConfigError when there is nothing to rate."""
        if not contents:
            raise ConfigError("nothing to rate: the chosen part has no negotiation with what is asked for")
        with self._open(make=True) as connection:
            query = "INSERT INTO studies (kind, name, seed, at) VALUES (?, ?, ?, ?)"
            number = connection.execute(query, (kind, name, seed, time.time())).lastrowid
            assert number is not None
            rows = [
                (secrets.token_urlsafe(12), number, place, json.dumps(content, ensure_ascii=True))
                for place, content in enumerate(contents)
            ]
            connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
        return Study(number, kind, name, seed)

    def list_studies(self) -> list[Study]:
        """Return all studies, the newest first."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            query = "SELECT id, kind, name, seed FROM studies ORDER BY id DESC"
            return [Study(*row) for row in connection.execute(query)]

    def find_study(self, study_id: int) -> Study | None:
        """Return a study by its id, None when there is none."""
        return next((study for study in self.list_studies() if study.id == study_id), None)

    def list_items(self, study: Study) -> list[Item]:
        """Return the items of a study in the order they were added."""
        with self._open() as connection:
            query = "SELECT id, place, content FROM items WHERE study = ? ORDER BY place"
            return [Item(row[0], row[1], json.loads(row[2])) for row in connection.execute(query, (study.id,))]

    def list_ratings(self, study: Study) -> list[Rating]:
        """Return the ratings that stand, in the order they were given."""
        items = {item.id: item for item in self.list_items(study)}
        query = (
            "SELECT id, item, rater, value FROM ratings WHERE item IN (SELECT id FROM items WHERE study = ?) "
            "AND id NOT IN (SELECT rating FROM withdrawals) ORDER BY id"
        )
        with self._open() as connection:
            return [Rating(row[0], items[row[1]], row[2], row[3]) for row in connection.execute(query, (study.id,))]

    def rate(self, study: Study, item_id: str, rater: str, value: float) -> None:
        """Add a rating; raise ConfigError for a value off the scale, an unknown item, or one this rater has rated."""
        if value not in CHOICES[study.kind]:
            raise ConfigError(f"rating is {value:g}: choose among {', '.join(f'{v:g}' for v in CHOICES[study.kind])}")
        if item_id not in {item.id for item in self.list_items(study)}:
            raise ConfigError("rating is of something that is not in this study: load the page again")
        with self._lock:
            if any(known.item.id == item_id and known.rater == rater for known in self.list_ratings(study)):
                raise ConfigError("rating is there already: take it back first")
            with self._open() as connection:
                query = "INSERT INTO ratings (item, rater, value, at) VALUES (?, ?, ?, ?)"
                connection.execute(query, (item_id, rater, value, time.time()))

    def undo(self, study: Study, rater: str) -> Rating | None:
        """Take the rater's latest rating of a study back and return it; None when there is none."""
        with self._lock:
            mine = [rating for rating in self.list_ratings(study) if rating.rater == rater]
            if not mine:
                return None
            with self._open() as connection:
                connection.execute("INSERT INTO withdrawals VALUES (?, ?)", (mine[-1].id, time.time()))
            return mine[-1]

    @contextmanager
    def _open(self, make: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if make:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as connection:
                if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    connection.executescript(SCHEMA)
                with connection:
                    yield connection
        except (sqlite3.DatabaseError, OSError) as error:
            raise RunError(f"ratings {self.path}: cannot be used ({error}); choose another --ratings") from error


def next_item(study: Study, items: Sequence[Item], rater: str, rated: Sequence[Rating]) -> Item | None:
    """Return the rater's next item in an order of its own for each rater, None when all are rated."""
    done = {rating.item.id for rating in rated if rating.rater == rater}
    open_items = [item for item in items if item.id not in done]
    return min(open_items, key=lambda item: _draw(study, rater, item, "order"), default=None)


def is_swapped(study: Study, rater: str, item: Item) -> bool:
    """Tell whether this rater sees the second answer first."""
    return _draw(study, rater, item, "side")[0] % 2 == 1


def read_name(text: str) -> str:
    """Return a rater's name; raise ConfigError when it is empty, too long, or holds letters that do not print."""
    name = " ".join(text.split())
    if not name:
        raise ConfigError("name is empty: write the name under which your ratings are kept")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"name does not fit: use at most {LONGEST_NAME} printable letters")
    return name


def _draw(study: Study, rater: str, item: Item, what: str) -> bytes:
    return hashlib.sha256(f"{study.seed}|{study.id}|{rater}|{item.place}|{what}".encode()).digest()
