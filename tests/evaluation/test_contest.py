"""Several models on the same tasks: self-play, cross-play, resumption, and one base model under all."""

import dataclasses
import json

import pytest
import torch

from comity.config import AccessConfig, EvaluateConfig, JudgeConfig, ModelConfig, NegotiationConfig
from comity.engines.models import load_model
from comity.errors import ConfigError, DataError, JudgeError, ModelError, RunError
from comity.evaluation.contest import play_contest, require_scored
from comity.evaluation.matches import batch_matches, load_tasks, parse_models, parse_pairs, plan_matches
from comity.evaluation.models import evaluate_models
from comity.evaluation.players import open_players
from comity.types import Request, Sampling
from loopback import MODEL, Act, serve

TASKS = [
    {"id": f"t{n}", "tier": "everyday", "domain": "water", "dilemma": f"Well {n} is low.", "persona_a": "Save it.",
     "persona_b": "Use it."}
    for n in range(2)
]  # fmt: skip


@pytest.fixture
def tasks(tmp_path):
    return write_rows(tmp_path / "tasks.jsonl", TASKS)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def build_config(tiny_folder, judges, tmp_path, tasks, adapter):
    def build(**changes):
        sampling = Sampling(1.0, 1.0, 6)
        given = {
            "models": ("base=none", f"multi={adapter}"),
            "tasks": str(tasks),
            "runs": 2,
            "out": tmp_path / "out",
            "threads": 1,
            "model": ModelConfig(name=str(tiny_folder), dtype="float32", device="cpu"),
            "negotiation": NegotiationConfig(rounds=1, dialogue=sampling, completion=sampling),
            "judges": judges,
        }
        return EvaluateConfig(**(given | changes))

    return build


def words(rows, **wanted):
    return {
        (row["scenario"], row["run"]): [message["text"] for message in row["messages"]]
        for row in rows
        if all(row[key] == value for key, value in wanted.items())
    }


def test_every_model_plays_itself_and_chosen_pairs_each_other(build_config):
    rows = play_contest(build_config(pairs=("multi:base",)))
    # 3 players x 2 tasks x 2 runs.
    assert len(rows) == 12
    assert {(row["model"], row["opponent"]) for row in rows} == {
        ("base", "base"), ("multi", "multi"), ("multi", "base"),
    }  # fmt: skip
    for row in rows:
        assert row["task"] == "conflict"
        assert row["completion"] is not None
        assert row["personas"] == ["Save it.", "Use it."]
    base, multi, cross = (
        words(rows, model=model, opponent=opponent)
        for model, opponent in (("base", "base"), ("multi", "multi"), ("multi", "base"))
    )
    assert base != multi
    # Seat 0 opens, so its first message is the one that it says in self-play; seat 1 is the other model.
    assert {key: texts[0] for key, texts in cross.items()} == {key: texts[0] for key, texts in multi.items()}
    assert cross != multi


def test_players_speak_as_if_each_had_a_model_of_its_own(tiny_folder, adapter, other_adapter):
    settings = ModelConfig(name=str(tiny_folder), dtype="float32", device="cpu")
    request = Request("seat_0", ({"role": "user", "content": "The well is low."},), Sampling(1.0, 1.0, 12), 5)
    folders = {"base": "none", "one": str(adapter), "two": str(other_adapter)}
    apart = {name: open_players(settings, {name: folder}).responders[name] for name, folder in folders.items()}
    expected = {name: apart[name]([request])[0].text for name in folders}
    together = open_players(settings, folders).responders
    assert len({id(player.engine.model) for player in together.values()}) == 1
    assert len(set(expected.values())) == 3
    before = {name: weight.clone() for name, weight in load_model(str(tiny_folder), "float32").named_parameters()}
    for name in ("two", "base", "one", "two", "one", "base"):
        assert together[name]([request])[0].text == expected[name], name
    model = together["base"].engine.model.get_base_model()
    layer = model.get_submodule("model.layers.0.self_attn.q_proj").get_base_layer()
    assert torch.equal(layer.weight, before["model.layers.0.self_attn.q_proj.weight"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_written_is_not_played_again(build_config):
    config = build_config(batch=3)
    rows = play_contest(config)
    path = config.out / "dialogues.jsonl"
    whole = path.read_bytes()
    batches = []
    assert play_contest(config, lambda *told: batches.append(told)) == rows
    assert batches == []
    # Killed in the middle of a row: the torn row and what came after it are played again, to the same words.
    path.write_bytes(whole[: len(whole) * 2 // 3])
    kept = whole[: len(whole) * 2 // 3].count(b"\n")
    again = play_contest(config, lambda players, done, count, states: batches.append((done, count)))
    assert 0 < kept < len(rows)
    assert batches[0] == (kept, len(rows))
    assert path.read_bytes().startswith(b"".join(whole.splitlines(keepends=True)[:kept]))
    assert words(again, model="multi") == words(rows, model="multi")
    assert len(again) == len(rows)


def test_models_runs_and_tasks_can_be_added(build_config, tmp_path, adapter, other_adapter):
    first = play_contest(build_config(runs=1))
    assert len(first) == 4
    questions = write_rows(tmp_path / "questions.jsonl", [{"id": "q1", "question": "How do wells last?"}])
    models = ("base=none", f"multi={adapter}", f"third={other_adapter}")
    rows = play_contest(build_config(models=models, open_ended=str(questions), pairs=("third:base",)))
    assert rows[:4] == first
    # 3 models x 2 tasks x 2 runs, the pair's 2 tasks x 2 runs, 3 models x 1 question x 2 runs: pairs answer none.
    assert len(rows) == 12 + 4 + 6
    solo = [row for row in rows if row["task"] == "open_ended"]
    assert {(row["ending"], row["opponent"] == row["model"]) for row in solo} == {("answered", True)}


def test_other_settings_are_refused_and_nothing_is_lost(build_config, adapter, other_adapter, tasks):
    config = build_config()
    play_contest(config)
    whole = (config.out / "dialogues.jsonl").read_bytes()
    with pytest.raises(RunError, match="another setting seed"):
        play_contest(build_config(seed=7))
    with pytest.raises(RunError, match="another model multi"):
        play_contest(build_config(models=("base=none", f"multi={other_adapter}")))
    write_rows(tasks, [row | {"dilemma": "Changed."} for row in TASKS])
    with pytest.raises(RunError, match="another task conflict"):
        play_contest(config)
    assert (config.out / "dialogues.jsonl").read_bytes() == whole


def test_greedy_decoding_is_played_once_and_says_the_same_to_all_runs(build_config):
    rows = play_contest(build_config(decoding=("greedy", "sampled"), models=("base=none",)))
    assert sorted((row["decoding"], row["run"]) for row in rows) == sorted(
        [("greedy", 0)] * 2 + [("sampled", run) for run in (0, 1) for _ in TASKS]
    )
    sampled = words(rows, decoding="sampled")
    assert sampled[("t0", 0)] != sampled[("t0", 1)]


def test_a_batch_with_too_few_verdicts_is_not_written():
    rows = [{"reward": None}, {"reward": None}, {"reward": 0.0}, {"reward": 3.0}]
    require_scored(rows, 0.5)
    with pytest.raises(JudgeError, match="2 of 4 dialogues"):
        require_scored(rows, 0.4)
    require_scored([], 0.0)


def test_a_missing_adapter_costs_no_dialogue(build_config, tmp_path):
    config = build_config(models=("base=none", f"multi={tmp_path / 'nowhere'}"))
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        play_contest(config)
    assert not config.out.exists()


def test_a_self_judge_is_refused(build_config):
    with pytest.raises(ConfigError, match="name one for all"):
        build_config(judges=JudgeConfig(agency="self"))


@pytest.mark.parametrize("words", [["base"], ["base="], ["a b=none"], ["a/b=none"], ["x=none", "x=warm-start"]])
def test_bad_names_of_models(words):
    with pytest.raises(ConfigError, match="models has"):
        parse_models(words)


def test_pairs_name_known_and_different_models():
    models = parse_models(["a=none", "b=warm-start", "c=x=y"])
    assert models["c"] == "x=y"
    assert parse_pairs(["a:b", "b:a", "a:b"], models) == [("a", "b"), ("b", "a")]
    for bad in ("a", "a:z", "a:a"):
        with pytest.raises(ConfigError, match="pairs has"):
            parse_pairs([bad], models)


def test_batches_share_players_and_decoding(build_config):
    config = build_config(decoding=("greedy", "sampled"), pairs=("base:multi",), batch=3)
    matches = plan_matches(config, load_tasks(config))
    batches = list(batch_matches(matches, 3))
    assert [match for batch in batches for match in batch] == matches
    assert all(len({(m.model, m.opponent, m.decoding) for m in batch}) == 1 for batch in batches)
    # For each of 3 players: 2 greedy dialogues (one batch), 4 sampled ones (3 + 1).
    assert [len(batch) for batch in batches] == [2, 3, 1] * 3


def test_shipped_tasks_load():
    tasks = load_tasks(EvaluateConfig(open_ended="shipped", transfer="shipped"))
    assert {kind: len(scenarios) for kind, scenarios in tasks.items()} == {
        "conflict": 100, "open_ended": 100, "transfer": 60,
    }  # fmt: skip
    case = tasks["transfer"][0]
    assert [persona.objective.split(".")[0] for persona in case.personas] == [
        "You speak for Hawkers' association, led by Lim Siew Fong", "You speak for City transport office",
    ]  # fmt: skip
    assert "Bridge Street residents" in case.dilemma


def test_a_limit_draws_evenly_and_dilemmas_are_answered_alone_too():
    tasks = load_tasks(EvaluateConfig(open_ended="shipped", limit=3, alone=True))
    whole = load_tasks(EvaluateConfig(open_ended="shipped"))
    # 100 tasks, 3 of them: places 0, 100 // 3 = 33 and 200 // 3 = 66.
    for kind in ("conflict", "open_ended"):
        assert tasks[kind] == [whole[kind][place] for place in (0, 33, 66)]
    assert [scenario.dilemma for scenario in tasks["conflict_alone"]] == [s.dilemma for s in tasks["conflict"]]
    assert {scenario.personas for scenario in tasks["conflict_alone"]} == {()}
    assert load_tasks(EvaluateConfig(limit=1000)) == {"conflict": whole["conflict"]}


def test_models_answer_conflict_tasks_alone(build_config, tmp_path):
    rows = play_contest(build_config(alone=True, runs=1))
    assert sorted((row["model"], row["task"], row["scenario"]) for row in rows) == [
        (model, task, name)
        for model in ("base", "multi")
        for task in ("conflict", "conflict_alone")
        for name in ("t0", "t1")
    ]
    assert {(row["ending"], len(row["messages"])) for row in rows if row["task"] == "conflict_alone"} == {
        ("answered", 1)
    }
    told = [json.loads(line) for line in (tmp_path / "out" / "seconds.jsonl").read_text().splitlines()]
    assert [(row["players"], row["dialogues"]) for row in told] == [("base, sampled", 4), ("multi, sampled", 4)]
    assert all(row["seconds"] > 0 for row in told)


def test_bad_tasks_are_named(tmp_path, build_config):
    with pytest.raises(ConfigError, match="all none"):
        load_tasks(build_config(tasks="none"))
    questions = write_rows(tmp_path / "q.jsonl", [{"id": "q1", "question": "Why?"}])
    with pytest.raises(ConfigError, match="holds other tasks"):
        load_tasks(build_config(tasks=str(questions)))
    broken = write_rows(tmp_path / "b.jsonl", [TASKS[0], {key: TASKS[1][key] for key in ("id", "tier", "dilemma")}])
    with pytest.raises(DataError, match="line 2"):
        load_tasks(build_config(tasks=str(broken)))


def test_a_model_behind_an_address_plays_beside_local_ones(build_config, tmp_path, monkeypatch):
    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0, backoff_seconds=0)
    config = build_config(models=("base=none", f"server={MODEL}"), pairs=("server:base",), runs=1, access=access)
    with serve(lambda call: Act("text", "Share the well.", finish="length")) as server:
        server.point(monkeypatch)
        rows = play_contest(config)
        asked = len(server.calls)
        assert play_contest(config) == rows
        assert len(server.calls) == asked
    alone = [row for row in rows if (row["model"], row["opponent"]) == ("server", "server")]
    assert [[m["text"] for m in row["messages"]] for row in alone] == [["Share the well."] * 2] * 2
    # A message that ran into its limit is one all the same, and says so.
    assert {m["finish"] for row in alone for m in row["messages"]} == {"length"}
    assert {row["completion"] for row in alone} == {"Share the well."}
    crossed = [row for row in rows if (row["model"], row["opponent"]) == ("server", "base")]
    assert all(row["messages"][0]["text"] == "Share the well." != row["messages"][1]["text"] for row in crossed)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["models"]["server"] == MODEL


def test_dialogues_of_a_server_that_is_away_are_not_written(build_config, tmp_path, monkeypatch):
    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0, backoff_seconds=0)
    config = build_config(models=(f"server={MODEL}",), runs=1, access=access)
    with serve(lambda call: Act("status", status=500)) as server:
        server.point(monkeypatch)
        with pytest.raises(JudgeError, match="2 of 2 dialogues of a batch have no"):
            play_contest(config)
    assert not (config.out / "dialogues.jsonl").exists()
    with serve(lambda call: "Share it.") as server:
        server.point(monkeypatch)
        assert len(play_contest(config)) == 2


def test_pairs_are_compared_by_a_judge_behind_an_address(build_config, judges, tmp_path, monkeypatch):
    config = build_config(
        judges=dataclasses.replace(judges, preference=MODEL),
        access=AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0),
    )
    with serve(lambda call: "TIE") as server:
        server.point(monkeypatch)
        results = evaluate_models(config)
        evaluate_models(config)
    assert results["preference_judge"] == MODEL
    (rate,) = results["entries"][0]["win_rates"]
    # 2 tasks x 2 runs, each pair in both orders.
    assert (rate["ties"], rate["wins"], rate["inconsistent"], rate["rate"]) == (4, 0, 0, 0.5)
    assert len(server.calls) <= 8
    assert set(server.counts().values()) == {1}
