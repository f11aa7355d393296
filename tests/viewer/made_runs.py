"""Run directories written by `comity.runs` from made negotiations, a scripted cast, and clients of the viewer."""

import json
import re
from collections.abc import Sequence

import numpy as np
from starlette.testclient import TestClient

from comity.config import TrainConfig, to_plain
from comity.engines.scripted import scripted_judge, scripted_responder
from comity.runs import append_metrics, negotiation_row, write_json, write_negotiations
from comity.scenarios.rows import write_rows
from comity.types import Check, Completion, Judged, Negotiation, Persona, Scenario, Turn, Verdict
from comity.viewer.app import build_app
from comity.viewer.cast import Player
from comity.viewer.play import HUMAN, Judges, Table
from comity.viewer.settings import ViewConfig

LOGPROBS = np.array([-0.01, -0.3, -1.0, -2.0, -3.0, -4.0, -9.0], np.float32)
"""One of each shade."""
PERSONAS = (Persona("A", "You count costs."), Persona("B", "You count people."))


def sampled(text):
    """Return a completion as a local engine gives it."""
    return Completion(text, token_ids=np.arange(7, dtype=np.int32), logprobs=LOGPROBS)


def judge_made(scenario_id, sample, reward, texts=("Half for each.", "I accept half.")):
    """Return a judged negotiation of seven tokens a message; reward 0 is no agreement, None is unscored."""
    agreed = reward is None or reward > 0
    scenario = Scenario(scenario_id, f"Who gets the garden of {scenario_id}?", "everyday", PERSONAS, "train", "home")
    negotiation = Negotiation(
        scenario=scenario,
        sample=sample,
        turns=tuple(Turn(place % 2, sampled(text)) for place, text in enumerate(texts)),
        checks=(Check(1, agreed, "", 0.9 if agreed else 0.1),),
        ending="agreed" if agreed else "no_agreement",
        completion=Completion(f"They share the garden, says sample {sample}.") if agreed else None,
    )
    verdicts = (Verdict("made", "", reward, "clear and fair", uncertainty=0.5),) if agreed else ()
    return Judged(negotiation, verdicts, reward, heldout_agreed=agreed, heldout_score=2.0 if agreed else None)


def write_step(run, step, reward_mean=1.0, scenarios=2):
    """Write a step: its dialogues, two scenarios with rewards 0, 1, 2 and unscored each, then its metrics.

    The first step has its tokens stored.
    """
    token_text = (lambda token: f" t{token}") if step == 1 else None
    moved = LOGPROBS - np.array([0.0, 0.1, -0.3, -1.0, 0.1, -0.3, 1.0], np.float32)
    rows = [
        negotiation_row(
            judge_made(f"day-{step:03d}/pair-{place}", sample, reward), float(sample - 1), token_text, [moved, moved]
        )
        for place in range(scenarios)
        for sample, reward in enumerate((0.0, 1.0, 2.0, None))
    ]
    write_negotiations(run, step, rows)
    append_metrics(
        run,
        {
            "step": float(step), "reward/mean": reward_mean, "reward/group_min": 0.0, "reward/group_mean": reward_mean,
            "reward/group_max": 2.0, "agreement/rate": 0.5, "agreement/heldout_rate": 0.25, "time/step_seconds": 1.0,
            "spend/judge_usd": 0.01 * step,
        },
    )  # fmt: skip


def make_run(run, steps=3, seed=0, **settings):
    """Write a run of so many steps of ten planned."""
    config = to_plain(TrainConfig(run=run, seed=seed))
    config["optimization"] |= {"steps": 10}
    write_json(run / "config.json", {"settings": config | settings, "commit": "abc", "versions": {"comity": "0.1.0"}})
    for step in range(1, steps + 1):
        write_step(run, step)
    return run


def add_evaluation(run, count=3):
    """Write both sides of an evaluation: the reward of scenario i rises by i."""
    for side, gain in (("before", 0), ("after", 1)):
        rows = [negotiation_row(judge_made(f"test-{i}/pair-0", 0, 1.0 + gain * i)) for i in range(count)]
        write_rows(run / "evaluation" / f"{side}.jsonl", rows)


class ScriptedCast:
    """Players and judges that follow a script; `lines` is a function of the request or a list shared by all."""

    def __init__(
        self, lines=lambda request: f"I propose as {request.target}.", decisions=lambda ending: True, score=4.0
    ):
        self.lines, self.decisions, self.score = lines, decisions, score

    def list_players(self):
        """Return two players."""
        return [Player("one", "scripted one"), Player("two", "scripted two")]

    def open_table(self, game):
        """Return the script in every seat but the human's."""
        model = scripted_responder(self.lines)
        seats = tuple(game.human if name == HUMAN else model for name in game.names)
        return Table(seats, model, Judges(scripted_judge(self.decisions), self.judge))

    def judge(self, negotiations: Sequence[Negotiation]):
        """Give every agreed negotiation the same score."""
        verdict = Verdict("scripted", "", self.score)
        return [Judged(item, (verdict,), self.score if item.ending == "agreed" else 0.0) for item in negotiations]


def open_viewer(root, cache, cast=None, **settings):
    """Return a client of the viewer of the runs below `root`."""
    app = build_app(root, ViewConfig(cache=str(cache), **settings), cast or ScriptedCast())
    return TestClient(app, base_url="http://localhost", follow_redirects=False)


def csrf_of(client, path="/"):
    """Return the token that the forms of a page carry."""
    return re.search(r'name="csrf" content="([0-9a-f]+)"', client.get(path).text)[1]


def post(client, path, **fields):
    """Send a form as a page of the viewer would."""
    return client.post(path, data={"csrf": csrf_of(client), **fields})


def read_lines(text):
    """Return the rows of a JSONL text."""
    return [json.loads(line) for line in text.split("\n") if line]
