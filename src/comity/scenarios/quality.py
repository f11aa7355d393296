"""How varied a file of texts is: near-duplicates, distinct n-grams, and the spread of vectors against baselines.

Spread is the mean cosine distance over all pairs of rows. Its baseline is the same mean over pairs of rows of one
domain: a file whose spread is no larger holds one subject only. Nearest is the mean distance of a row to its nearest
neighbour. Its baseline deals the words of all rows out anew at random: such rows share words by chance alone, so a file
whose nearest distance is clearly smaller repeats itself. (Shuffled words are no baseline for the spread: for bags of
words it depends only on the mean vector, which shuffling keeps.)
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comity.errors import DataError
from comity.scenarios.hygiene import THRESHOLD, collect_texts, find_duplicates
from comity.scenarios.kinds import Kind
from comity.scenarios.rows import Row
from comity.scenarios.words import list_ngrams, split_words

Encoder = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors (N, D)."""
Vectors = Any
"""Rows of unit length, (N, D): a scipy sparse matrix or an array; scipy has no types."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean cosine distances of a group's rows; None where there are too few rows, or no such baseline."""

    pairs: float | None
    pairs_of_one_domain: float | None
    nearest: float | None
    nearest_of_shuffled_words: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one group of rows: all rows of a file, or those of a tier.

    `near_duplicate_rate` is the share of rows alike to an earlier row; `distinct` is for runs of one, two, three words.
    """

    group: str
    rows: int
    near_duplicate_rate: float
    distinct: tuple[float, ...]
    words: Spread
    hidden: Spread | None = None


def measure_quality(
    kind: Kind, rows: Sequence[Row], encode: Encoder | None = None, threshold: float = THRESHOLD, seed: int = 0
) -> list[Quality]:
    """Return the figures of all rows, then of each tier where the kind has tiers.

    Word vectors are TF-IDF without English stop words, fitted on the file. `encode` adds a second spread on its
    vectors, from which the file's mean is taken off: hidden states share one large direction that says nothing of a
    text. Raise DataError when the texts hold no words.
    """
    texts = [read_text(kind, row) for row in rows]
    repeats = _find_repeats(kind, rows, threshold)
    vectorizer, words = _fit_words(texts, "english")
    hidden = None if encode is None else center_vectors(encode(texts))
    groups = _group_rows(kind, rows)
    counts = [min(len(_join_ngrams([texts[i] for i in own], n)) for own in groups.values()) for n in (1, 2, 3)]
    found = []
    for name, own in groups.items():
        own_texts, domains = [texts[i] for i in own], [rows[i].get("domain") for i in own]
        shuffled = vectorizer.transform(shuffle_words(own_texts, seed))
        found.append(
            Quality(
                group=name,
                rows=len(own),
                near_duplicate_rate=sum(i in repeats for i in own) / len(own),
                distinct=tuple(measure_distinct(own_texts, n, counts[n - 1], seed) for n in (1, 2, 3)),
                words=measure_spread(words[own], domains, shuffled),
                hidden=None if hidden is None else measure_spread(hidden[own], domains),
            )
        )
    return found


def read_text(kind: Kind, row: Row) -> str:
    """Return what a row is about: its dilemma, question or situation, or both personas of a pair."""
    return str(row[kind.matter]) if kind.matter else " ".join(row[name] for name in kind.personas)


def measure_distinct(texts: Sequence[str], n: int, count: int, seed: int = 0) -> float:
    """Return the share of different n-grams among the first `count` of the texts in random order (Li et al. 2016).

    The share falls as a text grows, so groups are compared at one count.
    """
    order = np.random.default_rng([seed, n]).permutation(len(texts))
    grams = _join_ngrams([texts[i] for i in order], n)[:count]
    return len(set(grams)) / len(grams) if grams else 0.0


def shuffle_words(texts: Sequence[str], seed: int = 0) -> list[str]:
    """Return as many texts of the same lengths in which all words are dealt out anew at random."""
    split = [split_words(text) for text in texts]
    words = [word for part in split for word in part]
    dealt = iter(np.random.default_rng(seed).permutation(len(words)))
    return [" ".join(words[next(dealt)] for _ in part) for part in split]


def measure_spread(vectors: Vectors, domains: Sequence[str | None], shuffled: Vectors | None = None) -> Spread:
    """Return the mean distances of unit vectors (N, D) and their baselines."""
    return Spread(
        pairs=mean_distance([vectors]),
        pairs_of_one_domain=mean_distance([vectors[own] for own in _group_domains(domains)]),
        nearest=mean_nearest_distance(vectors),
        nearest_of_shuffled_words=None if shuffled is None else mean_nearest_distance(shuffled),
    )


def mean_distance(groups: Sequence[Vectors]) -> float | None:
    """Return the mean cosine distance over all pairs of rows of one group; None without any pair."""
    total, pairs = 0.0, 0
    for vectors in groups:
        count = vectors.shape[0]
        summed = np.asarray(vectors.sum(axis=0)).ravel()
        squares = vectors.multiply(vectors).sum() if hasattr(vectors, "multiply") else (vectors * vectors).sum()
        # The sum over pairs follows from the sum of the rows, without a matrix of all pairs.
        total += count * (count - 1) / 2 - float(summed @ summed - squares) / 2
        pairs += count * (count - 1) // 2
    return total / pairs if pairs else None


def mean_nearest_distance(vectors: Vectors) -> float | None:
    """Return the mean cosine distance of a row to its nearest other row; None for fewer than two rows."""
    if vectors.shape[0] < 2:
        return None
    distances, _ = _find_neighbours(vectors)
    return float(distances.mean())


def find_nearest(texts: Sequence[str], count: int) -> list[tuple[float, int, int]]:
    """Return the `count` closest pairs (cosine similarity of TF-IDF vectors, place, place), the closest first."""
    if len(texts) < 2:
        return []
    distances, others = _find_neighbours(_fit_words(texts, None)[1])
    pairs = {
        (min(row, int(other)), max(row, int(other))): 1 - float(distance)
        for row, (distance, other) in enumerate(zip(distances, others, strict=True))
    }
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [(similarity, first, second) for (first, second), similarity in ranked[:count]]


def center_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (N, D) less their mean, at unit length."""
    centered = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    unit: NDArray[np.float32] = centered / np.where(lengths == 0, 1, lengths)
    return unit


def _fit_words(texts: Sequence[str], stop_words: str | None) -> tuple[Any, Vectors]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+", stop_words=stop_words)
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"the texts hold no words to compare ({error}): give whole sentences") from error


def _find_neighbours(vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.neighbors import NearestNeighbors

    # Without an argument each row's own place is left out, also when another row equals it.
    model = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(vectors)
    distances, others = model.kneighbors()
    return distances[:, 0], others[:, 0]


def _find_repeats(kind: Kind, rows: Sequence[Row], threshold: float) -> set[int]:
    wanted = "matter" if kind.matter else "persona"
    places = {row["id"]: number for number, row in enumerate(rows)}
    pairs = find_duplicates([t for t in collect_texts("", kind, rows) if t.aspect == wanted], threshold)
    return {places[pair.second.row] for pair in pairs if pair.first.row != pair.second.row}


def _group_rows(kind: Kind, rows: Sequence[Row]) -> dict[str, list[int]]:
    groups = {"all": list(range(len(rows)))}
    if "tier" in kind.fields:
        for number, row in enumerate(rows):
            groups.setdefault(row["tier"], []).append(number)
    return groups


def _group_domains(domains: Sequence[str | None]) -> list[list[int]]:
    members = defaultdict(list)
    for number, domain in enumerate(domains):
        if domain is not None:
            members[domain].append(number)
    return list(members.values())


def _join_ngrams(texts: Sequence[str], n: int) -> list[str]:
    return [gram for text in texts for gram in list_ngrams(split_words(text), n)]
