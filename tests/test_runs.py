"""The run directory: create, resume, cut back, and survive a crash in the middle of a write."""

import json

import pytest

from comity import runs
from comity.config import TrainConfig, to_plain
from comity.errors import RunError
from comity.types import Check, Completion, Judged, Negotiation, Persona, Scenario, Turn, Verdict

SETTINGS = to_plain(TrainConfig())


def changed(**tables):
    return {key: ({**SETTINGS[key], **value} if isinstance(value, dict) else value)
            for key, value in {**SETTINGS, **tables}.items()}  # fmt: skip


def test_a_new_run_holds_its_settings_and_versions(tmp_path):
    run = tmp_path / "deep" / "run"
    runs.create_run(run, SETTINGS, resume=False)
    written = runs.read_json(run / "config.json")
    assert written["settings"] == SETTINGS
    assert written["versions"].keys() == {"comity", "torch", "transformers", "peft", "numpy"}
    assert all(written["versions"].values())
    assert "commit" in written


def test_an_existing_run_is_not_overwritten(tmp_path):
    runs.create_run(tmp_path, SETTINGS, resume=False)
    with pytest.raises(RunError, match=r"exists: add --resume to continue it, or choose another --run"):
        runs.create_run(tmp_path, SETTINGS, resume=False)


def test_resume_accepts_the_same_settings_and_free_ones(tmp_path):
    runs.create_run(tmp_path, SETTINGS, resume=False)
    before = (tmp_path / "config.json").read_bytes()
    runs.create_run(tmp_path, SETTINGS, resume=True)
    runs.create_run(
        tmp_path,
        changed(resume=True, run="elsewhere", save_every=9, trackers=["wandb"], optimization={"steps": 999}),
        resume=True,
    )
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (changed(seed=1), "seed"),
        (changed(optimization={"learning_rate": 1.0}), "optimization.learning_rate"),
        (changed(negotiation={"dialogue": {**SETTINGS["negotiation"]["dialogue"], "top_p": 0.5}}),
         "negotiation.dialogue.top_p"),
        ({key: value for key, value in SETTINGS.items() if key != "threads"}, "threads"),
    ],
)  # fmt: skip
def test_resume_refuses_other_settings(tmp_path, other, key):
    runs.create_run(tmp_path, SETTINGS, resume=False)
    with pytest.raises(RunError, match=f"was started with another {key}: resume with the same settings"):
        runs.create_run(tmp_path, other, resume=True)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"settings": null}'])
def test_resume_refuses_a_foreign_directory(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config.json: was not written by comity"):
        runs.create_run(tmp_path, SETTINGS, resume=True)


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(RunError, match=r"config.json: cannot be read \(No such file or directory\)"):
        runs.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"settings": ')
    with pytest.raises(RunError, match=r"config.json: is damaged"):
        runs.create_run(tmp_path, SETTINGS, resume=True)
    (tmp_path / "config.json").write_bytes(b'"\xff"')
    with pytest.raises(RunError, match=r"config.json: is damaged"):
        runs.read_json(tmp_path / "config.json")


def test_metrics_are_read_back_in_order(tmp_path):
    assert runs.read_metrics(tmp_path) == []
    rows = [{"step": step, "reward/mean": step / 3} for step in (1, 2, 3)]
    for row in rows:
        runs.append_metrics(tmp_path, row)
    assert runs.read_metrics(tmp_path) == rows


@pytest.mark.parametrize("length", range(1, len('{"step": 3, "x": 0.25}')))
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, length):
    for step in (1, 2):
        runs.append_metrics(tmp_path, {"step": step, "x": 0.25})
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 3, "x": 0.25}'[:length])
    assert [row["step"] for row in runs.read_metrics(tmp_path)] == [1, 2]
    runs.truncate_run(tmp_path, 2)
    runs.append_metrics(tmp_path, {"step": 3, "x": 0.5})
    assert [row["step"] for row in runs.read_metrics(tmp_path)] == [1, 2, 3]


def test_truncate_drops_what_came_after_the_checkpoint(tmp_path):
    for step in range(1, 6):
        runs.append_metrics(tmp_path, {"step": step})
        runs.write_negotiations(tmp_path, step, [{"scenario": f"s{step}"}])
    runs.truncate_run(tmp_path, 3)
    assert [row["step"] for row in runs.read_metrics(tmp_path)] == [1, 2, 3]
    names = sorted(path.name for path in (tmp_path / "negotiations").iterdir())
    assert names == ["step-000001.jsonl", "step-000002.jsonl", "step-000003.jsonl"]
    runs.truncate_run(tmp_path, 0)
    assert runs.read_metrics(tmp_path) == []
    assert list((tmp_path / "negotiations").iterdir()) == []


def test_truncate_before_the_first_step_is_no_error(tmp_path):
    runs.truncate_run(tmp_path, 0)
    assert runs.read_metrics(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": object()})
    assert runs.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    runs.write_json(path, {"a": 1})
    (tmp_path / "summary.json.part").write_text('{"a": 2')  # what a killed process leaves behind
    assert runs.read_json(path) == {"a": 1}
    runs.write_json(path, {"a": 3})
    assert runs.read_json(path) == {"a": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_any_text_in_a_dialogue_comes_back(tmp_path):
    rows = [
        {"text": text}
        for text in ("line\u2028separator", "next\x85line", "\x1c\x1d", "é\U0001f600", "half \ud800", "a\r\nb")
    ]
    runs.write_negotiations(tmp_path, 1, rows)
    assert runs.read_negotiations(tmp_path / "negotiations" / "step-000001.jsonl") == rows
    runs.write_json(tmp_path / "summary.json", rows)
    assert runs.read_json(tmp_path / "summary.json") == rows


def test_missing_and_damaged_dialogues_are_named(tmp_path):
    with pytest.raises(RunError, match=r"none.jsonl: cannot be read"):
        runs.read_negotiations(tmp_path / "none.jsonl")
    (tmp_path / "torn.jsonl").write_text('{"scenario": "s1"}\n{"scen')
    with pytest.raises(RunError, match=r"torn.jsonl: is damaged"):
        runs.read_negotiations(tmp_path / "torn.jsonl")


def test_a_dialogue_becomes_one_plain_row():
    negotiation = Negotiation(
        Scenario(
            "d1/p1", "Who cooks?", "everyday", (Persona("a", "You save."), Persona("b", "You share.")), "dev", "home"
        ),
        sample=2,
        turns=(Turn(0, Completion("I cook.")), Turn(1, Completion("Yes.", finish="length"))),
        checks=(Check(1, True, "same plan", 0.9),),
        ending="agreed",
        completion=Completion("A cooks today."),
    )
    verdict = Verdict("judge", "hash", 3.5, "workable", uncertainty=0.25)
    row = runs.negotiation_row(Judged(negotiation, (verdict,), 3.5, heldout_agreed=True, heldout_score=2.0), 0.5)
    assert json.loads(json.dumps(row)) == row == {
        "scenario": "d1/p1", "dilemma": "Who cooks?", "tier": "everyday", "domain": "home",
        "personas": ["You save.", "You share."], "sample": 2, "ending": "agreed", "rounds": 1,
        "messages": [
            {"seat": 0, "text": "I cook.", "finish": "stop", "tokens": 0},
            {"seat": 1, "text": "Yes.", "finish": "length", "tokens": 0},
        ],
        "checks": [{"round": 1, "agreed": True, "probability": 0.9, "reason": "same plan"}],
        "completion": "A cooks today.", "reward": 3.5, "score": 3.5, "uncertainty": 0.25, "reasons": ["workable"],
        "heldout_agreed": True, "heldout_score": 2.0, "advantage": 0.5, "policy_version": 0,
    }  # fmt: skip


def test_a_dialogue_names_the_policy_that_spoke_in_it():
    def row(*versions):
        turns = [Turn(place % 2, Completion("x", policy_version=version)) for place, version in enumerate(versions)]
        scenario = Scenario("d1", "Who cooks?", "everyday", (), "dev")
        return runs.negotiation_row(Judged(Negotiation(scenario, turns=tuple(turns)), (), None))

    assert row(4, 4, 4)["policy_version"] == 4
    assert row(4, 0, 4)["policy_version"] == 4  # seat 1 is an older policy
    assert row(4, 4, 5)["policy_version"] is None
    assert row()["policy_version"] is None


def test_an_unscored_dialogue_has_no_reward():
    negotiation = Negotiation(Scenario("d1", "Who cooks?", "everyday", (), "dev"), ending="failed")
    row = runs.negotiation_row(Judged(negotiation, (), None))
    assert row["reward"] is row["score"] is row["completion"] is row["advantage"] is None
    assert row["rounds"] == 0
