"""Audit a judge that compares two answers: order flips, position, verbosity, and preference for its own answers.

One row a verdict: {"id": the pair, "dilemma", "answer_a", "answer_b", "first": "a" or "b", the answer that was shown
first, "preferred": "a", "b", "tie" or null when unscored}, and optionally {"author_a", "author_b"} and "better", the
answer that people or labels rate higher. A pair asked in both orders has two rows of one id.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comity.errors import DataError
from comity.judges.audit_rows import AuditRow
from comity.judges.audit_statistics import Array, Measured, Resampling, Values, estimate, mean
from comity.judges.preference import compare_both_orders
from comity.scenarios.rows import Fields, Row, read_rows
from comity.types import Answer, AnswerPair, PreferenceJudge

PAIR_FIELDS: Fields = {
    "id": str,
    "dilemma": str,
    "answer_a": str,
    "answer_b": str,
    "first": ("a", "b"),
    "preferred?": ("a", "b", "tie"),
}


@dataclass(frozen=True, slots=True)
class Preference:
    """One verdict on a pair of answers; `preferred=None` means unscored."""

    pair: str
    first: str
    preferred: str | None
    row: Row


def read_preferences(path: Path) -> list[Preference]:
    """Return the verdicts of a pairwise file; raise DataError for a bad row or an order that stands twice."""
    found: dict[tuple[str, str], Preference] = {}
    for row in read_rows(path, PAIR_FIELDS, unique=None):
        key = (row["id"], row["first"])
        if key in found:
            raise DataError(f"{path}, row {key[0]!r}: has first {key[1]!r} twice; keep one verdict of each order")
        found[key] = Preference(row["id"], row["first"], row["preferred"], row)
    return list(found.values())


def pair_rows(rows: Sequence[AuditRow], rated: Values | None, author: str, seed: int) -> list[Row]:
    """Return pairs of answers to the same dilemma, each answer in at most two, as rows without a verdict.

    Of a dilemma with n answers, shuffled by the seed, each is paired with the next one round. `rated` says which of two
    is `better`; equal and missing ratings say nothing. `author` is the field that names who wrote an answer.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    places: dict[str, list[int]] = {}
    for place in order.tolist():
        places.setdefault(rows[place].item.dilemma, []).append(place)
    pairs = []
    for found in places.values():
        around = [*itertools.pairwise(found), *([(found[-1], found[0])] if len(found) > 2 else [])]
        pairs += [
            _to_pair(rows[a], rows[b], None if rated is None else (rated[a], rated[b]), author) for a, b in around
        ]
    return pairs


def ask_in_both_orders(pairs: Sequence[Row], judge: PreferenceJudge) -> list[Row]:
    """Return two rows a pair, one for each order, with what the judge prefers."""
    asked = [AnswerPair(pair["dilemma"], pair["answer_a"], pair["answer_b"]) for pair in pairs]
    # Both words tell of the pair as it was given.
    sides: dict[str | None, str | None] = {"first": "a", "second": "b", "tie": "tie", None: None}
    return [
        pair | {"first": shown, "preferred": sides[word]}
        for pair, compared in zip(pairs, compare_both_orders(judge, asked), strict=True)
        for shown, word in (("a", compared.forward), ("b", compared.backward))
    ]


def audit_preferences(
    name: str, verdicts: Sequence[Preference], own: str, resampling: Resampling, rivals: Sequence[Preference] = ()
) -> dict[str, Any]:
    """Return a pairwise judge's figures with intervals over dilemmas.

    `order_flips`: the share of pairs asked in both orders whose verdict changes with the order. `first_shown`: the
    share of verdicts other than ties for the answer shown first, over those pairs; without bias it is 0.5. `longer`:
    the share of verdicts other than ties for the answer with more words. `own`: the share of verdicts other than ties
    for the author `own` against another author; `own_by_rivals` is the same of other judges' verdicts on those pairs.
    `better`: the share of verdicts other than ties for the answer that is rated better.
    """
    both = _pair_orders(verdicts)
    orders = [verdict for pair in both for verdict in pair]
    rival = [verdict for verdict in rivals if verdict.pair in {mine.pair for mine in verdicts}]
    return {
        "judge": name,
        "verdicts": len(verdicts),
        "pairs_in_both_orders": len(both),
        "order_flips": _estimate([_flipped(*pair) for pair in both], [pair[0] for pair in both], resampling),
        "first_shown": _count(orders, lambda v: v.first, resampling),
        "longer": _count(verdicts, _find_longer, resampling),
        "better": _count(verdicts, lambda v: v.row.get("better"), resampling),
        "own": _count(verdicts, lambda v: _find_author(v, own), resampling),
        "own_by_rivals": _count(rival, lambda v: _find_author(v, own), resampling),
    }


def _to_pair(a: AuditRow, b: AuditRow, rated: tuple[float | None, float | None] | None, author: str) -> Row:
    assert isinstance(a.item, Answer)
    assert isinstance(b.item, Answer)
    pair: Row = {
        "id": f"{a.id}~{b.id}",
        "dilemma": a.item.dilemma,
        "answer_a": a.item.answer,
        "answer_b": b.item.answer,
    }
    for side, row in (("a", a), ("b", b)):
        if isinstance(row.fields.get(author), str):
            pair[f"author_{side}"] = row.fields[author]
    if rated is not None and rated[0] is not None and rated[1] is not None and rated[0] != rated[1]:
        pair["better"] = "a" if rated[0] > rated[1] else "b"
    return pair


def _pair_orders(verdicts: Sequence[Preference]) -> list[tuple[Preference, Preference]]:
    seen: dict[str, Preference] = {}
    pairs = []
    for verdict in verdicts:
        if verdict.pair in seen:
            pairs.append((seen[verdict.pair], verdict))
        seen[verdict.pair] = verdict
    return pairs


def _flipped(one: Preference, other: Preference) -> float | None:
    if one.preferred is None or other.preferred is None:
        return None
    return float(one.preferred != other.preferred)


def _count(
    verdicts: Sequence[Preference], find_side: Callable[[Preference], str | None], resampling: Resampling
) -> dict[str, Any]:
    # The share of verdicts for the side that is found; ties and pairs without such a side say nothing and are out.
    known = [v for v in verdicts if v.preferred != "tie" and find_side(v) is not None]
    hits = [None if v.preferred is None else float(v.preferred == find_side(v)) for v in known]
    return _estimate(hits, known, resampling)


def _find_longer(verdict: Preference) -> str | None:
    words_a, words_b = (len(verdict.row[f"answer_{side}"].split()) for side in "ab")
    return None if words_a == words_b else "a" if words_a > words_b else "b"


def _find_author(verdict: Preference, own: str) -> str | None:
    sides = [side for side in "ab" if verdict.row.get(f"author_{side}") == own]
    return sides[0] if len(sides) == 1 else None


def _estimate(values: Values, verdicts: Sequence[Preference], resampling: Resampling) -> dict[str, Any]:
    def measure(x_N: Array) -> Measured:
        return {"share": mean(x_N)}

    dilemmas = [verdict.row["dilemma"] for verdict in verdicts]
    return dataclasses.asdict(estimate(measure, [values], dilemmas, resampling)["share"])
