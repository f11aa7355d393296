"""When two judges part, worked by hand, and what a run then does."""

import dataclasses

import pytest
from rich.console import Console
from small_session import build_config, build_session

from comity.cli.progress import TrainProgress
from comity.config import JudgeConfig, to_plain
from comity.errors import ConfigError, JudgeError
from comity.judges.panel import Panel
from comity.runs import create_run, read_metrics
from comity.training.parting import choose_steps, describe_parting, find_partings, measure_parting, summarize_parting
from comity.training.trainer import run_steps
from comity.types import Verdict


def metrics(training, heldout, names=("agreement/rate", "agreement/heldout_rate")):
    return [dict(zip(names, pair, strict=True)) for pair in zip(training, heldout, strict=True)]


def test_a_gap_that_grows_is_a_parting():
    # Gaps 0, 0.1 | 0.5, 0.6: means 0.05 and 0.55, each sample variance 0.05^2 + 0.05^2 = 0.005; the standard error is
    # sqrt(0.005 / 2 + 0.005 / 2) = 0.0707, and 0.5 is 7.07 of them.
    rows = metrics([0.2, 0.3, 0.7, 0.8], [0.2, 0.2, 0.2, 0.2])
    found = measure_parting(rows, "agreement", 2, 7.0)
    assert found.growth == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(0.005**0.5)
    assert found.training == pytest.approx((0.25, 0.75))
    assert found.heldout == pytest.approx((0.2, 0.2))
    assert found.parted
    assert not measure_parting(rows, "agreement", 2, 7.1).parted


def test_a_longer_run_is_compared_over_more_steps():
    assert [choose_steps(known, 50) for known in (4, 10, 23, 24, 100, 200, 1900)] == [5, 5, 5, 6, 25, 50, 50]
    assert choose_steps(1900, 2) == 2
    rows = metrics([0.5] * 5 + [0.9] * 4, [0.5] * 9)
    assert measure_parting(rows, "agreement", 50, 3.0) is None
    found = measure_parting([*rows, rows[-1]], "agreement", 50, 3.0)
    assert (found.steps, found.parted) == (5, True)


def test_judges_that_rise_together_do_not_part():
    rows = metrics([0.2, 0.3, 0.8, 0.9], [0.1, 0.2, 0.7, 0.8])
    assert measure_parting(rows, "agreement", 2, 0.0).growth == pytest.approx(0.0)
    assert not measure_parting(rows, "agreement", 2, 0.0).parted


def test_a_gap_that_grows_because_all_falls_is_no_parting():
    rows = metrics([0.8, 0.8, 0.7, 0.7], [0.8, 0.8, 0.2, 0.2])
    assert measure_parting(rows, "agreement", 2, 0.0).growth == pytest.approx(0.5)
    assert not measure_parting(rows, "agreement", 2, 0.0).parted
    # The training judge stays where it was while the held-out one falls.
    rows = metrics([0.8, 0.8, 0.8, 0.8], [0.8, 0.8, 0.2, 0.2])
    assert measure_parting(rows, "agreement", 2, 0.0).parted


def test_small_growth_is_left_alone_however_sure():
    rows = metrics([0.5, 0.5, 0.59, 0.59], [0.5] * 4)  # no variance at all
    assert not measure_parting(rows, "agreement", 2, 4.0).parted
    names = ("score/mean", "score/heldout_mean")
    assert not measure_parting(metrics([2.0, 2.0, 2.24, 2.24], [2.0] * 4, names), "score", 2, 4.0).parted
    assert measure_parting(metrics([2.0, 2.0, 2.25, 2.25], [2.0] * 4, names), "score", 2, 4.0).parted


def test_only_steps_with_both_judges_count():
    rows = metrics([0.2, 0.3, 0.7, 0.8], [0.2] * 4)
    rows.insert(1, {"agreement/rate": 1.0})
    rows.append({"agreement/heldout_rate": 1.0})
    assert measure_parting(rows, "agreement", 2, 4.0) == measure_parting(
        metrics([0.2, 0.3, 0.7, 0.8], [0.2] * 4), "agreement", 2, 4.0
    )
    assert measure_parting(rows[:4], "agreement", 2, 4.0) is None
    assert measure_parting(rows, "score", 2, 4.0) is None


def test_what_is_written_and_said():
    judges = JudgeConfig(parted_steps=2, parted_errors=4.0)
    rows = metrics([0.2, 0.3, 0.7, 0.8], [0.2, 0.2, 0.2, 0.2])
    partings = find_partings(rows, judges)
    assert summarize_parting(partings) == {"judges/parted": 1.0, "judges/agreement_gap_growth": pytest.approx(0.5)}
    assert describe_parting(partings) == (
        "the judges part (agreement 25 % -> 75 % by the training judge, 20 % -> 20 % by the held-out judge, first and "
        "last 2 steps)"
    )
    assert summarize_parting(find_partings(rows, dataclasses.replace(judges, parted_errors=8.0))) == {
        "judges/parted": 0.0,
        "judges/agreement_gap_growth": pytest.approx(0.5),
    }
    assert summarize_parting(find_partings(rows, dataclasses.replace(judges, parted="off"))) == {}
    assert describe_parting([]) == ""
    with pytest.raises(ConfigError, match=r"judges\.parted_steps is 1"):
        JudgeConfig(parted_steps=1)
    with pytest.raises(ConfigError, match=r"judges\.parted is pause, but judges\.heldout is false"):
        JudgeConfig(parted="pause", heldout=False)


def start(folder, run, steps, **judges):
    """Return a session whose training judge scores each step one point higher and whose held-out judge never moves."""
    config = build_config(folder, run, steps, resume=(run / "config.json").exists())
    config = dataclasses.replace(
        config, save_every=100, judges=JudgeConfig(parted_steps=2, parted_errors=4.0, **judges)
    )
    create_run(run, to_plain(config), config.resume)
    session = build_session(config)

    def agency(answers):
        return [Verdict("rises", "", min(5.0, 1.0 + len(read_metrics(run)))) for _ in answers]

    def watch(answers):
        return [Verdict("stays", "", 1.0) for _ in answers]

    return dataclasses.replace(session, panel=Panel(session.panel.agreement, agency, heldout_agency=watch))


def test_a_run_tells_it_once_and_writes_it_down(tiny_folder, tmp_path, capsys):
    session = start(tiny_folder, tmp_path / "run", 5)
    # Gaps 0, 1, 2, 3, 4. After 4 steps 0.5 and 2.5 with variances 0.5: the growth 2 is 2 / sqrt(0.5) = 2.83 errors;
    # after 5 the last two are 3 and 4: 3 is 4.24 errors.
    run_steps(session, TrainProgress(Console(), session.config).on_step)
    rows = read_metrics(tmp_path / "run")
    assert [row.get("judges/parted") for row in rows] == [None, None, None, 0.0, 1.0]
    assert rows[3]["judges/score_gap_growth"] == pytest.approx(2.0)
    told = capsys.readouterr().out
    assert told.count("warning:") == 1
    line = "score 1.50 -> 4.50 by the training judge, 1.00 -> 1.00 by the held-out judge, first and last 2 steps"
    assert line in told
    # It was told: the run that goes on does not say it again.
    session = start(tiny_folder, tmp_path / "run", 6)
    run_steps(session, TrainProgress(Console(), session.config).on_step)
    assert read_metrics(tmp_path / "run")[-1]["judges/parted"] == 1.0
    assert "warning:" not in capsys.readouterr().out


def test_a_run_pauses_with_a_checkpoint_and_goes_on(tiny_folder, tmp_path):
    with pytest.raises(
        JudgeError, match=r"judges\.parted is pause and the judges part .*checkpoint-5 is kept"
    ) as caught:
        run_steps(start(tiny_folder, tmp_path / "run", 7, parted="pause"))
    assert "\n" not in str(caught.value)
    assert len(read_metrics(tmp_path / "run")) == 5
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-5"]
    run_steps(start(tiny_folder, tmp_path / "run", 7, parted="warn"))
    assert len(read_metrics(tmp_path / "run")) == 7


def test_it_can_be_switched_off(tiny_folder, tmp_path):
    run_steps(start(tiny_folder, tmp_path / "run", 5, parted="off"))
    assert not any(key.startswith("judges/") for row in read_metrics(tmp_path / "run") for key in row)
