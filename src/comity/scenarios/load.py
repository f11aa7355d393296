"""Dilemmas and persona pairs, shipped or the user's own, and the scenarios made of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comity.errors import DataError
from comity.scenarios.kinds import SHIPPED, read_kind, shipped_path
from comity.scenarios.rows import Row
from comity.types import Persona, Scenario, Split

NEUTRAL = "You have no stake of your own in the matter. You want it settled well."
"""The goal of both seats without opposing personas."""


def load_dilemmas(source: str = SHIPPED, split: Split | None = None) -> list[Row]:
    """Return dilemma rows, all or of one split; raise DataError for a bad row or an empty split."""
    rows = read_kind(source, "dilemmas")
    kept = [row for row in rows if split is None or row["split"] == split]
    if not kept:
        path = shipped_path("dilemmas.jsonl") if source == SHIPPED else Path(source)
        raise DataError(f"{path}: no row has split {split!r}; mark some rows for it")
    return kept


def load_persona_pairs(source: str = SHIPPED) -> list[Row]:
    """Return persona-pair rows; raise DataError for a bad row."""
    return read_kind(source, "persona-pairs")


def load_questions(source: str = SHIPPED) -> list[Row]:
    """Return open-ended training questions as dilemma rows without a tier; raise DataError for a bad row.

    The shipped ones are not those of the evaluation.
    """
    path = shipped_path("open_ended_training.jsonl") if source == SHIPPED else Path(source)
    return [
        {"id": row["id"], "tier": None, "domain": "", "dilemma": row["question"], "split": "train"}
        for row in read_kind(str(path), "open-ended")
    ]


def relate_personas(pairs: Sequence[Row], relation: str) -> list[Row]:
    """Return persona pairs in another relation: `opposing` as they are, `same` each goal twice, `neutral` none."""
    if relation == "same":
        return [
            {
                **pair,
                "id": f"{pair['id']}-{side}",
                "persona_a": pair[f"persona_{side}"],
                "persona_b": pair[f"persona_{side}"],
            }
            for pair in pairs
            for side in "ab"
        ]
    if relation == "neutral":
        return [{"id": "neutral", "tension": "none", "persona_a": NEUTRAL, "persona_b": NEUTRAL}]
    return list(pairs)


def draw_scenarios(
    dilemmas: Sequence[Row], pairs: Sequence[Row], first: int, count: int, seed: int, solo: bool = False
) -> list[Scenario]:
    """Return scenarios number `first` to `first + count - 1` of an endless sequence fixed by the seed.

    Every dilemma comes once before any comes again; each time with a random persona pair in random order.
    """
    scenarios = []
    for index in range(first, first + count):
        epoch, place = divmod(index, len(dilemmas))
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(dilemmas))
        rng = np.random.default_rng([seed, 1, index])
        pair = pairs[int(rng.integers(len(pairs)))]
        scenarios.append(make_scenario(dilemmas[order[place]], pair, bool(rng.integers(2)), solo))
    return scenarios


def fixed_scenarios(dilemmas: Sequence[Row], pairs: Sequence[Row], count: int, solo: bool = False) -> list[Scenario]:
    """Return the same `count` scenarios every time: each dilemma with the pair and order that its id hashes to.

    Tiers alternate so that a short list covers all of them; raise DataError when there are too few dilemmas.
    """
    if count > len(dilemmas):
        raise DataError(f"scenarios is {count} but the split has {len(dilemmas)} dilemmas: ask for fewer")
    by_tier: dict[str, list[Row]] = {}
    for row in dilemmas:
        by_tier.setdefault(row["tier"], []).append(row)
    order = sorted(
        ((place / len(rows), tier, row) for tier, rows in by_tier.items() for place, row in enumerate(rows)),
        key=lambda item: (item[0], item[1]),
    )
    scenarios = []
    for _, _, row in order[:count]:
        digest = hashlib.sha256(row["id"].encode()).digest()
        pair = pairs[int.from_bytes(digest[:4], "big") % len(pairs)]
        scenarios.append(make_scenario(row, pair, bool(digest[4] & 1), solo))
    return scenarios


def make_scenario(dilemma: Row, pair: Row, swapped: bool, solo: bool = False) -> Scenario:
    """Join a dilemma with a persona pair; `swapped` gives seat 0 the second persona."""
    objectives = (pair["persona_b"], pair["persona_a"]) if swapped else (pair["persona_a"], pair["persona_b"])
    personas = tuple(Persona(f"{pair['id']}{'ab'[i ^ swapped]}", text) for i, text in enumerate(objectives))
    return Scenario(
        id=dilemma["id"] if solo else f"{dilemma['id']}/{pair['id']}{'~' if swapped else ''}",
        dilemma=dilemma["dilemma"],
        tier=dilemma["tier"],
        personas=() if solo else personas,
        split=dilemma["split"],
        domain=dilemma["domain"],
    )
