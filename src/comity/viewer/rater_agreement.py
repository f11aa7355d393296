"""How far raters agree with each other and with the judges.

Krippendorff's alpha over all raters, Cohen's kappa for each two of them, and the judges' figures of `judges.metrics`.
A figure that is undefined (one rater, one value) is None, which is not zero.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comity.viewer.ratings import CHOICES, Kind, Rating, Study


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of agreement over `n` ratings or items, None where it is undefined."""

    name: str
    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Win:
    """How often one source was preferred to the other; `low` and `high` bound the share at 95 % (exact)."""

    name: str
    wins: int
    losses: int
    ties: int
    low: float
    high: float


def compare_raters(study: Study, ratings: Sequence[Rating]) -> list[Figure]:
    """Return alpha over all raters and kappa of each pair, weighted by squares for scores."""
    raters = sorted({rating.rater for rating in ratings})
    by_rater = {name: {r.item.id: r.value for r in ratings if r.rater == name} for name in raters}
    shared = [item for item in _items(ratings) if sum(item in own for own in by_rater.values()) > 1]
    figures = [Figure("Krippendorff's alpha", _alpha(study.kind, list(by_rater.values()), shared), len(shared))]
    for first, second in itertools.combinations(raters, 2):
        both = [item for item in by_rater[first] if item in by_rater[second]]
        values = [[by_rater[name][item] for item in both] for name in (first, second)]
        figures.append(Figure(f"Cohen's kappa, {first} and {second}", _kappa(study.kind, *values), len(both)))
    return figures


def compare_judges(study: Study, ratings: Sequence[Rating]) -> list[Figure]:
    """Return figures of both judges against the raters' mean of each item, for yes and no against their majority."""
    figures = []
    for judge, prefix in (("training judge", ""), ("held-out judge", "heldout_")):
        if study.kind == "preference":
            figures += _preference_figures(judge, f"{prefix}scores", ratings)
        else:
            figures += _scale_figures(study.kind, judge, prefix, ratings)
    return figures


def count_wins(ratings: Sequence[Rating]) -> list[Win]:
    """Return for each source of a comparison how often it was preferred, ties left out of the interval."""
    from scipy.stats import binomtest

    wins: dict[str, list[int]] = {}
    for rating in ratings:
        for place, name in enumerate(rating.item.content["names"]):
            counts = wins.setdefault(name, [0, 0, 0])
            counts[2 if rating.value == 0.5 else 0 if rating.value == place else 1] += 1
    found = []
    for name, (won, lost, tied) in wins.items():
        interval = binomtest(won, won + lost).proportion_ci() if won + lost else None
        found.append(Win(name, won, lost, tied, interval.low if interval else 0.0, interval.high if interval else 1.0))
    return found


def _items(ratings: Sequence[Rating]) -> list[str]:
    return list(dict.fromkeys(rating.item.id for rating in ratings))


def _alpha(kind: Kind, raters: Sequence[dict[str, float]], items: Sequence[str]) -> float | None:
    import krippendorff
    import numpy as np

    table = [[own.get(item, np.nan) for item in items] for own in raters]
    if len({value for row in table for value in row if value == value}) < 2:
        return None
    level = "ordinal" if kind == "agency" else "nominal"
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))


def _kappa(kind: Kind, first: Sequence[float], second: Sequence[float]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return None
    places = CHOICES[kind]
    codes = [[places.index(value) for value in values] for values in (first, second)]
    weights = "quadratic" if kind == "agency" else None
    return float(cohen_kappa_score(*codes, labels=range(len(places)), weights=weights))


def _scale_figures(kind: Kind, judge: str, prefix: str, ratings: Sequence[Rating]) -> list[Figure]:
    import numpy as np

    from comity.judges.metrics import measure

    name = f"{prefix}{'score' if kind == 'agency' else 'agreed'}"
    said, meant = [], []
    for item in _items(ratings):
        values = [rating.value for rating in ratings if rating.item.id == item]
        content: dict[str, Any] = next(rating.item.content for rating in ratings if rating.item.id == item)
        mean = sum(values) / len(values)
        if content.get(name) is None or (kind == "agreement" and mean == 0.5):
            continue  # unscored by the judge, or the raters are divided
        said.append(float(content[name]))
        meant.append(float(np.floor(mean + 0.5)))
    if kind == "agency":
        if len(set(said)) < 2 or len(set(meant)) < 2:
            return [Figure(f"Spearman, {judge}", None, len(said))]
        figures = measure("agency", np.array(said), np.array(meant))
        return [
            Figure(f"Spearman, {judge}", figures["spearman"], len(said)),
            Figure(f"quadratic kappa, {judge}", figures["kappa"], len(said)),
            Figure(f"mean absolute error, {judge}", figures["mae"], len(said)),
        ]
    figures = measure("agreement", np.array(said), np.array(meant)) if said else {}
    return [
        Figure(f"same decision, {judge}", figures.get("accuracy"), len(said)),
        Figure(f"F1 of agreed, {judge}", figures.get("f1"), len(said)),
        Figure(f"Cohen's kappa, {judge}", _kappa(kind, said, meant), len(said)),
    ]


def _preference_figures(judge: str, name: str, ratings: Sequence[Rating]) -> list[Figure]:
    same = []
    for rating in ratings:
        first, second = rating.item.content[name]
        if None not in (first, second) and first != second and rating.value != 0.5:
            same.append((second > first) == (rating.value == 1.0))
    return [Figure(f"same preference, {judge}", sum(same) / len(same) if same else None, len(same))]
