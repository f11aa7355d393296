"""Human dialogues: which endings they give, and a judge's figures on them."""

import json

import pytest

from comity.errors import DataError
from comity.judges.audit_endings import audit_casino
from comity.judges.audit_statistics import Resampling
from comity.judges.casino import CasinoEnding, read_casino
from comity.types import RoundEnding

FEW = Resampling(resamples=20)


def casino_file(path, *logs):
    dialogues = [
        {"dialogue_id": i, "chat_logs": [{"id": who, "text": text} for who, text in log]} for i, log in enumerate(logs)
    ]
    path.write_text(json.dumps(dialogues), encoding="utf-8")
    return path


DEAL = [("a", "m1"), ("b", "m2"), ("a", "m3"), ("b", "m4"), ("a", "m5"), ("b", "m6"), ("a", "Submit-Deal"),
        ("b", "Accept-Deal")]  # fmt: skip


def test_a_human_dialogue_gives_its_end_and_its_middle(tmp_path):
    walked = [*DEAL[:6], ("a", "Walk-Away")]
    endings = read_casino(casino_file(tmp_path / "casino.json", DEAL, walked))
    assert [(e.dialogue, e.ending.message_a, e.ending.message_b, e.agreed) for e in endings] == [
        ("0", "m5", "m6", True), ("0", "m2", "m3", False),
    ]  # fmt: skip


def test_a_file_without_deals_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no dialogue with an accepted deal"):
        read_casino(casino_file(tmp_path / "casino.json", DEAL[:4]))
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="is not a CaSiNo file"):
        read_casino(other)


def test_figures_on_human_dialogues_by_hand():
    ending = RoundEnding("d", "x", "y", "m1", "m2")
    endings = [CasinoEnding(name, ending, agreed) for name in "abc" for agreed in (True, False)]
    row = audit_casino("j", endings, [1.0, 1.0, 0.0, 0.0, None, 0.0], FEW)
    assert row["recall"]["value"] == pytest.approx(1 / 2)
    assert row["recall"]["n_unscored"] == 1
    assert row["false_agreement"]["value"] == pytest.approx(1 / 3)
    # Said YES twice, true twice among the five scored, both once: 2 * 1 / (2 + 2).
    assert row["f1"]["value"] == pytest.approx(0.5)
    # Always YES: 2 * 3 / (6 + 3).
    assert row["f1_of_always_yes"] == pytest.approx(2 / 3)
