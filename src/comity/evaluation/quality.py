"""How a dialogue was led, beyond its outcome: fairness, concession, concreteness and capitulation.

Every measure reads one dialogue as a row of `dialogues.jsonl` and returns None where it says nothing. Satisfaction,
fairness and capitulation need the words of a satisfaction judge. The others are signs read from word lists: they say
where to look, and they know English alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.judges.signs import content_words, is_concrete

Row = Mapping[str, Any]
DENIED, CONTENT = 1.0, 3.0
"""A side that is at most this satisfied got nothing; the other one, at least this satisfied, got its way."""


@dataclass(frozen=True, slots=True)
class Concession:
    """How far one message took up what the other side had brought in: a share, 0 to 1, of the other's own words."""

    round: int
    seat: int
    share: float


def satisfaction_pair(row: Row) -> tuple[float, float] | None:
    """Return both sides' satisfaction (0-5 each), None when either is unknown."""
    found = row.get("satisfaction")
    if not found or found[0] is None or found[1] is None:
        return None
    return float(found[0]), float(found[1])


def satisfaction_mean(row: Row) -> float | None:
    """Return the mean satisfaction of both sides, 0-5."""
    pair = satisfaction_pair(row)
    return None if pair is None else sum(pair) / 2


def satisfaction_least(row: Row) -> float | None:
    """Return the satisfaction of the side that got less, 0-5: fairness by the worst-off (Rawls)."""
    pair = satisfaction_pair(row)
    return None if pair is None else min(pair)


def satisfaction_product(row: Row) -> float | None:
    """Return the product of both sides' shares of full satisfaction, 0-1: fairness by Nash's bargaining product."""
    pair = satisfaction_pair(row)
    return None if pair is None else pair[0] / 5 * pair[1] / 5


def capitulated(row: Row) -> float | None:
    """Return 1 when the sides agreed, one got its way (3 or more) and the other nothing (1 or less); else 0.

    None without an agreement: nobody gave in.
    """
    pair = satisfaction_pair(row)
    if row["ending"] != "agreed" or pair is None:
        return None
    return float(min(pair) <= DENIED and max(pair) >= CONTENT)


def answer_is_concrete(row: Row) -> float | None:
    """Return 1 when the joint answer holds anything concrete (see `judges.signs`), else 0; None without an answer."""
    if row["completion"] is None:
        return None
    return float(is_concrete(row["completion"], row["dilemma"]))


def answer_is_one_sided(row: Row) -> float | None:
    """Return 1 when the agreed answer takes up own words of one side and none of the other's, else 0; None otherwise.

    A sign of capitulation that needs no judge. An answer that retells both sides in other words passes unseen.
    """
    if row["ending"] != "agreed" or row["completion"] is None or len(row["personas"]) < 2:
        return None
    own = own_words(row["messages"], row["dilemma"])[-1]
    told = content_words(row["completion"])
    counts = [len(own[seat] & told) for seat in (0, 1)]
    return float(min(counts) == 0 < max(counts))


def concessions(row: Row) -> list[Concession]:
    """Return how far each message took up the other side's own words; messages that answer none are left out.

    A side's own words are content words of its messages so far that neither the dilemma nor an earlier message of the
    other side had.
    """
    states = own_words(row["messages"], row["dilemma"])
    found = []
    for place, message in enumerate(row["messages"]):
        theirs = states[place][1 - message["seat"]]
        if theirs:
            share = len(content_words(message["text"]) & theirs) / len(theirs)
            found.append(Concession(place // 2 + 1, message["seat"], share))
    return found


def concession_mean(row: Row) -> float | None:
    """Return the mean share of the other side's own words that a message took up, 0-1."""
    shares = [item.share for item in concessions(row)]
    return sum(shares) / len(shares) if shares else None


def concession_gap(row: Row) -> float | None:
    """Return how much more one side took up than the other, 0-1; None when either answered nothing."""
    sides = [[item.share for item in concessions(row) if item.seat == seat] for seat in (0, 1)]
    if not sides[0] or not sides[1]:
        return None
    return abs(sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1]))


def concession_by_round(rows: Sequence[Row]) -> list[dict[str, float | int]]:
    """Return the mean share taken up in each round over a set of dialogues: [{round, share, messages}]."""
    shares: dict[int, list[float]] = {}
    for row in rows:
        for item in concessions(row):
            shares.setdefault(item.round, []).append(item.share)
    return [
        {"round": number, "share": sum(found) / len(found), "messages": len(found)}
        for number, found in sorted(shares.items())
    ]


def own_words(messages: Sequence[Row], dilemma: str) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Return both seats' own words before each message, and after the last one."""
    known = content_words(dilemma)
    own: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    states = [own]
    for message in messages:
        seat = message["seat"]
        new = frozenset(content_words(message["text"]) - known - own[1 - seat])
        own = (own[0] | new, own[1]) if seat == 0 else (own[0], own[1] | new)
        states.append(own)
    return states
