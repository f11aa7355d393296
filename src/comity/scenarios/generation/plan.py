"""What each slot of a generation asks for.

A slot is the same whatever the count, so a longer run extends a shorter one.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from comity.prompts import fill, hash_template
from comity.scenarios.kinds import SHIPPED, TIERS, KindName, read_kind
from comity.scenarios.rows import Row

SEVERITY = {
    "professional": "high stakes at work: lives, health, livelihoods or the public good hang on a decision of somebody "
    "whose duty it is",
    "interpersonal": "hard and personal: family, friendship, love or a community, where a bond may break",
    "everyday": "small and daily: an ordinary choice with an honest moral core, where little is lost but something is",
}
SPLIT_CYCLE = ("train", "train", "train", "test", "train", "train", "dev", "train", "train", "test")
"""70 % train, 10 % dev, 20 % test within each tier."""
PLACES = (
    "Accra", "Addis Ababa", "Almaty", "Amman", "Antwerp", "Asunción", "Auckland", "Baku", "Belgrade", "Bergen",
    "Bogotá", "Brisbane", "Busan", "Cebu", "Chennai", "Cork", "Dakar", "Dar es Salaam", "Detroit", "Fez", "Gaborone",
    "Gdańsk", "Guadalajara", "Halifax", "Hanoi", "Harare", "Izmir", "Jakarta", "Kampala", "Karachi", "Kathmandu",
    "Kumasi", "Kyoto", "La Paz", "Leipzig", "Ljubljana", "Lviv", "Manaus", "Maputo", "Marseille", "Montevideo",
    "Mumbai", "Naples", "Novi Sad", "Omaha", "Oulu", "Porto", "Quito", "Reykjavik", "Samarkand", "Sapporo", "Seville",
    "Shiraz", "Suva", "Tbilisi", "Thessaloniki", "Tucson", "Ulaanbaatar", "Windhoek", "Yangon",
)  # fmt: skip
THEMES = (
    "age and experience", "beauty and use", "borders and belonging", "certainty and doubt", "change of mind",
    "comfort and hardship", "competition", "credit for work", "curiosity", "debt and gratitude", "depth and breadth",
    "dignity of the weak", "duty and desire", "equal shares and need", "exceptions", "fame and modesty", "forgiveness",
    "generosity", "giving one's word", "humour and seriousness", "inheritance", "learning by failing", "luck",
    "memory of the past", "mercy", "neighbours and strangers", "novelty", "obedience", "order and mess", "ownership",
    "patience", "play and work", "pride", "promises to the dead", "public and private good", "silence and speech",
    "simplicity", "thrift", "trust in experts", "warning and letting be",
)  # fmt: skip
EXAMPLES = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """One row to be written: what is fixed about it, and the prompt that asks for the rest."""

    number: int
    fixed: Mapping[str, str]
    prompt: str


def plan_slots(kind: KindName, count: int, seed: int, domains: Sequence[str] = ()) -> list[Slot]:
    """Return slots 0 to count - 1: tiers take turns, and within a tier each domain comes once before any comes again.

    `domains` takes the place of the shipped domains of every tier. Persona pairs have themes instead.
    """
    if kind == "persona-pairs":
        return [_plan_pair(seed, number) for number in range(count)]
    return [_plan_dilemma(kind, tuple(domains), seed, number) for number in range(count)]


def hash_plan(kind: KindName) -> str:
    """Return a hash of the templates that a kind's prompts are made of."""
    names = ("data_system", _TEMPLATES[kind], "data_repair")
    return hashlib.sha256("".join(hash_template(name) for name in names).encode()).hexdigest()[:12]


def _plan_dilemma(kind: KindName, domains: tuple[str, ...], seed: int, number: int) -> Slot:
    turn, tier_number = divmod(number, len(TIERS))
    tier = TIERS[tier_number]
    names = domains or _shipped_domains(tier)
    domain = names[_shuffle(len(names), seed, 1, tier_number)[turn % len(names)]]
    # When the domains begin again they meet other places.
    place = PLACES[_shuffle(len(PLACES), seed, 2, tier_number)[(turn + turn // len(names)) % len(PLACES)]]
    # Nothing that evaluation holds out is shown: a model that trains on what comes of it shall not have seen it.
    training = [row for row in _read_shipped("dilemmas") if row["tier"] == tier and row["split"] == "train"]
    shown = _draw(training, seed, number)
    if kind == "dilemmas":
        examples = [f"- {row['dilemma']}" for row in shown]
        fixed = {"id": f"gen-{tier[:3]}-{turn + 1:04d}", "split": SPLIT_CYCLE[turn % len(SPLIT_CYCLE)]}
    else:
        pairs = _draw(_read_shipped("persona-pairs"), seed, number)
        examples = [
            f"- {row['dilemma']} / {pair['persona_a']} / {pair['persona_b']}"
            for row, pair in zip(shown, pairs, strict=True)
        ]
        fixed = {"id": f"gen-task-{number + 1:04d}"}
    prompt = fill(_TEMPLATES[kind], tier=SEVERITY[tier], domain=domain, place=place, examples=examples)
    return Slot(number, fixed | {"tier": tier, "domain": domain}, prompt)


def _plan_pair(seed: int, number: int) -> Slot:
    theme = THEMES[_shuffle(len(THEMES), seed, 1)[number % len(THEMES)]]
    shown = _draw(_read_shipped("persona-pairs"), seed, number)
    examples = [f"- {row['tension']}: {row['persona_a']} / {row['persona_b']}" for row in shown]
    prompt = fill(_TEMPLATES["persona-pairs"], theme=theme, examples=examples)
    return Slot(number, {"id": f"gen-pair-{number + 1:04d}"}, prompt)


_TEMPLATES: dict[str, str] = {
    "dilemmas": "data_dilemma",
    "persona-pairs": "data_persona_pair",
    "conflict-tasks": "data_conflict_task",
}


@functools.cache
def _read_shipped(kind: KindName) -> tuple[Row, ...]:
    return tuple(read_kind(SHIPPED, kind))


@functools.cache
def _shipped_domains(tier: str) -> tuple[str, ...]:
    return tuple(sorted({row["domain"] for row in _read_shipped("dilemmas") if row["tier"] == tier}))


@functools.cache
def _shuffle(count: int, *seeds: int) -> tuple[int, ...]:
    return tuple(int(place) for place in np.random.default_rng(seeds).permutation(count))


def _draw(rows: Sequence[Row], seed: int, number: int) -> list[Row]:
    places = np.random.default_rng([seed, 3, number]).choice(len(rows), EXAMPLES, replace=False)
    return [rows[place] for place in places]
