"""IFEval's instructions on texts judged by hand, models that answer, drops with their interval."""

import json

import pytest

from comity.config import EvaluateConfig, ModelConfig
from comity.errors import DataError
from comity.evaluation.ability import answer_prompts, check_answer, load_prompts, summarize_ability
from comity.evaluation.models import evaluate_models
from comity.report.contest import is_contest, write_contest_report
from comity.report.contest_tables import tabulate_ability

NO_COMMA = {
    "key": 1,
    "prompt": "Write without commas.",
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": [{}],
}
TWO = {
    "key": 2, "prompt": "Name wells in JSON, without the word goat.",
    "instruction_id_list": ["detectable_format:json_format", "keywords:forbidden_words"],
    "kwargs": [{}, {"forbidden_words": ["goat"], "relation": None}],
}  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("One well is enough.", (True,), (True,)),
        ("One well, or two.", (False,), (False,)),
        ("Sure, here it is:\nOne well is enough.", (False,), (True,)),  # loosely, the first line may go
        ("", (False,), (False,)),
    ],
)
def test_one_instruction(text, strict, loose):
    found = check_answer(NO_COMMA, text)
    assert (found.strict, found.loose, found.problem) == (strict, loose, "")


def test_two_instructions_are_judged_apart():
    assert check_answer(TWO, '{"well": 1}').strict == (True, True)
    assert check_answer(TWO, '{"goat": 1}').strict == (True, False)
    assert check_answer(TWO, "A goat.").strict == (False, False)


def test_a_checker_without_its_data_is_unscored(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    sentences = {
        "key": 3, "prompt": "p", "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }  # fmt: skip
    found = check_answer(sentences, "One. Two. Three.")
    assert found.strict is None
    assert "punkt_tab" in found.problem


def answers(model, *passed):
    return [{"model": model, "key": key, "strict": flags, "loose": flags} for key, flags in enumerate(passed)]


def test_rates_and_a_drop_by_hand():
    rows = answers("base", *[[True, True]] * 6) + answers("multi", *[[True, False]] * 5, [True, True])
    base, multi = summarize_ability(rows, seed=0)["models"]
    assert base["measures"]["prompt_strict"]["mean"] == 1.0
    # Prompts 1 of 6; instructions (5 x 1 + 2) / 12.
    assert multi["measures"]["prompt_strict"]["mean"] == pytest.approx(1 / 6)
    assert multi["measures"]["instruction_strict"]["mean"] == pytest.approx(7 / 12)
    assert multi["change"]["difference"] == pytest.approx(-5 / 6)
    assert multi["change"]["high"] < 0
    assert (base["dropped"], multi["dropped"]) == (False, True)
    assert base["change"] is None


def test_unscored_prompts_are_left_out_and_counted():
    rows = answers("base", [True], None, [False]) + answers("multi", [True], [True], [False])
    base, multi = summarize_ability(rows, seed=0)["models"]
    assert (base["measures"]["prompt_strict"]["mean"], base["measures"]["prompt_strict"]["n_unscored"]) == (0.5, 1)
    assert (multi["change"]["n"], multi["change"]["n_unscored"], multi["dropped"]) == (2, 1, False)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match="instruction 'punctuation:none' is unknown"):
        load_prompts(write(tmp_path / "a.jsonl", [NO_COMMA | {"instruction_id_list": ["punctuation:none"]}]))
    with pytest.raises(DataError, match="one for each instruction"):
        load_prompts(write(tmp_path / "b.jsonl", [NO_COMMA | {"kwargs": []}]))
    with pytest.raises(DataError, match="field prompt: is missing"):
        load_prompts(write(tmp_path / "c.jsonl", [{"key": 1}]))


def test_models_answer_once_and_the_report_shows_them(tiny_folder, adapter, judges, tmp_path):
    prompts = write(tmp_path / "p.jsonl", [NO_COMMA, TWO])
    config = EvaluateConfig(
        models=("base=none", f"multi={adapter}"), tasks="none", ifeval=str(prompts),
        ifeval_tokens=6, out=tmp_path / "out", threads=1, judges=judges,
        model=ModelConfig(name=str(tiny_folder), dtype="float32", device="cpu"),
    )  # fmt: skip
    results = evaluate_models(config)
    rows = answer_prompts(config)
    assert [(row["model"], row["key"]) for row in rows] == [("base", 1), ("base", 2), ("multi", 1), ("multi", 2)]
    assert rows[0]["text"] != rows[2]["text"]
    assert results["entries"] == []
    written = (config.out / "ifeval.jsonl").read_bytes()
    assert evaluate_models(config) == results
    assert (config.out / "ifeval.jsonl").read_bytes() == written
    assert is_contest(config.out)
    page = write_contest_report(config.out).read_text(encoding="utf-8")
    assert "IFEval, 2 prompts" in page
    assert tabulate_ability(results["ifeval"]).rows[0][-1] == "the reference"
