"""A negotiation played in the viewer: a human in a seat, two models, refusals, the stream of events."""

import json
import threading

import pytest
from loopback_viewer import serve_viewer
from made_runs import ScriptedCast, make_run, open_viewer, post, read_lines

from comity.config import NegotiationConfig
from comity.errors import ConfigError, ModelError
from comity.types import Request, Sampling, Scenario
from comity.viewer.cast import LocalCast
from comity.viewer.library import Library
from comity.viewer.play import HUMAN, Game, HumanSeat, LeftTable
from comity.viewer.settings import ViewConfig

START = {"dilemma": "Who waters the plants?", "goal_a": "Rest.", "goal_b": "Green plants.", "rounds": "2"}
REQUEST = Request("seat_0", (), Sampling(), 0)


def read_events(server, game_path, after=0):
    """Yield the data of each event of a game until its last one."""
    with server.client.stream("GET", f"{game_path}/events?after={after}") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


@pytest.fixture
def runs(tmp_path):
    """Return the folder of one small run."""
    make_run(tmp_path / "runs" / "small", steps=1)
    return tmp_path / "runs"


def test_a_human_waits_says_and_leaves():
    seat = HumanSeat(patience_seconds=5.0)
    with pytest.raises(ConfigError, match="out of turn"):
        seat.say("Too early.")
    replies = []
    thread = threading.Thread(target=lambda: replies.extend(seat([REQUEST])))
    thread.start()
    while True:
        try:
            seat.say("  Half for each. ")
            break
        except ConfigError:
            continue  # the thread has not asked yet
    thread.join(5)
    assert [reply.text for reply in replies] == ["Half for each."]
    with pytest.raises(ConfigError, match="out of turn"):
        seat.say("Twice.")
    seat.leave()
    with pytest.raises(LeftTable):
        seat([REQUEST])


def test_a_silent_human_has_left():
    with pytest.raises(LeftTable):
        HumanSeat(patience_seconds=0.01)([REQUEST])


@pytest.mark.parametrize(("text", "words"), [(" ", "is empty"), ("x" * 2001, "has 2001 characters")])
def test_messages_that_do_not_fit_are_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        HumanSeat().say(text)


def test_a_human_plays_to_the_end(runs, tmp_path):
    # Round 1: no agreement; round 2: agreement, joint answer by the model, score 4.
    decisions = iter([False, True])
    cast = ScriptedCast(decisions=lambda ending: next(decisions))
    with serve_viewer(runs, tmp_path / "cache", cast) as server:
        game = server.post("/play", seat_a="you", seat_b="one", **START)
        events, said = [], 0
        for event in read_events(server, game):
            events.append(event)
            if event["turn"] and said < 2:
                said += 1
                server.post(f"{game}/say", message=f"My offer number {said}.")
        row = read_lines(server.client.get(f"{game}/row.jsonl").text)[0]
        page = server.client.get(game).text
    assert [message["text"] for message in row["messages"]] == [
        "My offer number 1.", "I propose as seat_1.", "My offer number 2.", "I propose as seat_1.",
    ]  # fmt: skip
    assert [check["agreed"] for check in row["checks"]] == [False, True]
    assert (row["ending"], row["completion"], row["reward"]) == ("agreed", "I propose as summary.", 4.0)
    moves = [move for event in events for move in event["moves"]]
    assert len(moves) == 7  # four messages, two words of the judge, the end
    assert "My offer number 1." in moves[0]
    assert "4.00" in moves[-1]
    assert events[-1]["over"]
    assert "It is over." in page


def test_two_models_are_watched_and_the_stream_goes_on_where_it_broke_off(runs, tmp_path):
    with serve_viewer(runs, tmp_path / "cache", ScriptedCast()) as server:
        game = server.post("/play", seat_a="one", seat_b="two", **START)
        everything = [move for event in read_events(server, game) for move in event["moves"]]
        rest = [move for event in read_events(server, game, after=2) for move in event["moves"]]
    assert len(everything) == 4
    assert rest == everything[2:]


def test_a_game_that_cannot_load_says_so(runs, tmp_path):
    class BrokenCast(ScriptedCast):
        def open_table(self, game):
            raise ModelError("adapter x does not fit the model: choose another")

    with serve_viewer(runs, tmp_path / "cache", BrokenCast()) as server:
        game = server.post("/play", seat_a="one", seat_b="two", **START)
        last = list(read_events(server, game))[-1]
    assert last["status"] == "It failed: adapter x does not fit the model: choose another"


def test_leaving_ends_the_game(runs, tmp_path):
    with serve_viewer(runs, tmp_path / "cache", ScriptedCast()) as server:
        game = server.post("/play", seat_a="you", seat_b="one", **START)
        for event in read_events(server, game):
            if event["turn"]:
                server.post(f"{game}/leave")
            last = event
    assert last["status"] == "It was ended early."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dilemma": " "}, "dilemma is empty"),
        ({"goal_b": "x" * 4001}, "goal of B has 4001 characters"),
        ({"seat_a": "nobody"}, "choose a player of the list"),
        ({"seat_a": "you", "seat_b": "you"}, "both seats are yours"),
        ({"rounds": "0"}, "rounds is 0: choose 1 to 20"),
    ],
)
def test_a_start_that_does_not_fit_keeps_what_was_written(runs, tmp_path, change, words):
    client = open_viewer(runs, tmp_path / "cache")
    answer = post(client, "/play", **{**START, "seat_a": "you", "seat_b": "one", **change})
    assert answer.status_code == 422
    assert words in answer.text
    assert change.get("dilemma", START["dilemma"]).strip() in answer.text


def test_at_most_four_games_are_played_at_once(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    fields = {**START, "seat_a": "you", "seat_b": "one"}
    games = [post(client, "/play", **fields).headers["location"] for _ in range(4)]
    assert "4 negotiations are being played" in post(client, "/play", **fields).text
    for game in games:
        post(client, f"{game}/leave")


def test_hostile_words_of_a_player_stay_words(runs, tmp_path):
    cast = ScriptedCast(lines=lambda request: "<script>alert(1)</script>")
    with serve_viewer(runs, tmp_path / "cache", cast) as server:
        game = server.post("/play", seat_a="one", seat_b="two", **START)
        moves = [move for event in read_events(server, game) for move in event["moves"]]
        page = server.client.get(game).text
    assert all("<script" not in move for move in moves)
    assert "&lt;script&gt;alert(1)" in moves[0]
    assert "<script>alert" not in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_embedded_model_answers_a_human_and_the_shipped_judges_score(runs, tmp_path):
    sampling = Sampling(0.7, 0.95, 12)
    rules = NegotiationConfig(dialogue=sampling, completion=sampling)
    config = ViewConfig(negotiation=rules, threads=1)
    cast = LocalCast(Library(runs), config)
    assert [player.id for player in cast.list_players()] == ["model", "adapted"]
    with serve_viewer(runs, tmp_path / "cache", cast, negotiation=rules) as server:
        game = server.post("/play", **{**START, "rounds": "1"}, seat_a="you", seat_b="model")
        drafts = []
        for event in read_events(server, game):
            drafts += [event["draft"]] if event["writer"] == "B" and event["draft"] else []
            if event["turn"]:
                server.post(f"{game}/say", message="I water them on Mondays, you on Fridays.")
        row = read_lines(server.client.get(f"{game}/row.jsonl").text)[0]
    assert [message["tokens"] > 0 for message in row["messages"]] == [False, True]
    # The message was there in parts before it was whole.
    assert all(row["messages"][1]["text"].startswith(draft) for draft in drafts)
    assert len(set(drafts)) > 1
    assert row["ending"] in ("agreed", "no_agreement")
    assert 0 <= row["score"] <= 5
    assert 0 <= row["checks"][0]["probability"] <= 1


def test_checkpoints_of_runs_can_sit_down(tmp_path):
    run = make_run(tmp_path / "runs" / "one", steps=1)
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-x", "checkpoint-3"):
        (run / name).mkdir()
        if name != "checkpoint-3":  # still being written
            (run / name / "adapter_config.json").write_text("{}")
    cast = LocalCast(Library(tmp_path / "runs"), ViewConfig())
    assert [player.id for player in cast.list_players()] == ["model", "adapted", "one@10", "one@2"]
    game = Game(Scenario("live", "?", "everyday", (), "test"), ("one@4", HUMAN), NegotiationConfig())
    with pytest.raises(ConfigError, match="player 'one@4' is not here"):
        cast.open_table(game)


def test_a_stopped_game_breaks_off_the_message_that_is_written():
    game = Game(Scenario("live", "?", "everyday", (), "test"), ("one", "two"), NegotiationConfig())
    game.tell_draft("I prop")
    assert game.draft == "I prop"
    game.stop()
    with pytest.raises(LeftTable):
        game.tell_draft("I propose")


def test_an_unknown_game_is_not_found(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    assert client.get("/play/nothing").status_code == 404
    assert client.get("/play/nothing/events").status_code == 404
