"""Variety of texts, with numbers worked by hand."""

import math

import numpy as np
import pytest
import scipy.sparse

from comity.errors import DataError
from comity.scenarios.kinds import KINDS, find_kind, read_kind
from comity.scenarios.quality import (
    center_vectors,
    find_nearest,
    mean_distance,
    mean_nearest_distance,
    measure_distinct,
    measure_quality,
    measure_spread,
    read_text,
    shuffle_words,
)

# Unit vectors at 0, 60, 90 degrees: cosines 1/2, 0 and cos 30 = sqrt(3)/2.
ANGLES = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2], [0.0, 1.0]])


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix])
def test_mean_distance_of_all_pairs(form):
    # (1 - 1/2) + (1 - 0) + (1 - sqrt(3)/2) over 3 pairs
    assert mean_distance([form(ANGLES)]) == pytest.approx((2.5 - math.sqrt(3) / 2) / 3)
    # two groups: the pair at 60 degrees, and one row alone, which has no pair
    assert mean_distance([form(ANGLES[:2]), form(ANGLES[2:])]) == pytest.approx(0.5)
    assert mean_distance([form(ANGLES[:1])]) is None
    assert mean_distance([]) is None
    # a row of zeros (a text of stop words only) is at distance 1 from all
    assert mean_distance([form(np.array([[1.0, 0.0], [0.0, 0.0]]))]) == pytest.approx(1.0)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix])
def test_mean_distance_to_the_nearest_row(form):
    # 0 degrees: nearest is 60 (1/2); 60: nearest is 90 (1 - sqrt(3)/2); 90: nearest is 60
    expected = (0.5 + 2 * (1 - math.sqrt(3) / 2)) / 3
    assert mean_nearest_distance(form(ANGLES)) == pytest.approx(expected)
    assert mean_nearest_distance(form(ANGLES[[0, 0, 2]])) == pytest.approx(1 / 3)  # twins are at 0, the third at 1
    assert mean_nearest_distance(form(ANGLES[:1])) is None


def test_the_baseline_takes_pairs_of_one_domain_only():
    spread = measure_spread(ANGLES, ["x", "y", "x"])
    assert spread.pairs_of_one_domain == pytest.approx(1.0)  # rows at 0 and 90 degrees
    assert measure_spread(ANGLES, ["x", "y", "z"]).pairs_of_one_domain is None
    assert measure_spread(ANGLES, [None] * 3).pairs_of_one_domain is None


def test_distinct_ngrams():
    # the the cat | the cat: unigrams the the cat the cat: 2 of 5; bigrams (the the) (the cat) (the cat): 2 of 3
    texts = ["The the cat", "the CAT."]
    assert measure_distinct(texts, 1, 5) == 2 / 5
    assert measure_distinct(texts, 2, 3) == 2 / 3
    assert measure_distinct(texts, 3, 1) == 1.0
    assert measure_distinct(texts, 1, 1) == 1.0  # counted over one n-gram only
    assert measure_distinct([], 1, 5) == 0.0


def test_shuffled_texts_keep_the_words_and_the_lengths():
    texts = ["One two three", "four, five"]
    shuffled = shuffle_words(texts, 1)
    assert [len(text.split()) for text in shuffled] == [3, 2]
    assert sorted(" ".join(shuffled).split()) == ["five", "four", "one", "three", "two"]
    assert shuffled == shuffle_words(texts, 1) != shuffle_words(texts, 2)


def test_centred_vectors_have_unit_length_and_equal_rows_stay_zero():
    vectors = center_vectors(np.array([[2.0, 0.0], [4.0, 0.0], [3.0, 0.0]], np.float32))
    assert vectors.tolist() == [[-1, 0], [1, 0], [0, 0]]


def test_nearest_pairs_come_first():
    texts = ["cats chase mice", "a lake freezes", "cats chase mice today", "the lake thaws"]
    (first, second) = find_nearest(texts, 2)
    assert first[1:] == (0, 2)
    assert second[1:] == (1, 3)
    assert first[0] > second[0] > 0
    assert find_nearest(texts[:1], 3) == []


def test_quality_by_tier():
    kind = find_kind("dilemmas")
    dilemmas = [
        "the old mill needs a roof",
        "the old mill needs a roof now",
        "bees swarm at noon",
        "rain fell all week",
    ]
    rows = [
        {"id": str(n), "tier": tier, "domain": "d", "dilemma": text, "split": "train"}
        for n, (tier, text) in enumerate(zip(["everyday"] * 2 + ["professional"] * 2, dilemmas, strict=True))
    ]
    every, day, work = measure_quality(kind, rows)
    assert [(q.group, q.rows) for q in (every, day, work)] == [("all", 4), ("everyday", 2), ("professional", 2)]
    # The second dilemma repeats the first: 4 of 5 trigrams.
    assert (every.near_duplicate_rate, day.near_duplicate_rate, work.near_duplicate_rate) == (1 / 4, 1 / 2, 0)
    assert work.words.pairs == work.words.nearest == pytest.approx(1.0)  # no word in common
    assert day.words.pairs == day.words.pairs_of_one_domain < 0.5
    assert every.hidden is None


def test_hidden_states_are_measured_beside_the_words():
    rows = [
        {"id": str(n), "tension": "t", "persona_a": f"You want {a}.", "persona_b": f"You want {b}."}
        for n, (a, b) in enumerate([("bread", "cake"), ("sun", "snow"), ("noise", "peace")])
    ]
    (figures,) = measure_quality(find_kind("persona-pairs"), rows, lambda texts: ANGLES.astype(np.float32))
    # The mean of the three vectors is (0.5, (sqrt(3)/2 + 1)/3); distances are those of what is left.
    left = ANGLES - ANGLES.mean(axis=0)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    cosines = [left[i] @ left[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert figures.hidden.pairs == pytest.approx(1 - sum(cosines) / 3, abs=1e-6)
    assert read_text(find_kind("persona-pairs"), rows[0]) == "You want bread. You want cake."


def test_texts_without_words_are_named():
    rows = [{"id": "1", "question": "?!"}, {"id": "2", "question": "..."}]
    with pytest.raises(DataError, match="the texts hold no words to compare"):
        measure_quality(find_kind("open-ended"), rows)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_shipped_files_are_varied(kind):
    for figures in measure_quality(kind, read_kind("shipped", kind.name)):
        assert figures.near_duplicate_rate == 0
        assert figures.distinct[2] > 0.95
        assert figures.words.nearest > figures.words.nearest_of_shuffled_words - 0.03
        if figures.words.pairs_of_one_domain is not None:
            assert figures.words.pairs > figures.words.pairs_of_one_domain
