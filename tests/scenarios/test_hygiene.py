"""No duplicates in the shipped files, and planted ones are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ConfigError
from comity.scenarios.hygiene import SimilarTexts, Text, choose_bands, collect_texts, find_duplicates, make_shingles
from comity.scenarios.kinds import KINDS, find_kind, read_kind, shipped_path

DILEMMAS, PAIRS, TASKS = (find_kind(name) for name in ("dilemmas", "persona-pairs", "conflict-tasks"))


@pytest.fixture(scope="module")
def shipped():
    return [text for kind in KINDS for text in collect_texts(kind.name, kind, read_kind("shipped", kind.name))]


def test_shipped_texts_are_all_compared(shipped):
    # 1,100 dilemmas + 100 tasks + 100 questions + 60 situations; 50 + 200 personas and the 212 stakeholders
    # (10 * 2 + 20 * 3 + 18 * 4 + 12 * 5 = 212)
    assert sum(text.aspect == "matter" for text in shipped) == 1360
    assert sum(text.aspect == "persona" for text in shipped) == 462


def test_shipped_files_and_splits_share_no_text_nor_a_near_copy(shipped):
    assert find_duplicates(shipped) == []
    assert find_duplicates(shipped, 0.12) == []  # far below the threshold too


def test_training_questions_are_no_near_copies_of_what_is_held_out(shipped):
    kind, path = find_kind("open-ended"), shipped_path("open_ended_training.jsonl")
    ours = collect_texts("open-ended-training", kind, read_kind(str(path), "open-ended"))
    assert len(ours) == 96
    assert find_duplicates([*shipped, *ours], 0.12) == []


def plant(text, changes):
    words = text.split()
    for place in changes:
        words[place] = "otherwise"
    return " ".join(words)


def test_planted_dilemmas_are_found_within_and_across_splits_and_files(shipped):
    rows = read_kind("shipped", "dilemmas")
    train = next(row for row in rows if row["split"] == "train")
    test = next(row for row in rows if row["split"] == "test")
    planted = [
        train | {"id": "same", "dilemma": train["dilemma"].upper() + "!"},
        train | {"id": "near", "dilemma": plant(train["dilemma"], [20])},
        test | {"id": "leak", "dilemma": plant(test["dilemma"], [10, 30]), "split": "train"},
    ]
    found = find_duplicates([*shipped, *collect_texts("dilemmas", DILEMMAS, planted)])
    assert {(pair.first.row, pair.second.row, pair.exact, pair.across) for pair in found} == {
        (train["id"], "same", True, ""),
        (train["id"], "near", False, ""),
        (test["id"], "leak", False, "splits"),
    }
    task = read_kind("shipped", "conflict-tasks")[0] | {"id": "task-x", "dilemma": test["dilemma"]}
    found = find_duplicates([*shipped, *collect_texts("mine", TASKS, [task])])
    assert [(p.first.row, p.second.field, p.across) for p in found] == [
        (test["id"], "dilemma", "files"),
        ("task-001", "persona_a", "files"),
        ("task-001", "persona_b", "files"),
    ]


def test_a_training_persona_in_a_conflict_task_is_found(shipped):
    pair = read_kind("shipped", "persona-pairs")[4]
    task = {"id": "task-x", "dilemma": "Two cooks want one stove.", "persona_a": "You bake all bread at dawn."}
    task["persona_b"] = plant(pair["persona_a"], [3])
    found = find_duplicates([*shipped, *collect_texts("tasks", TASKS, [task])])
    assert [(p.first.place, p.second.place, p.across) for p in found] == [
        (f"persona-pairs {pair['id']} persona_a", "tasks task-x persona_b", "files")
    ]
    assert found[0].describe().startswith("tasks task-x persona_b: a near-duplicate persona (0.")
    assert found[0].describe().endswith(f" of persona-pairs {pair['id']} persona_a, across files")


def make_text(row, words, aspect="matter", file="f", split=""):
    return Text(file, row, "dilemma", aspect, words, split)


def test_similarity_is_the_exact_jaccard_of_word_trigrams():
    # abc bcd cde def | abc bcd cde deg: 3 shared of 5
    (pair,) = find_duplicates([make_text("1", "a b c d e f"), make_text("2", "a b c d e g")], 0.6)
    assert (pair.first.row, pair.second.row, pair.similarity, pair.exact) == ("1", "2", 3 / 5, False)
    assert find_duplicates([make_text("1", "a b c d e f"), make_text("2", "a b c d e g")], 0.61) == []


def test_the_same_words_in_the_same_trigrams_need_not_be_the_same_text():
    (pair,) = find_duplicates([make_text("1", "a b c a b c"), make_text("2", "a b c a b c a b c")])
    assert (pair.similarity, pair.exact) == (1.0, False)


def test_short_texts_are_compared_whole():
    assert make_shingles("a b") == {"a b"}
    assert len(find_duplicates([make_text("1", "a b"), make_text("2", "a b"), make_text("3", "b a")])) == 1


def test_matters_are_not_compared_with_personas():
    assert find_duplicates([make_text("1", "a b c d"), make_text("1", "a b c d", "persona")]) == []


def test_a_text_that_stands_often_gives_one_finding_each_time():
    texts = [make_text(str(n), "a b c d") for n in range(20)]
    assert len(find_duplicates(texts)) == 19
    # The third stands in another split, the fourth in another file: each also has its match nearer by.
    mixed = [make_text("1", "a b c d", split="train"), make_text("2", "a b c d", split="train"),
             make_text("3", "a b c d", split="test"), make_text("4", "a b c d", file="g", split="test")]  # fmt: skip
    assert sorted((p.second.row, p.across) for p in find_duplicates(mixed)) == [
        ("2", ""), ("3", "splits"), ("4", "files"),
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_named(threshold):
    with pytest.raises(ConfigError, match=r"threshold is .*: choose a number above 0 and at most 1"):
        SimilarTexts(threshold)


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold):
    bands, rows = choose_bands(threshold)
    assert bands * rows <= 128
    found = 1 - (1 - threshold**rows) ** bands
    assert found >= (0.99 if threshold > 0.05 else 0.7)  # 128 single rows find 1 - 0.99 ** 128 = 72 % at 0.01


@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=6))
def test_any_text_can_be_compared(texts):
    rows = [{"id": str(n), "dilemma": text, "split": "dev"} for n, text in enumerate(texts)]
    collected = collect_texts("f", DILEMMAS, rows)
    found = find_duplicates([*collected, *(make_text(f"again-{t.row}", t.words, split="dev") for t in collected)])
    assert {pair.second.row for pair in found if pair.exact} >= {f"again-{n}" for n in range(len(texts))}
