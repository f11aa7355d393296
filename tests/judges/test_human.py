"""Human ratings as a share of the reward: the arithmetic, what is refused, and a head that learns what people say."""

import json
from contextlib import closing

import numpy as np
import pytest
from test_calibrate import agency_rows, build_engine

from comity.config import JudgeConfig, ModelConfig, TrainConfig
from comity.errors import ConfigError, DataError, RunError
from comity.judges.human import build_human_judge, fit_human_head, mix_human_ratings, read_human_ratings
from comity.judges.panel import build_panel
from comity.runs import check_run, create_run, describe_settings
from comity.types import Answer, Verdict


def says(name, *scores, uncertainty=None):
    return lambda answers: [Verdict(name, name, score, uncertainty=uncertainty) for score in scores]


def rating(number, score, part="train", dilemma=None):
    return {
        "id": f"rating-1-{number}-Ada", "dilemma_id": dilemma or f"d{number}", "dilemma": f"Case {number}?",
        "answer": f"Answer {number}.", "score": score, "author": "Ada", "source": "model", "part": part,
    }  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_score_is_mixed_by_the_share_and_the_unscored_stay_unscored():
    # 0.75 * 2 + 0.25 * 4 = 2.5; the deviation is sqrt((0.75 * 0.4)^2 + (0.25 * 1.6)^2) = sqrt(0.09 + 0.16) = 0.5.
    judge, human = says("judge", 2.0, None, uncertainty=0.4), says("human", 4.0, 4.0, uncertainty=1.6)
    scored, unscored = mix_human_ratings(judge, human, 0.25)([Answer("?", "a"), Answer("?", "b")])
    assert scored.score == pytest.approx(2.5)
    assert scored.uncertainty == pytest.approx(0.5)
    assert scored.text == "judge 2.000, human ratings 4.000 with a share of 0.25"
    assert unscored.score is None
    assert "judge unscored" in unscored.text


def test_all_of_the_score_may_be_the_humans():
    (verdict,) = mix_human_ratings(says("judge", 1.0), says("human", 4.0), 1.0)([Answer("?", "a")])
    assert (verdict.score, verdict.uncertainty) == (4.0, None)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([rating(n, n % 6) for n in range(15)], "15 training rows on 15 dilemmas with 6 different scores"),
        ([rating(n, n % 6, dilemma="d") for n in range(40)], "40 training rows on 1 dilemmas"),
        ([rating(n, 3) for n in range(20)], "with 1 different scores"),
        ([rating(n, n % 6, part="heldout") for n in range(20)], "0 training rows"),
        ([rating(n, 9) for n in range(20)], "field score: is 9"),
    ],
)
def test_too_few_ratings_are_refused(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        read_human_ratings(write(tmp_path / "ratings.jsonl", rows))


def test_a_head_learns_what_people_say_and_the_same_ratings_give_the_same_head(tmp_path):
    labels = agency_rows()
    rows = [
        rating(n, int(label.target), label.part, label.dilemma_id)
        | {"dilemma": label.item.dilemma, "answer": label.item.answer}
        for n, label in enumerate(labels)
    ]
    path = write(tmp_path / "ratings.jsonl", rows)
    engine = build_engine(8)
    judge = build_human_judge(engine, path, 0.8)
    few, many = judge([Answer("Case 1?", "oak oak oak zzz oak elm"), Answer("Case 1?", "zzz zzz oak zzz zzz zzz")])
    assert many.score > few.score + 1
    assert judge([Answer("Case 1?", "")])[0].score == 0.0
    one, other = (fit_human_head(engine, read_human_ratings(path)) for _ in range(2))
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.metadata["figures"]["heldout_rows"]["spearman"] > 0.5


@pytest.mark.slow
def test_the_ratings_of_a_run_with_another_model_read_the_embedded_base(tmp_path, tiny_folder):
    path = write(tmp_path / "ratings.jsonl", [rating(n, n % 6) for n in range(40)])
    folder = str(tiny_folder)
    judges = JudgeConfig(agreement=folder, agency=folder, heldout=False, human=str(path), reply_tokens=2)
    with closing(build_panel(judges, build_engine(2), ModelConfig(name="another/model"))) as panel:
        assert sorted(panel.sources.bases) == ["another/model", "embedded"]
        (verdict,) = panel.agency([Answer("Case 1?", "Answer 1.")])
    # A model with random weights gives no verdict, so the mix has none.
    assert verdict.judge.endswith(":human")
    assert verdict.score is None


def test_other_ratings_in_the_same_file_refuse_to_resume(tmp_path):
    path = write(tmp_path / "ratings.jsonl", [rating(n, n % 6) for n in range(20)])
    config = TrainConfig(run=tmp_path / "run", judges=JudgeConfig(human=str(path)))
    create_run(config.run, describe_settings(config), resume=False)
    check_run(config.run, describe_settings(config), resume=True)
    write(path, [rating(n, (n + 1) % 6) for n in range(20)])
    with pytest.raises(RunError, match=r"started with another judges\.human"):
        check_run(config.run, describe_settings(config), resume=True)
    path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        describe_settings(config)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_is_above_zero_and_at_most_one(share):
    with pytest.raises(ConfigError, match=r"judges\.human_share is"):
        JudgeConfig(human_share=share)
