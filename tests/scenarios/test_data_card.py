"""The figures of the data card are those of the files."""

import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from comity.scenarios.kinds import SPLITS, TIERS, find_kind, read_kind, shipped_path
from comity.scenarios.quality import measure_quality
from comity.scenarios.rows import read_rows

CARD = " ".join(shipped_path("README.md").read_text(encoding="utf-8").split())
READINGS = Path(__file__).parents[2] / "docs" / "data" / "blind_tiers_2026-11-23.jsonl"


@pytest.fixture(scope="module")
def readings():
    return read_rows(READINGS, {"id": str, "tier_given": TIERS, "readers": list})


def test_counts_by_tier_and_split():
    dilemmas, tasks = read_kind("shipped", "dilemmas"), read_kind("shipped", "conflict-tasks")
    for tier in (*TIERS, "all"):
        own = [row for row in dilemmas if tier in ("all", row["tier"])]
        splits = [sum(row["split"] == split for row in own) for split in SPLITS]
        held = sum(tier in ("all", row["tier"]) for row in tasks)
        assert f"| {tier} | {' | '.join(map(str, splits))} | {len(own)} | {held} |" in CARD
    assert f"{len({row['domain'] for row in dilemmas})} domain names among the dilemmas" in CARD
    assert len({row["domain"] for row in tasks}) == len(tasks)


def word_range(kind, *fields):
    counts = [len(row[field].split()) for row in read_kind("shipped", kind) for field in fields]
    return f"{min(counts)} to {max(counts)}"


def test_lengths():
    assert f"A dilemma has {word_range('dilemmas', 'dilemma')} words" in CARD
    assert f"that of a conflict task {word_range('conflict-tasks', 'dilemma')}, " in CARD
    goals = [word_range(kind, "persona_a", "persona_b") for kind in ("conflict-tasks", "persona-pairs")]
    assert goals == ["18 to 27", "18 to 23"]
    assert "a goal 18 to 27, " in CARD
    assert f"a question {word_range('open-ended', 'question')}, " in CARD
    assert f"a situation {word_range('transfer', 'situation')}. " in CARD
    cases = Counter(len(row["stakeholders"]) for row in read_kind("shipped", "transfer"))
    assert cases == {2: 10, 3: 20, 4: 18, 5: 12}
    assert "10 cases have two stakeholders, 20 three, 18 four, 12 five." in CARD


def test_variety():
    figures = measure_quality(find_kind("dilemmas"), read_kind("shipped", "dilemmas"))
    table = {
        "near-duplicate rate": [f"{100 * f.near_duplicate_rate:.1f} %" for f in figures],
        "distinct-1": [f"{f.distinct[0]:.3f}" for f in figures],
        "distinct-2": [f"{f.distinct[1]:.3f}" for f in figures],
        "distinct-3": [f"{f.distinct[2]:.3f}" for f in figures],
        "words: spread": [f"{f.words.pairs:.3f}" for f in figures],
        "words: spread in one domain": [f"{f.words.pairs_of_one_domain:.3f}" for f in figures],
        "words: nearest": [f"{f.words.nearest:.3f}" for f in figures],
        "words: nearest, words shuffled": [f"{f.words.nearest_of_shuffled_words:.3f}" for f in figures],
    }
    for label, values in table.items():
        assert f"| {label} | {' | '.join(values)} |" in CARD


def share(count, whole):
    return f"{count} ({100 * count / whole:.1f} %)"


def test_blind_readings(readings):
    readers = [[row["readers"][number] for row in readings] for number in (0, 1)]
    given = [row["tier_given"] for row in readings]
    whole = len(readings)
    assert Counter(given) == dict.fromkeys(TIERS, whole // 3)
    flags = {
        "names the tier that the dilemma has": lambda reader, tier: reader["tier"] == tier,
        "both sides can be argued": lambda reader, _: reader["both_arguable"],
        "a third way is thinkable": lambda reader, _: reader["third_way"],
        "notes a fault": lambda reader, _: bool(reader["problem"]),
    }
    for label, flag in flags.items():
        first, second = ([flag(*pair) for pair in zip(own, given, strict=True)] for own in readers)
        both = sum(a and b for a, b in zip(first, second, strict=True))
        assert f"| {label} | {share(sum(first), whole)} | {share(sum(second), whole)} | {share(both, whole)} |" in CARD
    for tier in TIERS:
        rights = [[reader["tier"] == tier == own for reader, own in zip(r, given, strict=True)] for r in readers]
        both = sum(map(all, zip(*rights, strict=True)))
        assert f"| of {whole // 3} {tier} | {sum(rights[0])} | {sum(rights[1])} | {both} |" in CARD
    tiers = [[reader["tier"] for reader in own] for own in readers]
    alike = sum(a == b for a, b in zip(*tiers, strict=True))
    kappa = cohen_kappa_score(*tiers)
    assert f"on {alike} of {whole} tiers (Cohen's kappa {kappa:.2f})" in CARD


def test_every_dilemma_with_a_noted_fault_was_mended(readings):
    faulty = [row["id"] for row in readings if any(reader["problem"] for reader in row["readers"])]
    assert f"{len(faulty)} dilemmas in which either noted a fault" in CARD
    unread = len(read_kind("shipped", "dilemmas")) - len(readings)
    expected = unread * len(faulty) / len(readings)  # 944 * 14 / 156 = 84.7
    (told,) = re.findall(rf"some (\d+) of the {unread} dilemmas", CARD)
    assert abs(int(told) - expected) < 1
