"""What is given to raters: items drawn from runs, and rated items as labels.

Fields of an item: `dilemma_id`, `dilemma`, `personas`, then for each kind
    preference  answers [2], names [2] (where each comes from), scores [2], heldout_scores [2]
    agency      answer, name, score, heldout_score
    agreement   message_a, message_b, name, agreed, heldout_agreed
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from comity.errors import ConfigError
from comity.scenarios.rows import Row
from comity.viewer.index import RunIndex
from comity.viewer.library import RunEntry
from comity.viewer.query import Filter, Record, find_nth, find_page, list_records
from comity.viewer.ratings import Kind, Rating, Study
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


def write_labels(study: Study, ratings: list[Rating], part: str) -> list[Row]:
    """Return ratings as rows; those of agency and agreement have the fields of `comity judge calibrate`.

    `part` is `train` or `heldout`, which calibration tells apart.
    """
    return [_label(study, rating, part) for rating in ratings]


def _label(study: Study, rating: Rating, part: str) -> Row:
    content = rating.item.content
    row: Row = {
        "id": f"rating-{study.id}-{rating.item.place}-{rating.rater}",
        "dilemma_id": content["dilemma_id"],
        "dilemma": content["dilemma"],
    }
    if study.kind == "agency":
        row |= {"answer": content["answer"], "score": int(rating.value)}
    elif study.kind == "agreement":
        row |= {name: content[name] for name in ("message_a", "message_b")}
        row |= {"persona_a": content["personas"][0], "persona_b": content["personas"][1]}
        row |= {"agreed": rating.value == 1.0}
    else:
        row |= {"answer_a": content["answers"][0], "answer_b": content["answers"][1]}
        row |= {"from_a": content["names"][0], "from_b": content["names"][1]}
        row |= {"preferred": "a" if rating.value == 0.0 else "b" if rating.value == 1.0 else "neither"}
    return row | {"author": rating.rater, "source": "model", "part": part}


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
