"""A contender's process answers line by line; here its lines are read in this process."""

import json
import mmap

import pytest

from comity.bench.process import Moment, read_peak_gb, reset_peak, share_elsewhere
from comity.bench.runner import start_worker
from comity.bench.settings import BenchSettings
from comity.bench.worker import answer_lines
from comity.errors import ComityError, ConfigError


def converse(folder, settings, name, *messages):
    """Return the answers to the messages after the first one, which names the contender."""
    first = {"do": "check", "contender": name, "settings": settings.to_plain()}
    answers = list(answer_lines([json.dumps(message) for message in (first, *messages)], folder))
    assert answers[0] == {}
    return answers[1:]


@pytest.fixture
def settings(tiny_folder):
    return BenchSettings(
        "rollout", dialogues=4, group_size=2, messages=2, tokens=3, model=str(tiny_folder), dtype="float32"
    )  # fmt: skip


def test_ours_and_the_peer_sample_as_many_tokens(settings, tmp_path):
    opened, ours = converse(tmp_path, settings, "ours", {"do": "open"}, {"do": "run", "repeat": 0, "rows": []})
    assert opened["versions"]["torch"]
    # 4 dialogues x 2 messages x 3 tokens
    assert ours["tokens"] == 24
    assert ours["parts"]["rollout"] > 0
    assert ours["peak_rss_gb"] > 0.01
    assert 0 <= ours["busy_elsewhere"] <= 1
    _, peer = converse(
        tmp_path, settings, "transformers", {"do": "open"}, {"do": "run", "repeat": 0, "rows": ours["rows"]}
    )  # fmt: skip
    assert peer["tokens"] == 24
    assert peer["rows"] == ours["rows"]


def test_the_limit_answers_with_rates(settings, tmp_path):
    _, rates = converse(tmp_path, settings, "limit", {"do": "open"}, {"do": "run"})
    assert rates.keys() == {"bytes_per_second", "layer_flops_per_second", "head_flops_per_second"}
    assert all(rate > 0 for rate in rates.values())


def test_an_error_of_the_user_is_an_answer(settings, tmp_path):
    wrong = {**settings.to_plain(), "model": str(tmp_path / "none")}
    first = {"do": "check", "contender": "ours", "settings": wrong}
    answers = list(answer_lines([json.dumps(first), json.dumps({"do": "open"})], tmp_path))
    assert "cannot be loaded" in answers[1]["error"]


def test_a_process_that_ends_is_told_with_its_last_line(settings):
    peer = BenchSettings("rollout", against="transformers", peer_python="/bin/false")
    ended = pytest.raises(ComityError, match="the process of transformers ended with code 1")
    with ended, start_worker("transformers", peer):
        pass
    missing = BenchSettings("rollout", against="transformers", peer_python="/none/python")
    unknown = pytest.raises(ConfigError, match="--peer-python /none/python: No such file")
    with unknown, start_worker("transformers", missing):
        pass


def test_the_peak_counts_from_the_last_reset():
    if not reset_peak():
        pytest.skip("this system keeps the peak of the whole process")
    before = read_peak_gb()
    # Pages of its own: from the heap it might get ones that earlier tests freed and that still count as resident.
    block = mmap.mmap(-1, 200_000_000)
    for place in range(0, len(block), 4096):
        block[place] = 1
    grown = read_peak_gb()
    assert grown - before == pytest.approx(0.2, abs=0.02)
    block.close()
    reset_peak()
    assert read_peak_gb() < grown - 0.15


def test_what_others_worked_is_a_share_of_the_whole_machine(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    # 10 seconds of 4 processors are 40; 25 were worked, 15 of them by this process.
    assert share_elsewhere(Moment(5.0, 100.0, 20.0), Moment(15.0, 125.0, 35.0)) == pytest.approx(0.25)
    assert share_elsewhere(Moment(5.0, 100.0, 20.0), Moment(15.0, 110.0, 35.0)) == 0.0
