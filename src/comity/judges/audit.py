"""Audit raters against each other: agreement, test-retest, length, authors, and one's mean by another's level."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comity.judges.audit_rows import AuditTable, Rater
from comity.judges.audit_statistics import (
    Array,
    Measured,
    Resampling,
    Values,
    alpha,
    estimate,
    mean,
    measure_pair,
    partial_spearman,
    spearman,
    to_levels,
)

Section = list[dict[str, Any]]
"""Rows of one section of audit.json: words and figures by name."""


def audit_raters(table: AuditTable, resampling: Resampling) -> dict[str, Section]:
    """Return every figure that needs only the rows and the raters' values, by section of audit.json."""
    return {
        "raters": [_describe_rater(table, rater, resampling) for rater in table.raters],
        "pairs": [compare(table, *pair, resampling) for pair in itertools.combinations(table.raters, 2)],
        "levels": [
            row
            for of, by in itertools.permutations(table.raters, 2)
            for row in average_by_level(table, of, by, resampling)
        ],
        "retest": [retest(table, rater, resampling) for rater in table.raters if rater.repeats],
        "length": [measure_length(table, rater, resampling) for rater in table.raters],
    }


def audit_authors(
    table: AuditTable, field: str, own: Mapping[str, str], resampling: Resampling
) -> tuple[Section, Section]:
    """Return each rater's mean by author, and each judge's preference for the author that is itself.

    `field` names the author of a row; `own` gives the author of a judge that goes by another name there. Preference is
    the mean of (judge - mean of the other raters) over its own rows, less the same over all other rows: what it adds
    for its own beyond what the others see in them.
    """
    authors = [str(row.fields.get(field) or "") for row in table.rows]
    means: Section = []
    for author in sorted(set(authors) - {""}):
        places = [i for i, name in enumerate(authors) if name == author]
        for rater in table.raters:
            values, clusters = [rater.values[i] for i in places], [table.clusters[i] for i in places]
            means.append({"author": author, "rater": rater.name} | _means(values, clusters, resampling))
    preferences: Section = []
    for rater in table.raters:
        name = own.get(rater.name, rater.name)
        others = [other for other in table.raters if other is not rater]
        if rater.role != "judge" or name not in authors or not others:
            continue
        is_own = [float(author == name) if author else None for author in authors]
        columns = [rater.values, *(other.values for other in others), is_own]
        found = estimate(_prefer_own, columns, table.clusters, resampling)
        preferences.append({"rater": rater.name, "author": name, "others": [o.name for o in others]} | _plain(found))
    return means, preferences


def compare(table: AuditTable, first: Rater, second: Rater, resampling: Resampling) -> dict[str, Any]:
    """Return how far two raters agree, with an interval for each figure."""

    def measure(x_N: Array, y_N: Array) -> Measured:
        return measure_pair(table.kind, x_N, y_N)

    found = estimate(measure, [first.values, second.values], table.clusters, resampling)
    return {"first": first.name, "second": second.name} | _plain(found)


def average_by_level(table: AuditTable, of: Rater, by: Rater, resampling: Resampling) -> Section:
    """Return the mean of one rater at each whole score (or decision) of another."""
    levels = [None if value is None else float(to_levels(np.array([value]))[0]) for value in by.values]
    rows: Section = []
    for level in sorted({level for level in levels if level is not None}):
        places = [i for i, found in enumerate(levels) if found == level]
        values, clusters = [of.values[i] for i in places], [table.clusters[i] for i in places]
        rows.append({"of": of.name, "by": by.name, "level": int(level)} | _means(values, clusters, resampling))
    return rows


def retest(table: AuditTable, rater: Rater, resampling: Resampling) -> dict[str, Any]:
    """Return how far repeated ratings of the same row agree: every two of a row's ratings are one pair.

    For human ratings the repeats are several readers, and `readers_alpha` is Krippendorff's alpha over all of them.
    """
    first: list[float | None] = []
    second: list[float | None] = []
    clusters: list[str] = []
    for cluster, values in zip(table.clusters, rater.repeats, strict=True):
        for x, y in itertools.combinations(values, 2):
            first.append(x)
            second.append(y)
            clusters.append(cluster)

    def measure(x_N: Array, y_N: Array) -> Measured:
        return measure_pair(table.kind, x_N, y_N)

    row = {"rater": rater.name, "role": rater.role} | _plain(estimate(measure, [first, second], clusters, resampling))
    if rater.role == "human":
        most = max(map(len, rater.repeats))
        ratings_NR = np.array([[*values, *[None] * (most - len(values))] for values in rater.repeats], float)
        row["readers_alpha"] = alpha(ratings_NR.T, "nominal" if table.kind == "agreement" else "interval")
    return row


def measure_length(table: AuditTable, rater: Rater, resampling: Resampling) -> dict[str, Any]:
    """Return the rank correlation of a rater with the number of words, alone and given each other rater."""
    words: Values = [float(row.words) for row in table.rows]
    alone = estimate(_alone, [rater.values, words], table.clusters, resampling)
    given = {
        other.name: _plain(estimate(_given, [rater.values, words, other.values], table.clusters, resampling))
        for other in table.raters
        if other is not rater
    }
    return {"rater": rater.name} | _plain(alone) | {"given": {name: row["spearman"] for name, row in given.items()}}


def _alone(x_N: Array, words_N: Array) -> Measured:
    return {"spearman": spearman(x_N, words_N)}


def _given(x_N: Array, words_N: Array, given_N: Array) -> Measured:
    return {"spearman": partial_spearman(x_N, words_N, given_N)}


def _prefer_own(judge_N: Array, *rest: Array) -> Measured:
    *others, own_N = rest
    gap_N = judge_N - np.mean(others, axis=0)
    own, foreign = mean(gap_N[own_N == 1]), mean(gap_N[own_N == 0])
    return {"preference": None if own is None or foreign is None else own - foreign}


def _describe_rater(table: AuditTable, rater: Rater, resampling: Resampling) -> dict[str, Any]:
    return {"rater": rater.name, "role": rater.role} | _means(rater.values, table.clusters, resampling)


def _means(values: Values, clusters: Sequence[str], resampling: Resampling) -> dict[str, Any]:
    return _plain(estimate(lambda x_N: {"mean": mean(x_N)}, [values], clusters, resampling))


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dataclasses.asdict(figure) for name, figure in figures.items()}
