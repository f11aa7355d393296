"""What is given to raters: items drawn from runs, and rated items as labels.

Fields of an item: `dilemma_id`, `dilemma`, `personas`, then for each kind
    preference  answers [2], names [2] (where each comes from), scores [2], heldout_scores [2]
    agency      answer, name, score, heldout_score
    agreement   message_a, message_b, name, agreed, heldout_agreed
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from comity.errors import ConfigError
from comity.scenarios.rows import Row
from comity.viewer.index import RunIndex
from comity.viewer.library import RunEntry
from comity.viewer.query import Filter, Record, find_nth, find_page, list_records
from comity.viewer.ratings import Kind, Rating, Study, is_swapped
from comity.viewer.sources import read_row

MOST_ITEMS = 500
MOST_LOOKED_AT = 20
"""Negotiations looked at for each item wanted, before a part counts as having too few."""


@dataclass(frozen=True, slots=True)
class RatedSource:
    """A part of a run that items are drawn from."""

    entry: RunEntry
    part: str
    index: RunIndex

    @property
    def name(self) -> str:
        """Return the name that results show."""
        return f"{self.entry.id} {self.part}"


def draw_items(kind: Kind, sources: list[RatedSource], count: int, seed: int) -> list[dict[str, Any]]:
    """Return up to `count` items drawn by the seed; raise ConfigError when the sources do not fit the kind."""
    if not 1 <= count <= MOST_ITEMS:
        raise ConfigError(f"count is {count}: choose 1 to {MOST_ITEMS}")
    rng = random.Random(seed)
    if kind != "preference":
        rows = _draw_rows(sources[0], rng, count * MOST_LOOKED_AT)
        make = _agency_item if kind == "agency" else _agreement_item
        items = (make(row, sources[0].name) for row in rows)
        return _take(items, count)
    first, second = sources
    if first.name == second.name:
        raise ConfigError(f"both sides are {first.name!r}: choose two different ones to compare")
    if "train" in (first.part, second.part):
        raise ConfigError("a comparison needs the same scenarios on both sides: choose parts of evaluations")
    return _take(_draw_pairs(first, second, rng), count)


def write_labels(study: Study, ratings: Sequence[Rating], part: str) -> list[Row]:
    """Return one row a rating, in the order they were given.

    Those of agency and agreement are labels, as `comity judge calibrate --labels` and the setting `judges.human` read
    them; `part` is `train` or `heldout`. Preferences are verdicts, as `comity judge audit --pairwise` reads them.
    """
    return [_label(study, rating, part) for rating in ratings]


def write_audit_rows(study: Study, ratings: Sequence[Rating]) -> list[Row]:
    """Return one row an item that somebody rated, for `comity judge audit --rows FILE --human ratings`.

    `ratings` lists what its raters said, `raters` their names; the judges' verdicts of the run stand beside them:
    `score` and `heldout_score`, or `agreed` and `heldout_agreed`.
    """
    of_item: dict[str, list[Rating]] = {}
    for rating in ratings:
        of_item.setdefault(rating.item.id, []).append(rating)
    return [_audit_row(study, given) for given in of_item.values()]


def _audit_row(study: Study, given: Sequence[Rating]) -> Row:
    item = given[0].item
    fields = ("score", "heldout_score") if study.kind == "agency" else ("agreed", "heldout_agreed")
    return {
        "id": f"item-{study.id}-{item.place}",
        **_texts(study, item.content),
        "ratings": [_value(study, rating) for rating in given],
        "raters": [rating.rater for rating in given],
        **{name: item.content[name] for name in fields},
        "author": item.content["name"],
    }


def _label(study: Study, rating: Rating, part: str) -> Row:
    row: Row = {
        "id": f"rating-{study.id}-{rating.item.place}-{rating.rater}",
        **_texts(study, rating.item.content),
    }
    if study.kind == "preference":
        names = rating.item.content["names"]
        row |= {"first": "b" if is_swapped(study, rating.rater, rating.item) else "a"}
        row |= {"preferred": _value(study, rating), "author_a": names[0], "author_b": names[1]}
        return row | {"rater": rating.rater}
    name = "score" if study.kind == "agency" else "agreed"
    return row | {name: _value(study, rating), "author": rating.rater, "source": "model", "part": part}


def _texts(study: Study, content: Mapping[str, Any]) -> Row:
    row: Row = {"dilemma_id": content["dilemma_id"], "dilemma": content["dilemma"]}
    if study.kind == "agency":
        return row | {"answer": content["answer"]}
    if study.kind == "preference":
        return row | {"answer_a": content["answers"][0], "answer_b": content["answers"][1]}
    row |= {"persona_a": content["personas"][0], "persona_b": content["personas"][1]}
    return row | {name: content[name] for name in ("message_a", "message_b")}


def _value(study: Study, rating: Rating) -> int | bool | str:
    if study.kind == "agency":
        return int(rating.value)
    if study.kind == "agreement":
        return rating.value == 1.0
    return "a" if rating.value == 0.0 else "b" if rating.value == 1.0 else "tie"


def _take(items: Iterator[dict[str, Any] | None], count: int) -> list[dict[str, Any]]:
    taken: list[dict[str, Any]] = []
    for item in items:
        if item is not None:
            taken.append(item)
        if len(taken) == count:
            break
    return taken


def _draw_rows(source: RatedSource, rng: random.Random, most: int) -> Iterator[Row]:
    with closing(source.index.connect()) as connection:
        total = find_page(connection, Filter(part=source.part)).total
        for place in rng.sample(range(total), min(most, total)):
            record = find_nth(connection, source.part, place)
            if record is not None:
                yield _row_of(source, record)


def _draw_pairs(first: RatedSource, second: RatedSource, rng: random.Random) -> Iterator[dict[str, Any] | None]:
    with closing(first.index.connect()) as connection:
        before = {(record.scenario, record.sample): record for record in list_records(connection, first.part)}
    with closing(second.index.connect()) as connection:
        after = {(record.scenario, record.sample): record for record in list_records(connection, second.part)}
    keys = sorted(before.keys() & after.keys())
    rng.shuffle(keys)
    for key in keys:
        rows = [_row_of(first, before[key]), _row_of(second, after[key])]
        yield _preference_item(rows, [first.name, second.name])


def _row_of(source: RatedSource, record: Record) -> Row:
    return read_row(source.entry.path, record.path, record.start, record.size)


def _shared(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dilemma_id": str(row["scenario"]).partition("/")[0],
        "dilemma": str(row["dilemma"]),
        "personas": [str(text) for text in row["personas"]],
    }


def _agency_item(row: Row, name: str) -> dict[str, Any] | None:
    if not str(row.get("completion") or "").strip():
        return None
    scores = {key: row.get(key) for key in ("score", "heldout_score")}
    return {**_shared(row), "answer": row["completion"], "name": name, **scores}


def _agreement_item(row: Row, name: str) -> dict[str, Any] | None:
    latest = {message["seat"]: str(message["text"]) for message in row["messages"]}
    if len(row["personas"]) < 2 or not all(latest.get(seat, "").strip() for seat in (0, 1)):
        return None
    agreed = {"agreed": True, "no_agreement": False}.get(str(row["ending"]))
    if agreed is False and row.get("reward") is None:
        agreed = None  # a judge failed on the way and might have seen an agreement
    told = {"agreed": agreed, "heldout_agreed": row.get("heldout_agreed")}
    return {**_shared(row), "message_a": latest[0], "message_b": latest[1], "name": name, **told}


def _preference_item(rows: list[Row], names: list[str]) -> dict[str, Any] | None:
    answers = [str(row.get("completion") or "") for row in rows]
    if not all(answer.strip() for answer in answers):
        return None
    scores = {f"{key}s": [row.get(key) for row in rows] for key in ("score", "heldout_score")}
    return {**_shared(rows[0]), "answers": answers, "names": names, **scores}
