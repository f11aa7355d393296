"""The list of runs, one run as it grows, comparison, configuration, curves."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import add_evaluation, make_run, open_viewer, write_step

from comity.errors import RunError
from comity.report.charts import CHARTS
from comity.runs import append_metrics
from comity.viewer.comparison import find_differences
from comity.viewer.library import Library
from comity.viewer.metrics import MetricsTable, read_growth
from comity.viewer.plots import Curve, draw_chart, draw_curves, draw_run
from comity.viewer.scales import choose_ticks, show_number, spread_labels, thin_points


@pytest.fixture
def runs(tmp_path):
    """Return a folder with two runs, one in a folder of its own."""
    make_run(tmp_path / "runs" / "first")
    make_run(tmp_path / "runs" / "sweep" / "second", steps=2, seed=1)
    return tmp_path / "runs"


def test_runs_are_found_and_named(runs):
    (runs / "notes").mkdir()
    (runs / ".hidden" / "run").mkdir(parents=True)
    (runs / ".hidden" / "run" / "metrics.jsonl").touch()
    assert [entry.id for entry in Library(runs).entries()] == ["first", "sweep~second"]
    assert [entry.id for entry in Library(runs / "first").entries()] == ["first"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match="no such folder; give the folder that holds the run directories"):
        Library(tmp_path / "nothing")


def test_the_list_shows_state_and_sparkline(runs, tmp_path):
    os.utime(runs / "first" / "config.json", (1, 1))
    for path in (runs / "first").iterdir():
        os.utime(path, (1, 1))
    page = open_viewer(runs, tmp_path / "cache").get("/list").text
    assert page.count("<polyline") == 2
    assert ">training</span>" in page
    assert ">stopped</span>" in page  # nothing has changed since 1970


def test_states_follow_the_files(tmp_path):
    run = make_run(tmp_path / "runs" / "one", steps=0)
    library = Library(tmp_path / "runs")
    entry = library.entries()[0]
    assert library.describe(entry).state == "training"  # its settings were written a moment ago
    os.utime(run / "config.json", (1, 1))
    assert library.describe(entry).state == "not begun"
    for step in range(1, 11):
        write_step(run, step)
    assert (library.describe(entry).state, library.describe(entry).steps) == ("finished", 10)
    (run / "config.json").write_text("[]")
    assert library.describe(entry).state == "damaged"


def test_a_run_whose_judges_part_says_so(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    assert "<dt>judges</dt>" not in client.get("/runs/first").text
    append_metrics(runs / "first", {"step": 4.0, "judges/parted": 1.0})
    assert "<dt>judges</dt><dd>part since step 4</dd>" in client.get("/runs/first").text


def test_a_damaged_run_does_not_hide_the_others(runs, tmp_path):
    (runs / "first" / "config.json").write_text("{torn")
    client = open_viewer(runs, tmp_path / "cache")
    page = client.get("/").text
    assert "sweep~second" in page
    assert "is damaged" in page
    assert client.get("/runs/first").status_code == 200
    assert client.get("/runs/first/config").status_code == 409


def test_a_run_grows_while_it_is_looked_at(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    first = client.get("/runs/first/curves")
    assert "3 of 10" in first.text
    tag = {"if-none-match": first.headers["etag"]}
    assert client.get("/runs/first/curves", headers=tag).status_code == 304
    write_step(runs / "first", 4, reward_mean=2.0)
    second = client.get("/runs/first/curves", headers=tag)
    assert second.status_code == 200
    assert "4 of 10" in second.text
    with (runs / "first" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5.0, "reward')  # a row that is still being written changes nothing
    tag = {"if-none-match": second.headers["etag"]}
    assert client.get("/runs/first/curves", headers=tag).status_code == 304


def test_metrics_are_read_on_and_read_anew_when_replaced(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 0.5}\nnot json\n{"step": 2, "b": true}\n{"step": 3, "a": NaN}\n')
    table = read_growth(path, MetricsTable())
    assert list(table.steps) == [1, 2, 3]
    assert table.series("a") == ([1.0], [0.5])
    assert "b" not in table.columns
    with path.open("a") as stream:
        stream.write('{"step": 4, "b": 7}\n{"step": 5, "b"')
    grown = read_growth(path, table)
    assert grown.series("b") == ([4.0], [7.0])
    assert len(grown.columns["a"]) == len(grown.steps) == 4
    assert grown.latest("a") == 0.5
    other = tmp_path / "other"
    other.write_text('{"step": 1, "a": 9}\n')
    other.replace(path)
    assert read_growth(path, grown).series("a") == ([1.0], [9.0])
    path.unlink()
    assert not read_growth(path, grown).steps


def test_two_runs_are_compared(runs, tmp_path):
    add_evaluation(runs / "first")
    results = {"comparison": {}, "signs": {}}
    (runs / "first" / "evaluation" / "results.json").write_text(json.dumps(results))
    page = open_viewer(runs, tmp_path / "cache").get("/compare?run=first&run=sweep~second").text
    assert '<th scope="row">seed</th><td>0</td><td>1</td>' in page
    assert page.count('class="line c0"') == page.count('class="line c1"') == 5  # every metric that a chart shows
    one = open_viewer(runs, tmp_path / "cache").get("/compare?run=first").text
    assert "Choose two runs or more" in one
    assert open_viewer(runs, tmp_path / "cache").get("/compare?run=first&run=gone").status_code == 404


def test_the_configuration_differs_in_what_differs(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    assert "optimization.learning_rate" in client.get("/runs/first/config").text
    page = client.get("/runs/first/config?against=sweep~second").text
    assert '<th scope="row">seed</th><td>0</td><td>1</td>' in page
    assert "learning_rate" not in page


def test_a_setting_that_one_run_lacks_is_a_difference():
    rows = find_differences([{"settings": {"a": 1, "run": "x"}}, {"settings": {"a": 1, "b": {"c": 2}, "run": "y"}}])
    assert [(row.name, row.values) for row in rows] == [("b.c", ("–", "2"))]


def test_every_metric_of_a_run_is_drawn_somewhere(tmp_path):
    run = make_run(tmp_path / "one", steps=2)
    plots = draw_run(read_growth(run / "metrics.jsonl", MetricsTable()))
    names = [(plot.section, plot.name) for plot in plots]
    assert names[:3] == [("outcome", "reward"), ("outcome", "agreement"), ("spend", "spend/judge_usd")]
    assert ("time", "time/step_seconds") in names


def test_a_chart_by_hand():
    # One curve from (0, 0) to (10, 5) on 0 to 5: x from 44 to 460 - 104 = 356, y from 230 - 26 = 204 up to 10.
    reward = next(chart for chart in CHARTS if chart.name == "reward")
    plot = draw_chart(reward, [Curve("mean", [0.0, 10.0], [0.0, 5.0], "training")])
    # The running average over 3 of (0, 5) is (0, 2.5): the line ends at 204 - 194 / 2 = 107, the dot at 10.
    assert plot.lines[0].points == "44.0,204.0 356.0,107.0"
    assert plot.lines[0].dots == ((44.0, 204.0), (356.0, 10.0))
    assert [tick.text for tick in plot.y_ticks] == ["0", "1", "2", "3", "4", "5"]
    assert "mean 0.00 at step 0, 5.00 at step 10" in plot.summary


def test_a_stack_adds_up_over_the_steps_that_all_know():
    chart = next(chart for chart in CHARTS if chart.kind == "stack")
    curves = [
        Curve("a", [1, 2, 3], [0.2] * 3, "x"),
        Curve("b", [2, 3], [0.3] * 2, "y"),
        Curve("c", [2, 3], [0.5] * 2, "z"),
    ]
    plot = draw_chart(chart, curves)
    # The lines stand at 0.2, 0.5 and 1.0; the figures are those of each alone.
    heights = [float(line.points.split()[-1].split(",")[1]) for line in plot.lines]
    assert heights == pytest.approx([204 - 194 * share for share in (0.2, 0.5, 1.0)], abs=0.06)
    assert [line.last for line in plot.lines] == ["20.0 %", "30.0 %", "50.0 %"]
    assert len(plot.areas) == 3


@given(
    st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=20),
    st.sampled_from([(None, None), (0.0, 5.0), (0.0, None)]),
)
def test_any_values_are_drawn_inside_the_frame(values, limits):
    chart = next(chart for chart in CHARTS if chart.name == "gradient")
    steps = list(range(1, len(values) + 1))
    plot = draw_curves("any", "other", chart.title, "", [Curve("any", steps, values, "ink")])
    for line in plot.lines:
        for pair in line.points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 460
            assert 0 <= y <= 230


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (0, 5, False, [0, 1, 2, 3, 4, 5]),
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 3, True, [1, 2, 3]),
        (2, 2, False, [2]),
    ],
)
def test_ticks_are_round(low, high, whole, ticks):
    assert choose_ticks(low, high, whole=whole) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.5, True, "50.0 %"),
        (-1.234, False, "−1.23"),
        (0, False, "0.00"),
        (0.00012, False, "0.00012"),
        (12345.0, False, "1.23e+04"),
    ],
)
def test_figures_for_people(value, percent, text):
    assert show_number(value, percent) == text


def test_thinning_keeps_the_last_point():
    assert thin_points(range(7), range(7), 3) == [(0, 0), (3, 3), (6, 6)]


def test_labels_are_pushed_apart_and_stay_above_the_axis():
    # 100 and 101 become 100 and 112; 199 is pushed to nothing below 200.
    assert spread_labels([100, 101, 199], 200, 12) == [100, 112, 199]
    assert spread_labels([200, 199], 200, 12) == [200, 188]
