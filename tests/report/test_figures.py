"""Running averages, direct labels and the bytes of figures."""

import dataclasses

import pytest

from comity.report.charts import CHARTS, COLOUR_NAMES
from comity.report.figures import (
    _spread,
    averaging_window,
    draw_chart,
    draw_forest,
    embed_svg,
    read_series,
    running_average,
    save_figure,
)  # fmt: skip

REWARD = next(chart for chart in CHARTS if chart.name == "reward")
METRICS = [
    {"step": step, "reward/group_min": 1.0, "reward/group_mean": 2.0 + step / 10, "reward/group_max": 4.0}
    for step in range(1, 6)
]


def test_running_average_by_hand():
    # Window 2: 1; (1 + 3) / 2; (3 + 8) / 2.
    assert running_average([1, 3, 8], 2) == [1.0, 2.0, 5.5]


@pytest.mark.parametrize(("steps", "window"), [(0, 3), (14, 3), (40, 8), (1900, 50)])
def test_averaging_window(steps, window):
    assert averaging_window(steps) == window


def test_series_leave_out_what_is_unknown():
    rows = [{"step": 1, "a": 2.0}, {"step": 2}, {"step": 3, "a": None}, {"step": 4, "a": float("nan")}]
    assert read_series([*rows, {"step": 5, "a": 1.0}], "a") == ([1.0, 5.0], [2.0, 1.0])


def test_labels_are_spread_and_stay_in_order():
    assert _spread([0.5, 0.52], 0.1) == pytest.approx([0.5, 0.6])
    # Both want the top: the upper one stays at 1, the lower one moves down.
    assert _spread([1.0, 0.99], 0.1) == pytest.approx([1.0, 0.9])


def test_equal_figures_have_equal_bytes(tmp_path):
    for folder in ("first", "second"):
        save_figure(draw_chart(REWARD, METRICS), "reward", tmp_path / folder)
    for ending in ("svg", "png"):
        first, second = ((tmp_path / folder / f"reward.{ending}").read_bytes() for folder in ("first", "second"))
        assert first == second
    changed = [{**row, "reward/group_mean": 3.0} for row in METRICS]
    save_figure(draw_chart(REWARD, changed), "reward", tmp_path / "third")
    assert (tmp_path / "third/reward.svg").read_bytes() != (tmp_path / "first/reward.svg").read_bytes()


def test_embedded_figure_names_no_address_and_takes_its_colours_from_the_page(tmp_path):
    save_figure(draw_chart(REWARD, METRICS), "reward", tmp_path)
    svg = embed_svg(tmp_path / "reward.svg", "Reward, over training steps")
    assert "http" not in svg
    assert 'aria-label="Reward, over training steps"' in svg
    assert "var(--training)" in svg
    assert not [colour for colour in COLOUR_NAMES if colour in svg]


def test_absent_metrics_have_no_figure():
    assert draw_chart(REWARD, [{"step": 1, "other": 1.0}]) is None
    assert draw_forest({"reward_mean": {"difference": None}}) is None


def test_a_single_step_and_a_part_of_the_metrics_can_be_drawn():
    assert draw_chart(REWARD, [{"step": 1, "reward/group_mean": 2.0}]) is not None
    assert draw_chart(dataclasses.replace(REWARD, limits=(None, None)), METRICS[:1]) is not None
