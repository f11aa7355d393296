"""The command line: each user's error is one line with exit code 2, help lists every setting, a dialogue plays live."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from comity.cli import how_to_resume, main
from comity.cli.negotiate_live import NegotiateConfig, printable
from comity.cli.options import all_options, attribute_docstrings, join_values
from comity.config import DemoConfig, EvaluateConfig, ModelConfig, TrainConfig
from comity.errors import ConfigError
from loopback import MODEL, Act, serve

# What keeps a dialogue of the tiny model away from the shipped heads, which read the embedded model.
TINY_RULES = ("--judges.heldout=false", "--model.dtype=float32", "--negotiation.dialogue.max_tokens=4",
              "--negotiation.completion.max_tokens=4", "--negotiation.rounds=1")  # fmt: skip


def complain(capsys, *words):
    """Run a command that a user got wrong and return its one line."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("comity: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("comity: error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("trian", "invalid choice: 'trian'"),
        ("--frob", "the following arguments are required: COMMAND"),
        ("train --sed 3", "unknown setting sed = '3': did you mean seed?"),
        ("train --sed=3", "unknown setting sed = '3': did you mean seed?"),
        ("train --optimization.group-sise 4", "did you mean optimization.group_size?"),
        ("train --seed many", "seed = 'many': expected a whole number"),
        ("train --seed", "--seed has no value"),
        ("train --seed --resume", "--seed has no value"),
        ("train --seed -1", "seed is -1: choose 0 or more"),
        ("train --optimization.learning_rate -1e-5", "optimization.learning_rate is -1e-05: choose 0 or more"),
        ("train --max-spend", "--access.max_spend has no value"),
        ("train --max-spend much", "access.max_spend = 'much': expected a number"),
        ("train --max-spend -1", "access.max_spend is -1.0: choose 0 or more dollars"),
        ("train --access.timeout_seconds 0", "access.timeout_seconds is 0.0: choose a number above 0"),
        ("train --judges.agency ,", "judges.agency is ',': name a judge"),
        ("train --judges.temperature -1", "judges.temperature is -1.0: choose 0 or more"),
        ("train --judges.top_p 0", "judges.top_p is 0.0: choose a number above 0 and at most 1"),
        ("train --judges.max_unscored_share 2", "judges.max_unscored_share is 2.0: choose a number from 0 to 1"),
        ("demo --max-spend -2", "access.max_spend is -2.0"),
        ("judge score --kind agency --input x --output y --max-spend -2", "access.max_spend is -2.0"),
        ("train --solo maybe", "'maybe' is not expected here"),
        ("train --solo=maybe", "solo = 'maybe': expected true or false"),
        ("train 7", "'7' is not expected here"),
        ("train --config none.toml", "--config none.toml: no such file"),
        ("train --dilemmas none.jsonl", "none.jsonl: cannot be read"),
        ("train --trackers mlflow", "trackers has 'mlflow'"),
        ("train --cluster slurm", "cluster.kind = 'slurm': choose among none, ray"),
        ("train --cluster ray --cluster.workers 0", "cluster.workers is 0: choose 1 or more"),
        ("evaluate --scenarios 0", "scenarios is 0: choose 1 or more"),
        ("evaluate --split best", "split = 'best': choose among train, dev, test"),
        ("demo --train.optimization.steps=0", "optimization.steps is 0: choose 1 or more"),
        ("report none", "none: is no run directory"),
        ("report", "the following arguments are required: RUN"),
        ("negotiate", "the following arguments are required: DILEMMA"),
        ("negotiate x --a goal", "--b is empty"),
        ("negotiate x --a g --b g --threads -1", "threads is -1: choose 0 or more"),
        ("judge", "the following arguments are required: COMMAND"),
        ("judge score --kind taste --input x --output y", "invalid choice: 'taste'"),
        ("judge score --kind agency --input none.jsonl --output y", "--input none.jsonl: no such file"),
        ("judge calibrate --kind agency --out x --labels none.jsonl", "--labels none.jsonl: no such file"),
        ("judge calibrate --kind agency --out x --seed -1", "--seed is -1: choose 0 or more"),
        ("warm-start", "the following arguments are required: --out"),
        ("warm-start --out x --share 2", "--share is 2.0: choose a number above 0 and at most 1"),
        ("warm-start --out x --epochs nan", "--epochs is nan: choose a number above 0"),
        ("warm-start --out x --demonstrations none.jsonl", "--demonstrations none.jsonl: no such file"),
    ],
)
def test_a_user_error_is_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in complain(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_an_unknown_model_is_named(capsys, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "1", "dilemma": "d", "answer": "a"}\n', encoding="utf-8")
    name = tmp_path / "no-model"
    words = ("judge", "score", "--kind", "agency", "--input", rows, "--output", tmp_path / "out.jsonl")
    assert f"model '{name}' cannot be loaded" in complain(capsys, *words, "--model", name)
    assert "judge 'comity/other' is unknown" in complain(capsys, *words, "--model", "comity/other")


def test_a_file_is_judged_behind_an_address_and_the_cost_is_told(capsys, tmp_path, monkeypatch):
    rows, output, prices = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "prices.toml"
    answers = ["one", "two", "one", "three"]
    lines = [json.dumps({"id": str(n), "dilemma": "d", "answer": text}) for n, text in enumerate(answers)]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # A dollar a word of the reply, and nothing else.
    prices.write_text(f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 0, output = 1e6 }}\n')
    words = [
        "judge", "score", "--kind", "agency", "--input", rows, "--output", output, "--model", MODEL,
        "--access.cache", tmp_path / "v.sqlite", "--access.prices", prices, "--access.retries", 0,
    ]  # fmt: skip
    words = [str(word) for word in words]

    def script(call):
        return Act("status", status=500) if "three" in call.prompt else "4\nfair"

    with serve(script) as server:
        server.point(monkeypatch)
        # 1,024 tokens may come back, which is more than 1,000 dollars.
        assert "may cost 1024.0000" in complain(capsys, *words, "--max-spend", "1000")
        assert not output.exists()
        assert main([*words, "--max-spend", "2000"]) == 0
        out = capsys.readouterr().out
    assert "3 of 4 rows judged" in out
    # Two distinct answers of two words each; the third failed.
    assert "2 calls paid, 1 failed" in " ".join(out.split())
    assert "4 out, 4.0000 dollars" in " ".join(out.split())
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(row["score"], row["reason"]) for row in found] == [(4.0, "fair")] * 3 + [(None, "http 500")]


def test_a_missing_adapter_is_named(capsys, tmp_path, tiny_folder):
    words = ("negotiate", "Who rests first?", "--a", "x", "--b", "y", "--model.name", tiny_folder)
    adapter = tmp_path / "none"
    assert f"adapter {adapter} has no adapter_config.json" in complain(capsys, *words, "--model.adapter", adapter)
    assert "fits only the embedded model" in complain(capsys, *words, "--model.adapter=warm-start")


def test_a_file_that_cannot_be_written_is_named(capsys, tmp_path, tiny_folder):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "1", "dilemma": "d", "answer": "a"}\n', encoding="utf-8")
    words = ("judge", "score", "--kind", "agency", "--input", rows, "--model", tiny_folder)
    message = complain(capsys, *words, "--output", rows / "out.jsonl")
    assert str(rows) in message


def test_an_error_in_a_new_process_has_exit_code_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "comity", "train", "--seed", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "comity: error: seed = 'x': expected a whole number\n"


def test_help_and_version_load_no_tensor_library(tmp_path):
    code = (
        "import sys\n"
        "from comity.cli import main\n"
        "for words in (['--help'], ['--version'], ['train', '--help'], ['negotiate', '--help'], ['judge', '--help'],\n"
        "              ['data', '--help'], ['data', 'generate', '--help']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 0\n"
        "heavy = ('torch', 'transformers', 'peft', 'sklearn', 'scipy', 'matplotlib', 'jinja2', 'datasketch',\n"
        "         'inspect_ai')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "comity 0.1.0" in done.stdout


@pytest.mark.parametrize(
    ("command", "kind"),
    [("train", TrainConfig), ("evaluate", EvaluateConfig), ("demo", DemoConfig), ("negotiate", NegotiateConfig)],
)
def test_help_lists_every_setting_with_its_default(capsys, command, kind):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in all_options(kind):
        assert f"--{option.key} {option.metavar}" in text
        assert option.help.replace("%%", "%").split("(default")[1] in text


def test_help_texts_come_from_the_docstrings_under_the_fields():
    texts = attribute_docstrings(ModelConfig)
    assert texts["name"] == "`embedded`, a Hugging Face name or a folder."
    assert "dtype" not in texts


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["--seed", "3"], ["--seed=3"]),
        (["--max-spend", "3"], ["--access.max_spend=3"]),
        (["--max-spend=none"], ["--access.max_spend=none"]),
        (["--cluster", "ray", "--address=auto"], ["--cluster.kind=ray", "--cluster.address=auto"]),
        (["--cluster.kind", "ray"], ["--cluster.kind=ray"]),
        (["--seed=3"], ["--seed=3"]),
        (["--model.lora-rank", "8"], ["--model.lora_rank=8"]),
        (["--optimization.learning-rate=-1e-5"], ["--optimization.learning_rate=-1e-5"]),
        (["--run", "a=b"], ["--run=a=b"]),
        (["--resume", "--seed", "3"], ["--resume=true", "--seed=3"]),
        (["--resume", "False"], ["--resume=False"]),
        (["--resume", "word"], ["--resume=true", "word"]),
        (["--config", "x.toml", "word"], ["--config", "x.toml", "word"]),
        (["--other", "3"], ["--other", "3"]),
    ],
)
def test_each_setting_is_joined_with_its_value(words, joined):
    assert join_values(words, TrainConfig) == joined


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(ConfigError, match="--seed has no value"):
        join_values(["--seed"], TrainConfig)


def test_an_interrupt_says_how_to_resume():
    assert how_to_resume(["train", "--run", "a b"]) == "continue with `comity train --run 'a b' --resume`"
    assert how_to_resume(["train", "--resume", "--seed", "1"]) == "continue with `comity train --seed 1 --resume`"
    assert how_to_resume(["demo"]) == "start again with `comity demo`"


def test_a_dialogue_plays_live(capsys, tiny_folder):
    words = ["negotiate", "Who rests first?", "--a", "Rest now.", "--b", "Work on."]
    judge = [f"--judges.{kind}={tiny_folder}" for kind in ("agreement", "agency")]
    outputs = []
    for _ in range(2):
        assert main([*words, *judge, *TINY_RULES, f"--model.name={tiny_folder}", "--seed", "5"]) == 0
        outputs.append(capsys.readouterr().out)
    lines = outputs[0].splitlines()
    assert lines[:3] == ["Dilemma: Who rests first?", "A wants: Rest now.", "B wants: Work on."]
    starts = ["A: ", "B: ", "judge, round 1: no verdict", "Joint answer: ", "Collective Agency: unscored"]
    places = [next(i for i, line in enumerate(lines) if line.strip().startswith(start.strip())) for start in starts]
    assert places == sorted(places)
    assert outputs[0] == outputs[1]  # the same seed, the same words


def test_what_a_model_writes_cannot_steer_the_terminal():
    assert printable("a\x1b[31mb\x07\r\nc\u202e ") == "a[31mb\nc"


def test_rows_are_judged_by_a_local_model(capsys, tmp_path, tiny_folder):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "1", "dilemma": "d", "answer": "a", "mine": 7}) + "\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    words = ["judge", "score", "--kind", "agency", "--input", str(rows), "--output", str(out)]
    assert main([*words, "--model", str(tiny_folder)]) == 0
    assert capsys.readouterr().out.split() == [f"{out}:", "0", "of", "1", "rows", "judged"]
    assert json.loads(Path(out).read_text(encoding="utf-8")) == {
        "id": "1", "dilemma": "d", "answer": "a", "mine": 7, "score": None, "reason": "no verdict in the reply",
    }  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc")
def test_the_allocator_can_be_left_alone():
    code = "from comity.engines.allocator import keep_freed_memory; print(keep_freed_memory())"
    environment = {"COMITY_ALLOCATOR": "default", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    assert done.stdout == "False\n"
