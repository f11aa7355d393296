"""Choosing a head's settings: on all rows where they are few, on whole dilemmas of the seed where they are many."""

import numpy as np
import pytest

from comity.judges import selection
from comity.judges.selection import PIECES, choose_settings, draw_rows

LAYERS = (8, 12)


def labelled(rows=240, per_dilemma=4, width=6):
    """Return states whose first piece of the second layer holds the label, labels, and three authors' groups."""
    draw = np.random.default_rng(1)
    pieces = PIECES["agency"].split("+")
    blocks = draw.normal(size=(rows, len(LAYERS), len(pieces), width)).astype(np.float32)
    target = draw.integers(0, 6, size=rows).astype(np.float64)
    blocks[:, 1, pieces.index("answer:mean"), 0] = target
    groups = [(f"d{i // per_dilemma}", f"author-{i % 3}") for i in range(rows)]
    return blocks, target, groups


def test_few_rows_are_all_compared():
    assert draw_rows(["b", "a", "b"], seed=0) == [0, 1, 2]


def test_of_many_rows_whole_dilemmas_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(selection, "SCREENED_ROWS", 10)
    dilemmas = [f"d{i // 4}" for i in range(60)]
    drawn = draw_rows(dilemmas, seed=0)
    # Dilemmas have four rows each: the third one passes ten.
    assert len(drawn) == 12
    taken = {dilemmas[i] for i in drawn}
    assert drawn == [i for i, dilemma in enumerate(dilemmas) if dilemma in taken]
    assert draw_rows(dilemmas, seed=0) == drawn
    assert draw_rows(dilemmas, seed=1) != drawn


@pytest.mark.parametrize("most", [80, 900])
def test_the_layer_that_holds_the_label_is_chosen_and_every_row_is_left_out_once(monkeypatch, most):
    monkeypatch.setattr(selection, "SCREENED_ROWS", most)
    blocks, target, groups = labelled()
    choice = choose_settings("agency", blocks, LAYERS, target, groups, seed=0)
    assert choice.layers == (12,)
    assert choice.pooling == "answer:mean"
    assert choice.dilemma_figure > 0.95
    assert choice.author_figure > 0.95
    # The values that calibrate the head cover all rows, also those that chose nothing.
    assert choice.raw_N.shape == (240,)
    assert not np.isnan(choice.raw_N).any()
    assert not np.isnan(choice.author_raw_N).any()
