"""Playing two adapters against each other, with judges that are real models of four tokens' wit."""

import json
import os

import pytest
from safetensors.torch import load_file, save_file

from comity.config import EvaluateConfig, JudgeConfig, ModelConfig, NegotiationConfig
from comity.errors import ModelError
from comity.evaluation.run import evaluate
from comity.evaluation.statistics import MEASURES
from comity.runs import read_json, read_negotiations
from comity.types import Sampling

SIDES = ("before", "after")


@pytest.fixture
def build_config(tiny_folder, judges, tmp_path):
    def build(**changes):
        sampling = Sampling(1.0, 1.0, 6)
        given = {
            "before": "none",
            "after": "none",
            "out": tmp_path / "out",
            "scenarios": 2,
            "samples": 2,
            "threads": 1,
            "model": ModelConfig(name=str(tiny_folder), dtype="float32", device="cpu"),
            "negotiation": NegotiationConfig(rounds=1, dialogue=sampling, completion=sampling),
            "judges": judges,
        }
        return EvaluateConfig(**(given | changes))

    return build


def play(config):
    """Evaluate; return the results and which sides were played."""
    played = []
    results = evaluate(config, lambda name, states: played.append(name))
    return results, sorted(set(played))


def test_the_same_adapter_on_both_sides_gives_differences_of_exactly_0(build_config, adapter):
    config = build_config(before=str(adapter), after=str(adapter))
    comparison = play(config)[0]["comparison"]
    same = {"difference": 0.0, "low": 0.0, "high": 0.0, "n": 4, "n_unscored": 0}
    # The judges say YES and 3 to everything: an agreement after round 1, reward 3.
    assert comparison["agreement_rate"] == {"before": 1.0, "after": 1.0} | same
    assert comparison["reward_mean"] == {"before": 3.0, "after": 3.0} | same
    assert comparison["rounds_mean"] == {"before": 1.0, "after": 1.0} | same
    assert set(comparison) == set(MEASURES)
    before, after = (read_negotiations(config.out / f"{side}.jsonl") for side in SIDES)
    assert before == after


def test_another_adapter_plays_the_same_scenarios_with_other_words(build_config, adapter):
    config = build_config(after=str(adapter))
    play(config)
    before, after = (read_negotiations(config.out / f"{side}.jsonl") for side in SIDES)
    for key in ("scenario", "sample", "personas", "dilemma"):
        assert [row[key] for row in before] == [row[key] for row in after]
    assert [row["messages"] for row in before] != [row["messages"] for row in after]
    assert sorted((row["scenario"], row["sample"]) for row in before) == sorted(
        {(row["scenario"], sample) for row in before for sample in range(2)}
    )
    assert len({row["scenario"] for row in before}) == 2


def test_a_judge_that_talks_nonsense_leaves_everything_unscored(build_config, tiny_folder):
    judges = JudgeConfig(agreement=str(tiny_folder), agency=str(tiny_folder), heldout=False)
    results, _ = play(build_config(judges=judges))
    empty = {"before": None, "after": None, "difference": None, "low": None, "high": None, "n": 0, "n_unscored": 4}
    assert results["comparison"]["agreement_rate"] == empty
    assert results["comparison"]["reward_mean"] == empty
    assert results["comparison"]["rounds_mean"]["difference"] == 0.0


def test_files_are_written(build_config):
    config = build_config()
    results, played = play(config)
    assert played == ["after", "before"]
    assert sorted(path.name for path in config.out.iterdir()) == [
        "after.jsonl", "after.settings.json", "before.jsonl", "before.settings.json", "results.json",
    ]  # fmt: skip
    assert read_json(config.out / "results.json") == results
    assert set(results["signs"]) == set(SIDES)
    for row in read_negotiations(config.out / "before.jsonl"):
        assert (row["ending"], row["reward"], row["rounds"], len(row["messages"])) == ("agreed", 3.0, 1, 2)
        assert row["completion"] is not None


def stamps(config):
    return {side: (config.out / f"{side}.jsonl").stat().st_mtime_ns for side in SIDES}


def test_a_second_call_plays_nothing_again(build_config, adapter):
    config = build_config(after=str(adapter))
    first, _ = play(config)
    before = stamps(config)
    (config.out / "results.json").unlink()
    second, played = play(build_config(after=str(adapter), threads=2))  # threads change nothing that is said
    assert played == []
    assert stamps(config) == before
    assert second == first == read_json(config.out / "results.json")


@pytest.mark.parametrize("change", ["seed", "samples", "rounds", "copy_limit"])
def test_a_changed_setting_plays_both_sides_again(build_config, judges, change):
    play(build_config())
    sampling = Sampling(1.0, 1.0, 6)
    changes = {
        "seed": {"seed": 2},
        "samples": {"samples": 1},
        "rounds": {"negotiation": NegotiationConfig(rounds=2, dialogue=sampling, completion=sampling)},
        "copy_limit": {"judges": JudgeConfig(judges.agreement, judges.agency, heldout=False, copy_limit=0.5)},
    }
    assert play(build_config(**changes[change]))[1] == ["after", "before"]


def test_a_changed_adapter_plays_its_side_again(build_config, adapter, tmp_path):
    config = build_config(after=str(adapter))
    play(config)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in adapter.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert play(build_config(after=str(copy)))[1] == []  # the same bytes elsewhere
    weights = load_file(copy / "adapter_model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, copy / "adapter_model.safetensors")
    assert play(build_config(after=str(copy)))[1] == ["after"]
    assert play(build_config())[1] == ["after"]  # and none is again another


def test_a_torn_side_is_played_again(build_config):
    config = build_config()
    play(config)
    path = config.out / "after.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert play(config)[1] == ["after"]
    assert path.read_bytes() == whole


def test_a_mistyped_adapter_is_named_and_never_taken_for_none(build_config, tmp_path):
    play(build_config())
    with pytest.raises(ModelError, match="has no adapter_config"):
        play(build_config(after=str(tmp_path / "typo")))


def test_a_mistyped_second_adapter_is_named_before_the_first_plays(build_config, tmp_path):
    config = build_config(before="none", after=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="has no adapter_config"):
        play(config)
    assert not (config.out / "before.jsonl").exists()


def test_changed_dilemmas_are_played_again(build_config, tmp_path):
    rows = [
        {"id": f"d{n}", "tier": "everyday", "domain": "water", "dilemma": f"Well {n} is low.", "split": "test"}
        for n in range(2)
    ]
    path = tmp_path / "dilemmas.jsonl"

    def write(texts):
        path.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")

    write(rows)
    config = build_config(dilemmas=str(path))
    play(config)
    assert play(config)[1] == []
    write([row | {"dilemma": row["dilemma"] + " Now!"} for row in rows])
    assert play(config)[1] == ["after", "before"]
    assert all(row["dilemma"].endswith("Now!") for row in read_negotiations(config.out / "before.jsonl"))


@pytest.mark.skipif(os.name == "nt", reason="a folder in a file's place")
def test_a_run_that_breaks_after_its_dialogues_does_not_pass_for_the_one_before(build_config):
    config = build_config()
    play(config)
    block = config.out / "before.settings.json.part"
    block.mkdir()  # the dialogues are written, their settings cannot be
    with pytest.raises(OSError):  # noqa: PT011
        play(build_config(seed=2))
    block.rmdir()
    assert play(config)[1] == ["before"]
