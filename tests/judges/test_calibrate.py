"""Fitting heads on a deep, narrow model with random weights and labels that stand in the text."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from comity.engines.local import LocalEngine
from comity.errors import DataError, ModelError
from comity.judges.calibrate import (
    LAYERS,
    CalibrateOptions,
    calibrate,
    calibrate_pair,
    candidate_layers,
    describe_head,
    fit_head,
    in_part,
    read_features,
)
from comity.judges.embedded import build_agency_judge, build_agreement_judge
from comity.judges.head import load_head
from comity.judges.labels import Label
from comity.prompts import hash_template
from comity.types import Answer, RoundEnding
from tiny import build_model, build_tokenizer


def build_engine(layers):
    """Return an engine on the tiny model with more layers."""
    config = LlamaConfig.from_dict(build_model().config.to_dict() | {"num_hidden_layers": layers})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    return LocalEngine(model.float().eval(), build_tokenizer())


def agency_rows():
    """Return answers of six words whose score is how many of them are "zzz"."""
    draw = np.random.default_rng(5)
    rows = []
    for number in range(240):
        dilemma = f"d{number // 3}"
        part = "heldout" if number // 3 >= 60 else "train"
        score = int(draw.integers(6))
        words = draw.permutation(["zzz"] * score + ["oak"] * (6 - score))
        item = Answer(f"Case {number // 3}?", " ".join(words))
        rows.append(Label(f"r{number}", item, float(score), dilemma, part, f"author-{part}", "written"))
    return rows


def agreement_rows():
    """Return endings that are agreed when B says "zzz"."""
    draw = np.random.default_rng(6)
    rows = []
    for number in range(240):
        dilemma = f"d{number // 3}"
        part = "heldout" if number // 3 >= 60 else "train"
        agreed = bool(draw.integers(2))
        said = draw.permutation(["zzz" if agreed else "oak", "elm", "ivy", "fir"])
        item = RoundEnding(f"Case {number // 3}?", "x", "y", "Shall we?", " ".join(said))
        rows.append(Label(f"r{number}", item, float(agreed), dilemma, part, f"author-{part}", "written"))
    return rows


ROWS = {"agency": agency_rows, "agreement": agreement_rows}
FIGURE = {"agency": "spearman", "agreement": "auc"}


@pytest.fixture(scope="module")
def deep_engine():
    return build_engine(20)


@pytest.fixture(scope="module", params=["agency", "agreement"])
def pair(request, deep_engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    kind = request.param
    return kind, folder, calibrate_pair(kind, deep_engine, ROWS[kind](), folder, seed=0, model="tiny")


def test_a_visible_pattern_is_learnt(pair):
    kind, _, heads = pair
    for head in heads:
        figures = head.metadata["figures"]
        assert figures["heldout_rows"][FIGURE[kind]] > 0.8
        assert figures["cross_validation"][FIGURE[kind]] > 0.8


def test_directions_are_orthonormal_also_with_more_rows_than_features(pair):
    for head in pair[2]:
        assert len(head.directions) <= min(96, len(head.weights), head.metadata["rows_train"] - 1)
        directions = head.directions.astype(np.float64)
        np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=0.02)  # float16
        assert head.mean_variance >= 1


def test_a_fitted_head_judges_as_its_labels_say(pair, deep_engine):
    kind, folder, _ = pair
    head = load_head(folder / f"{kind}_training.safetensors")
    if kind == "agency":
        verdicts = build_agency_judge(deep_engine, head, 0.8)(
            [Answer("New case?", text) for text in ("oak oak oak oak zzz oak", "zzz oak zzz zzz zzz zzz")]
        )
        assert verdicts[0].score + 2 < verdicts[1].score
    else:
        verdicts = build_agreement_judge(deep_engine, head, 0.8)(
            [RoundEnding("New case?", "x", "y", "Shall we?", text) for text in ("fir oak elm ivy", "fir zzz elm ivy")]
        )
        assert [verdict.agreed for verdict in verdicts] == [False, True]


def test_the_pair_reads_different_layers_and_different_dilemmas(pair, deep_engine):
    kind, _, (training, heldout) = pair
    assert all(abs(one - other) >= 2 for one in training.layers for other in heldout.layers)
    train_dilemmas = {row.dilemma_id for row in ROWS[kind]() if row.part == "train"}
    larger = {dilemma for dilemma in train_dilemmas if in_part(dilemma, "larger")}
    smaller = {dilemma for dilemma in train_dilemmas if in_part(dilemma, "smaller")}
    assert larger | smaller == train_dilemmas
    assert not larger & smaller
    assert len(larger) > len(smaller) >= 16
    assert training.metadata["rows_train"] == 3 * len(larger)
    assert heldout.metadata["rows_train"] == 3 * len(smaller)
    # Without the smaller part's rows the training head is the same: it never saw them.
    table = read_features(kind, deep_engine, ROWS[kind]())
    kept = [i for i, row in enumerate(table.rows) if row.part == "heldout" or row.dilemma_id in larger]
    rows = tuple(table.rows[i] for i in kept)
    fewer = dataclasses.replace(table, rows=rows, blocks_NLPD=table.blocks_NLPD[kept])
    again = fit_head(fewer, 0, CalibrateOptions("training", "tiny", "all"))
    assert again.weights.tobytes() == training.weights.tobytes()
    assert (again.bias, again.threshold, again.layers) == (training.bias, training.threshold, training.layers)


def test_heldout_rows_are_not_fitted_on(pair, deep_engine):
    kind, _, (training, _) = pair
    table = read_features(kind, deep_engine, ROWS[kind]())
    top = 5.0 if kind == "agency" else 1.0
    rows = tuple(dataclasses.replace(r, target=top - r.target) if r.part == "heldout" else r for r in table.rows)
    head = fit_head(dataclasses.replace(table, rows=rows), 0, CalibrateOptions("training", "tiny", "larger"))
    assert head.weights.tobytes() == training.weights.tobytes()
    assert (head.slope, head.offset, head.threshold) == (training.slope, training.offset, training.threshold)
    assert head.metadata["figures"]["heldout_rows"][FIGURE[kind]] < 0.2  # the same head, turned labels


def test_the_same_rows_and_seed_give_the_same_heads(pair, deep_engine, tmp_path):
    kind, folder, _ = pair
    calibrate_pair(kind, deep_engine, ROWS[kind](), tmp_path, seed=0, model="tiny")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{kind}_heldout.safetensors", f"{kind}_training.safetensors"]
    for name in names:
        one, other = load_head(folder / name), load_head(tmp_path / name)
        for field in dataclasses.fields(one):
            before, after = getattr(one, field.name), getattr(other, field.name)
            assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, field.name


def test_metadata_and_line_tell_what_was_done(pair):
    kind, folder, heads = pair
    for head, which in zip(heads, ("training", "heldout"), strict=True):
        stored = load_head(folder / f"{kind}_{which}.safetensors")
        assert stored.metadata == head.metadata
        assert head.metadata["template_hash"] == hash_template(f"{kind}_head")
        assert head.metadata["rows_heldout"] == 60
        assert head.metadata["seed"] == 0
        line = describe_head(head)
        assert line.startswith(f"{kind} {which}: layers {list(head.layers)} {head.pooling} on ")
        assert f"{FIGURE[kind]} {head.metadata['figures']['heldout_rows'][FIGURE[kind]]:.3f}" in line


def test_one_head_on_all_rows(deep_engine, tmp_path):
    path = tmp_path / "head.safetensors"
    head = calibrate("agency", deep_engine, agency_rows(), path)
    assert load_head(path).weights.tobytes() == head.weights.tobytes()
    assert head.metadata["rows_train"] == 180
    assert head.metadata["rows_part"] == "all"


def test_labels_without_a_pattern_teach_nothing(deep_engine):
    table = read_features("agency", deep_engine, agency_rows())
    targets = np.random.default_rng(0).permutation([row.target for row in table.rows])
    rows = tuple(dataclasses.replace(row, target=float(t)) for row, t in zip(table.rows, targets, strict=True))
    head = fit_head(dataclasses.replace(table, rows=rows), 0, CalibrateOptions())
    assert abs(head.metadata["figures"]["heldout_rows"]["spearman"]) < 0.4


def test_too_few_rows_are_refused(deep_engine):
    few = [row for row in agency_rows() if int(row.dilemma_id[1:]) < 15]
    with pytest.raises(DataError, match="45 training rows on 15 dilemmas are too few"):
        fit_head(read_features("agency", deep_engine, few), 0, CalibrateOptions())
    same = [dataclasses.replace(row, target=2.0) for row in agency_rows()]
    with pytest.raises(DataError, match="label rows with different scores"):
        fit_head(read_features("agency", deep_engine, same), 0, CalibrateOptions())


def test_candidate_layers_lie_as_deep_as_in_the_embedded_model():
    assert candidate_layers(30) == LAYERS
    assert candidate_layers(60) == tuple(2 * layer for layer in LAYERS)
    # 8, 10 ... 20 of 30 times 9: 2.4, 3.0, 3.6, 4.2, 4.8, 5.4, 6.0.
    assert candidate_layers(9) == (2, 3, 4, 5, 6)
    assert candidate_layers(2) == (1,)


def test_a_model_too_shallow_for_two_heads_is_refused():
    table = read_features("agency", build_engine(2), agency_rows())
    assert table.layers == (1,)
    with pytest.raises(ModelError, match="no layer is left for the head 'heldout': choose a deeper model, or fit one"):
        fit_head(table, 0, CalibrateOptions("heldout", exclude_layers_near=(1,)))
    assert fit_head(table, 0, CalibrateOptions()).layers == (1,)


def test_errors_are_measured_where_they_are(pair):
    kind, _, heads = pair
    if kind == "agreement":
        assert all(head.error_by_score == () for head in heads)
        return
    for head in heads:
        assert len(head.error_by_score) == 11
        assert min(head.error_by_score) > 0


def test_rows_without_any_label_are_refused(deep_engine):
    with pytest.raises(DataError, match="no row has a label"):
        read_features("agency", deep_engine, [])


def test_a_head_knows_how_far_it_can_be_believed(pair):
    for head in pair[2]:
        bins = head.metadata["reliability"]
        *parts, everything = bins
        assert everything["n"] == sum(row["n"] for row in parts) == 60
        assert everything["true"] == pytest.approx(sum(row["n"] * row["true"] for row in parts) / 60)
        assert 0.4 < everything["within_68"] <= everything["within_95"] <= 1
        table = head.metadata["asking"]["table"]
        assert [row["n_kept"] for row in table] == sorted((row["n_kept"] for row in table), reverse=True)
        assert (table[0]["n_kept"], table[0]["error"]) == (60, table[0]["kept_error"])


def test_all_layers_are_read_once(deep_engine):
    table = read_features("agency", deep_engine, agency_rows()[:2])
    # 5.3, 6.7, 8, 9.3, 10.7, 12 and 13.3 of 20.
    assert table.layers == (5, 7, 8, 9, 11, 12, 13)
    assert table.blocks_NLPD.shape == (2, 7, 3, 32)  # answer:mean, answer:last, tail:mean
