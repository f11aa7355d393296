"""Choose layers, pooling and strength of a ridge head by cross-validation over dilemmas.

Features are standardised, and each (layer, piece) block has its own Gram matrix; a set of blocks has the mean of
theirs. So every candidate costs one small linear solve a fold, and the hidden states are read only once.

A candidate is judged by the mean of two figures: folds of dilemmas, and one author left out at a time. A policy's texts
are those of yet another author, and the folds of dilemmas alone flatter a head that has learnt its authors' manners.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.model_selection import GroupKFold

from comity.judges.labels import Kind
from comity.judges.metrics import Array, measure

POOLINGS: dict[Kind, tuple[str, ...]] = {
    "agency": (
        "answer:mean",
        "answer:mean+tail:mean",
        "answer:mean+answer:last",
        "answer:mean+answer:last+tail:mean",
    ),
    "agreement": (
        "message_b:mean",
        "message_a:mean+message_b:mean",
        "message_a:mean+message_b:mean+message_b:last",
        "message_a:mean+message_b:mean+message_b:last+message_b:new",
        "message_a:mean+message_b:mean+message_b:last+message_b:new+tail:mean",
    ),
}
PIECES: dict[Kind, str] = {kind: max(names, key=len) for kind, names in POOLINGS.items()}
"""The pooling that holds every piece of the others."""
STRENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Ridge strengths for standardised features divided by the square root of their number."""
TOLERANCE = 0.003
"""A candidate this close to the best figure is as good; the cheapest of these is taken."""
FOLDS = 8
SCREENED_ROWS = 900
"""Candidates are compared on about this many rows, whole dilemmas drawn by the seed; the one chosen gets all rows."""
FEWEST_ROWS_OF_AUTHOR = 40
"""An author with fewer training rows is never left out alone."""

Fold = tuple[NDArray[np.int_], NDArray[np.int_]]
"""The rows to fit on and the rows left out."""


FIGURES: dict[Kind, str] = {"agency": "spearman", "agreement": "auc"}
"""What candidates are compared by."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What candidates are compared on: pooled states (N, layers, pieces, D), labels, each row's dilemma and author."""

    kind: Kind
    blocks_NLPD: NDArray[np.float32]
    layers: tuple[int, ...]
    target_N: Array
    groups: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings of a head, with their figures (Spearman or AUC) and raw values (N,) of left-out rows.

    `raw_N` is from the folds of dilemmas, `author_raw_N` from leaving out one author at a time (NaN for rows of authors
    never left out); `author_figure` is None when the rows have one author only.
    """

    layers: tuple[int, ...]
    pooling: str
    strength: float
    dilemma_figure: float
    author_figure: float | None
    raw_N: Array
    author_raw_N: Array

    @property
    def figure(self) -> float:
        """Return what candidates are compared by."""
        return self.dilemma_figure if self.author_figure is None else (self.dilemma_figure + self.author_figure) / 2


def choose_settings(
    kind: Kind,
    blocks_NLPD: NDArray[np.float32],
    layers: Sequence[int],
    target_N: Array,
    groups: Sequence[tuple[str, str]],
    seed: int,
) -> Choice:
    """Return the cheapest settings whose cross-validated figure is within TOLERANCE of the best.

    `blocks_NLPD` holds the pieces of PIECES[kind] for each of `layers`; `groups` holds each row's dilemma and
    author, who is "" where no author is to be left out: a model's rows are unlike written ones, and a head that never
    saw any says nothing about one that did.
    Cheap means an early last layer, then few features.
    """
    screened = draw_rows([dilemma for dilemma, _ in groups], seed)
    rows = Rows(kind, blocks_NLPD[screened], tuple(layers), target_N[screened], tuple(groups[i] for i in screened))
    found = compare_candidates(rows, _layer_sets(layers), POOLINGS[kind], STRENGTHS, seed)
    best = max(choice.figure for choice in found)
    good = [choice for choice in found if choice.figure >= best - TOLERANCE]
    chosen = min(good, key=lambda c: (max(c.layers), len(c.layers) * len(c.pooling.split("+")), -c.figure))
    if len(screened) == len(target_N):
        return chosen
    everything = Rows(kind, blocks_NLPD, tuple(layers), target_N, tuple(groups))
    (choice,) = compare_candidates(everything, [chosen.layers], [chosen.pooling], [chosen.strength], seed)
    return choice


def compare_candidates(
    rows: Rows, layer_sets: Sequence[tuple[int, ...]], poolings: Sequence[str], strengths: Sequence[float], seed: int
) -> list[Choice]:
    """Return the cross-validated figures of every combination of layers, pooling and strength."""
    pieces = PIECES[rows.kind].split("+")
    used = sorted({layer for chosen in layer_sets for layer in chosen})
    grams = {
        (layer, piece): _gram(rows.blocks_NLPD[:, rows.layers.index(layer), pieces.index(piece)])
        for layer in used
        for piece in sorted({piece for pooling in poolings for piece in pooling.split("+")})
    }
    dilemmas = [dilemma for dilemma, _ in rows.groups]
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows.target_N, groups=dilemmas))
    authors = _author_folds([author for _, author in rows.groups])
    found = []
    for chosen in layer_sets:
        for pooling in poolings:
            gram_NN = np.mean([grams[layer, piece] for layer in chosen for piece in pooling.split("+")], axis=0)
            raw_SN = _cross_validate(gram_NN, rows.target_N, folds, strengths)
            author_SN = _cross_validate(gram_NN, rows.target_N, authors, strengths)
            for s, strength in enumerate(strengths):
                across = _measure_authors(rows, author_SN[s], authors)
                within = measure(rows.kind, raw_SN[s], rows.target_N)[FIGURES[rows.kind]]
                found.append(Choice(chosen, pooling, strength, within, across, raw_SN[s], author_SN[s]))
    return found


def _measure_authors(rows: Rows, raw_N: Array, authors: Sequence[Fold]) -> float | None:
    if not authors:
        return None
    name = FIGURES[rows.kind]
    return float(np.mean([measure(rows.kind, raw_N[left], rows.target_N[left])[name] for _, left in authors]))


def draw_rows(dilemmas: Sequence[str], seed: int) -> list[int]:
    """Return the places of all rows, or of whole dilemmas in a drawn order until there are SCREENED_ROWS."""
    if len(dilemmas) <= SCREENED_ROWS:
        return list(range(len(dilemmas)))
    counts = Counter(dilemmas)
    names = sorted(counts)
    taken: set[str] = set()
    total = 0
    for place in np.random.default_rng(seed).permutation(len(names)):
        if total >= SCREENED_ROWS:
            break
        taken.add(names[place])
        total += counts[names[place]]
    return [i for i, dilemma in enumerate(dilemmas) if dilemma in taken]


def standardise(features_NF: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean (F,) and standard deviation (F,) of features, the latter kept away from 0."""
    return features_NF.mean(0), features_NF.std(0) + np.float32(1e-4)


def _layer_sets(layers: Sequence[int]) -> list[tuple[int, ...]]:
    singles = [(layer,) for layer in layers]
    pairs = [pair for pair in combinations(layers, 2) if pair[1] - pair[0] >= 4]
    return [*singles, *pairs]


def _author_folds(authors: Sequence[str]) -> list[Fold]:
    names = np.array(authors)
    large = [name for name in sorted(set(authors) - {""}) if (names == name).sum() >= FEWEST_ROWS_OF_AUTHOR]
    if len(large) < 2:
        return []
    return [(np.flatnonzero(names != name), np.flatnonzero(names == name)) for name in large]


def _gram(block_ND: NDArray[np.float32]) -> Array:
    mean_D, std_D = standardise(block_ND)
    z_ND = ((block_ND - mean_D) / std_D).astype(np.float64)
    gram_NN: Array = z_ND @ z_ND.T / block_ND.shape[1]
    return gram_NN


def _cross_validate(gram_NN: Array, target_N: Array, folds: Sequence[Fold], strengths: Sequence[float]) -> Array:
    raw_SN = np.full((len(strengths), len(target_N)), np.nan)
    for kept, left in folds:
        mean = target_N[kept].mean()
        for s, strength in enumerate(strengths):
            raw_SN[s, left] = mean + gram_NN[np.ix_(left, kept)] @ solve_ridge(
                gram_NN[np.ix_(kept, kept)], target_N[kept] - mean, strength
            )
    return raw_SN


def solve_ridge(gram_NN: Array, target_N: Array, strength: float) -> Array:
    """Return the dual weights (N,) of kernel ridge regression."""
    dual_N: Array = cho_solve(cho_factor(gram_NN + strength * np.eye(len(gram_NN)), lower=True), target_N)
    return dual_N
