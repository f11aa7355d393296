"""The embedded judges: by hand on the tiny model; the shipped heads on the embedded model (slow)."""

import dataclasses

import numpy as np
import pytest
import torch

from comity.engines.local import LocalEngine
from comity.engines.models import EMBEDDED, load_model, load_tokenizer
from comity.errors import ModelError
from comity.judges.embedded import build_agency_judge, build_agreement_judge, load_shipped_head
from comity.judges.features import extract_features
from comity.judges.head import RewardHead
from comity.judges.labels import read_labels
from comity.judges.metrics import measure
from comity.prompts import hash_template
from comity.types import Answer, RoundEnding

LIMIT = 0.8
DILEMMA = "A village has one well and two fields. Who may draw first in the dry month?"
ANSWERS = [
    Answer(DILEMMA, "By turns, a week each."),
    Answer(DILEMMA, "The upper field draws at night and both dig a second well before the next dry month comes."),
    Answer(DILEMMA, "No."),
]


def make_head(kind, pooling, weights=None, bias=0.0, threshold=0.5):
    """Return a head on layer 1 of the tiny model whose features are not standardised."""
    pieces = len(pooling.split("+"))
    return RewardHead(
        kind=kind,
        name="mine",
        model="tiny",
        layers=(1,),
        pooling=pooling,
        weights=np.zeros(32 * pieces, np.float32) if weights is None else weights,
        bias=bias,
        feature_mean=np.zeros(32 * pieces, np.float32),
        feature_std=np.ones(32 * pieces, np.float32),
        directions=np.zeros((1, 32 * pieces), np.float16),
        direction_variances=np.ones(1, np.float32),
        prior_variance=0.0,
        residual_std=0.3,
        mean_variance=1.0,
        threshold=threshold,
        metadata={"template_hash": hash_template(f"{kind}_head")},
    )


def ending(message_a, message_b):
    return RoundEnding(DILEMMA, "Save water.", "Save time.", message_a, message_b)


def draw_weights(pieces=1):
    return (np.random.default_rng(3).normal(size=32 * pieces) / 4).astype(np.float32)


@pytest.fixture
def engine(tiny_model, tiny_tokenizer):
    return LocalEngine(tiny_model, tiny_tokenizer)


def states_by_hand(engine, text):
    """Return layer 1's hidden states (T, 32) of a text and the characters (start, end) of each token."""
    encoded = engine.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    with torch.no_grad():
        hidden = engine.model(input_ids=torch.tensor([encoded["input_ids"]]), output_hidden_states=True).hidden_states
    return hidden[1][0].numpy(), encoded["offset_mapping"]


def test_an_answer_is_scored_by_the_mean_of_its_own_tokens(engine):
    weights = draw_weights()
    verdicts = build_agency_judge(engine, make_head("agency", "answer:mean", weights, 2.5), LIMIT)(ANSWERS)
    for item, verdict in zip(ANSWERS, verdicts, strict=True):
        text = (
            f"Dilemma: {item.dilemma}\nAnswer: {item.answer}\n"
            "How far does this answer enlarge what everybody involved can know, do and sustain?"
        )
        states, offsets = states_by_hand(engine, text)
        start = text.index(item.answer)
        own = [i for i, (a, b) in enumerate(offsets) if b > start and a < start + len(item.answer)]
        by_hand = np.clip(states[own].mean(0) @ weights + 2.5, 0, 5)
        assert verdict.score == pytest.approx(by_hand, abs=1e-4)
        assert verdict.judge == "comity/embedded:mine"
        assert verdict.uncertainty == pytest.approx(0.3)
    assert len({round(verdict.score, 3) for verdict in verdicts}) == 3


@pytest.mark.parametrize(("threshold", "agreed"), [(0.74, True), (0.76, False)])
def test_the_head_decides_from_its_threshold_on(engine, threshold, agreed):
    head = make_head("agreement", "message_b:mean", bias=float(np.log(3)), threshold=threshold)
    (verdict,) = build_agreement_judge(engine, head, LIMIT)([ending("By turns?", "Yes, from Monday.")])
    assert verdict.score == pytest.approx(0.75)
    assert verdict.agreed is agreed
    assert verdict.uncertainty == pytest.approx(0.75 * 0.25 * 0.3)
    assert verdict.text == ""


@pytest.mark.parametrize("empty", ["", " \n\t", "\u200b", "\u00ad\u2060"])
def test_an_empty_text_is_refused(engine, empty):
    judge = build_agreement_judge(engine, make_head("agreement", "message_b:mean", bias=9.0), LIMIT)
    for verdict in judge([ending(empty, "Yes, from Monday."), ending("By turns?", empty)]):
        assert (verdict.score, verdict.agreed, verdict.text) == (0.0, False, "a message is empty")
    (verdict,) = build_agency_judge(engine, make_head("agency", "answer:mean", bias=4.0), LIMIT)([Answer("d", empty)])
    assert (verdict.score, verdict.text) == (0.0, "the answer is empty")


def test_a_copy_is_refused_and_a_restatement_is_not(engine):
    judge = build_agreement_judge(engine, make_head("agreement", "message_b:mean", bias=9.0), LIMIT)
    plan = "We draw by turns, a week each, and from the first of May the mill lends us its pump."
    copied, restated = judge([ending(plan, plan), ending(plan, "Good: weekly turns, and the mill's pump from May on.")])
    assert (copied.score, copied.agreed, copied.text) == (0.0, False, "message B copies message A")
    assert (restated.agreed, restated.text) == (True, "")
    agency = build_agency_judge(engine, make_head("agency", "answer:mean", bias=4.0), LIMIT)
    copied, honest = agency([Answer(DILEMMA, DILEMMA), ANSWERS[0]])
    assert (copied.score, copied.text) == (0.0, "the answer copies the dilemma")
    assert honest.score == pytest.approx(4.0)


def test_the_copy_limit_is_the_setting(engine):
    head = make_head("agency", "answer:mean", bias=4.0)
    # 4 of the answer's 7 4-grams are the dilemma's: 0.571.
    answer = Answer(DILEMMA, "A village has one well and two doors and more")
    assert build_agency_judge(engine, head, 0.58)([answer])[0].score == pytest.approx(4.0)
    assert build_agency_judge(engine, head, 0.57)([answer])[0].score == 0.0


def test_the_order_of_rows_is_kept_and_neighbours_change_nothing(engine):
    judge = build_agency_judge(engine, make_head("agency", "answer:mean+answer:last", draw_weights(2), 2.5), LIMIT)
    mixed = [ANSWERS[2], Answer(DILEMMA, ""), ANSWERS[1], Answer(DILEMMA, DILEMMA), ANSWERS[0]]
    together = judge(mixed)
    alone = [judge([item])[0] for item in mixed]
    np.testing.assert_allclose([v.score for v in together], [v.score for v in alone], atol=1e-4)
    assert [v.text for v in together] == ["", "the answer is empty", "", "the answer copies the dilemma", ""]
    np.testing.assert_allclose([v.score for v in judge(mixed[::-1])], [v.score for v in together][::-1], atol=1e-4)


def test_nothing_to_judge_gives_nothing(engine):
    assert list(build_agency_judge(engine, make_head("agency", "answer:mean"), LIMIT)([])) == []
    assert list(build_agreement_judge(engine, make_head("agreement", "message_b:mean"), LIMIT)([])) == []


def test_a_runaway_text_is_cut_and_an_unseen_part_changes_nothing(engine):
    head = make_head("agency", "answer:mean", draw_weights(), 2.5)
    words = " ".join(str(number) for number in range(900))  # 3,489 characters, no 4-gram twice
    one, other = build_agency_judge(engine, head, LIMIT)([Answer("d", words), Answer("d", words + " and more")])
    assert one.score == other.score


def test_new_words_weigh_more_than_repeated_ones(engine):
    pair = [ending("the upper field draws on even days", "the upper field draws on odd nights")]
    features = extract_features(engine, "agreement", pair, [1], "message_b:mean+message_b:new+message_b:last")
    mean, new, last = features[0, 0]
    assert features.shape == (1, 1, 3, 32)
    assert not np.allclose(mean, new, atol=1e-3)
    # The last words are the new ones, so the weighted mean lies nearer to the last token than the plain one.
    assert np.linalg.norm(new - last) < np.linalg.norm(mean - last)


@pytest.mark.parametrize("template_hash", ["0" * 12, None])
def test_a_head_of_another_prompt_is_refused(engine, template_hash):
    for kind, build in (("agency", build_agency_judge), ("agreement", build_agreement_judge)):
        head = make_head(kind, "tail:mean")
        build(engine, head, LIMIT)  # its own prompt is fine
        with pytest.raises(ModelError, match=f"'mine' was fitted with another prompt {kind}_head"):
            build(engine, dataclasses.replace(head, metadata={"template_hash": template_hash}), LIMIT)


def test_a_head_of_the_other_kind_is_refused(engine):
    with pytest.raises(ModelError, match="judges agency, not agreement"):
        build_agreement_judge(engine, make_head("agency", "answer:mean"), LIMIT)
    with pytest.raises(ModelError, match="judges agreement, not agency"):
        build_agency_judge(engine, make_head("agreement", "message_b:mean"), LIMIT)


def test_a_shipped_head_does_not_fit_another_model(engine):
    head = dataclasses.replace(load_shipped_head("agency", "training"), layers=(1, 2))
    with pytest.raises(ModelError, match="use the model it was fitted on"):
        build_agency_judge(engine, head, LIMIT)(ANSWERS)


@pytest.fixture(scope="module")
def embedded_engine():
    return LocalEngine(load_model(EMBEDDED), load_tokenizer(EMBEDDED))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["training", "heldout"])
def test_shipped_agency_heads_order_obviously_different_answers(embedded_engine, which):
    judge = build_agency_judge(embedded_engine, load_shipped_head("agency", which), LIMIT)
    good = Answer(
        DILEMMA,
        "Both fields draw on alternate nights by a chart on the well. Meanwhile families of both fields dig a shared "
        "cistern for the winter rain, the school teaches two from each side to maintain the pump, and next year they "
        "decide together what to plant so that neither depends on the dry month.",
    )
    bad = Answer(DILEMMA, "The upper field takes all the water, and whoever complains is fined.")
    garbled = Answer(DILEMMA, "The well is the field is the well of the month and dry the village who.")
    scores = [verdict.score for verdict in judge([bad, good, garbled])]
    assert scores[1] > max(scores[0], scores[2]) + 1


ACCEPTED = ending(
    "Then we take turns: your field draws on Monday and Thursday, mine on Tuesday and Friday, starting tomorrow. "
    "Do you accept?",
    "Yes, I accept. Monday and Thursday for us, Tuesday and Friday for you, from tomorrow. I will paint the days "
    "on the well.",
)
REFUSED = ending(
    "My field draws first every day and yours gets what is left.",
    "No. I will not accept that. My crop would die, and I still want every second day.",
)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["training", "heldout"])
def test_shipped_agreement_heads_order_obvious_endings(embedded_engine, which):
    judge = build_agreement_judge(embedded_engine, load_shipped_head("agreement", which), LIMIT)
    refused, accepted = judge([REFUSED, ACCEPTED])
    assert accepted.agreed
    assert refused.score < accepted.score


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="the shipped training head calls this refusal agreed; see docs/judges.md")
def test_shipped_agreement_head_decides_an_obvious_refusal(embedded_engine):
    (refused,) = build_agreement_judge(embedded_engine, load_shipped_head("agreement", "training"), LIMIT)([REFUSED])
    assert not refused.agreed


@pytest.mark.slow
@pytest.mark.parametrize("which", ["training", "heldout"])
@pytest.mark.parametrize(("kind", "figure"), [("agency", "spearman"), ("agreement", "auc")])
def test_figures_in_the_metadata_come_out_again(embedded_engine, kind, which, figure):
    head = load_shipped_head(kind, which)
    rows = [row for row in read_labels(kind) if row.part == "heldout"][::5]
    assert len(rows) >= 30
    features = extract_features(embedded_engine, kind, [row.item for row in rows], head.layers, head.pooling)
    score, _ = head.predict(features)
    found = measure(kind, score, np.array([row.target for row in rows]), head.threshold)[figure]
    told = head.metadata["figures"]["heldout_rows"][figure]
    assert found > 0.5
    assert abs(found - told) < 0.15  # a fifth of the rows: about two standard errors
    # Nearly all model answers are labelled 0 to 2, so there is little to order among them.
    assert head.metadata["figures"]["heldout_written"][figure] > 0.7
