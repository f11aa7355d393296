"""Pages to play: start a negotiation, take a seat or watch, message by message as it happens."""

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comity.errors import ConfigError
from comity.runs import negotiation_row
from comity.scenarios.load import draw_scenarios, load_dilemmas, load_persona_pairs
from comity.types import Judged, Persona, Scenario
from comity.viewer import pages
from comity.viewer.dialogue import SEAT_NAMES, Dialogue, Round, Rules, Speech, lay_out
from comity.viewer.play import HUMAN, LONGEST_MESSAGE, Game
from comity.viewer.state import viewer_of

router = APIRouter()

LONGEST_TEXT = 4000
MOST_ROUNDS = 20
WRITERS = {"seat_0": "A", "seat_1": "B", "summary": "Joint answer"}


def require_game(request: Request, game_id: str) -> Game:
    """Return the game of an id; raise 404 when there is none."""
    game = viewer_of(request).games.find(game_id)
    if game is None:
        raise HTTPException(404, "There is no such negotiation; the viewer keeps them while it runs.")
    return game


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that happened: a message, a word of the judge, or the end; the fields of the others are None."""

    speech: Speech | None = None
    check: Round | None = None
    verdict: Dialogue | None = None


@router.get("/play")
def show_start(request: Request, draw: int = 0) -> Response:
    """Show the form that starts a negotiation, filled with a shipped dilemma, and the games so far."""
    scenario = draw_scenarios(load_dilemmas("shipped", "test"), load_persona_pairs(), abs(draw) % 10_000, 1, 0)[0]
    return pages.render(request, "play.html.j2", _start_context(request, scenario, (HUMAN, "")))


@router.post("/play")
def start_game(
    request: Request,
    dilemma: Annotated[str, Form()] = "",
    goal_a: Annotated[str, Form()] = "",
    goal_b: Annotated[str, Form()] = "",
    seat_a: Annotated[str, Form()] = "",
    seat_b: Annotated[str, Form()] = "",
    rounds: Annotated[int, Form()] = 3,
) -> Response:
    """Start a negotiation and go to its page; show the form again with what was written when something does not fit."""
    scenario = Scenario("live", dilemma.strip(), "everyday", (Persona("A", goal_a), Persona("B", goal_b)), "test")
    viewer = viewer_of(request)
    try:
        _check_texts({"dilemma": dilemma, "goal of A": goal_a, "goal of B": goal_b})
        if not 1 <= rounds <= MOST_ROUNDS:
            raise ConfigError(f"rounds is {rounds}: choose 1 to {MOST_ROUNDS}")
        known = {HUMAN, *(player.id for player in viewer.cast.list_players())}
        if seat_a not in known or seat_b not in known:
            raise ConfigError("seat: choose a player of the list")
        if seat_a == seat_b == HUMAN:
            raise ConfigError("both seats are yours: give one of them to a model")
        config = viewer.config
        game = Game(scenario, (seat_a, seat_b), replace(config.negotiation, rounds=rounds), config.seed)
        viewer.games.add(game)
    except ConfigError as error:
        context = _start_context(request, scenario, (seat_a, seat_b))
        return pages.render(request, "play.html.j2", {**context, "problem": str(error), "rounds": rounds}, 422)
    game.begin(lambda: viewer.cast.open_table(game))
    return RedirectResponse(f"/play/{game.id}", 303)


@router.get("/play/{game_id}")
def show_game(request: Request, game_id: str) -> Response:
    """Show a game as far as it has come."""
    game = require_game(request, game_id)
    labels = {player.id: player.label for player in viewer_of(request).cast.list_players()}
    context = {
        "game": game,
        "moves": list_moves(game),
        "status": describe_status(game),
        "row": {"personas": [persona.objective for persona in game.scenario.personas]},
        "labels": [labels.get(name, "you") for name in game.names],
        "longest": LONGEST_MESSAGE,
    }
    return pages.render(request, "game.html.j2", context)


@router.get("/play/{game_id}/events", response_class=EventSourceResponse)
async def stream_game(
    request: Request,
    game: Annotated[Game, Depends(require_game)],
    after: int = 0,
    last_event_id: Annotated[int | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens after the first `after` moves, each as the HTML of its move, until the game is over."""
    sent = last_event_id if last_event_id is not None else after
    event, told = game.listen(), None
    try:
        while True:
            event.clear()
            is_over, draft = game.is_over, game.draft
            moves = list_moves(game)
            news = [pages.render_text("move.html.j2", {"move": move}) for move in moves[sent:]]
            sent = len(moves)
            state = {
                "status": describe_status(game), "turn": game.is_humans_turn, "over": is_over,
                "writer": WRITERS.get(game.awaited, ""), "draft": draft,
            }  # fmt: skip
            if news or state != told:  # told twice, a turn would be answered twice
                yield ServerSentEvent(data={"moves": news, **state}, event="change", id=str(sent))
            told = state
            if is_over or viewer_of(request).games.is_closed:
                return
            await event.wait()
    finally:
        game.stop_listening(event)


@router.post("/play/{game_id}/say")
def say(request: Request, game_id: str, message: Annotated[str, Form()] = "") -> Response:
    """Hand in the human's message."""
    game = require_game(request, game_id)
    if game.is_over:
        raise HTTPException(409, "This negotiation is over.")
    game.human.say(message)
    return RedirectResponse(f"/play/{game_id}", 303)


@router.post("/play/{game_id}/leave")
def leave(request: Request, game_id: str) -> Response:
    """End a game before its time."""
    require_game(request, game_id).stop()
    return RedirectResponse(f"/play/{game_id}", 303)


@router.get("/play/{game_id}/row.jsonl")
def download_game(request: Request, game_id: str) -> Response:
    """Return a game as a negotiation row, as run directories hold them."""
    line = json.dumps(_row(require_game(request, game_id)), ensure_ascii=False) + "\n"
    headers = {"content-disposition": 'attachment; filename="negotiation.jsonl"'}
    return Response(line.encode("utf-8", "backslashreplace"), media_type="application/jsonl", headers=headers)


def list_moves(game: Game) -> list[Move]:
    """Return what has happened in a game, in order; the end comes once it is judged."""
    rules = Rules(game.rules) if game.is_over else Rules()
    dialogue = lay_out(_row(game), rules)
    moves = []
    for item in dialogue.rounds:
        moves += [Move(speech=speech) for speech in item.speeches]
        if item.check is not None:
            moves.append(Move(check=item))
    return [*moves, Move(verdict=dialogue)] if game.judged is not None else moves


def describe_status(game: Game) -> str:
    """Return in words what a game waits for."""
    if game.status == "failed":
        return f"It failed: {game.problem}"
    if game.status == "playing":
        if game.is_humans_turn:
            return f"Your turn, as {SEAT_NAMES[game.human_seat or 0]}."
        words = {"seat_0": "A is writing.", "seat_1": "B is writing.", "summary": "The joint answer is being written."}
        return words.get(game.awaited, "The judge is reading.")
    return {
        "loading": "Loading the models.",
        "judging": "The answer is being scored.",
        "ended": "It is over.",
        "left": "It was ended early.",
    }[game.status]


def _row(game: Game) -> dict[str, Any]:
    return negotiation_row(game.judged or Judged(game.state, (), None))


def _start_context(request: Request, scenario: Scenario, seats: tuple[str, str]) -> dict[str, Any]:
    viewer = viewer_of(request)
    players = viewer.cast.list_players()
    return {
        "scenario": scenario,
        "seats": (seats[0] or HUMAN, seats[1] or players[min(1, len(players) - 1)].id),
        "players": players,
        "human": HUMAN,
        "games": [(game, describe_status(game)) for game in viewer.games.list_games()],
        "rounds": min(viewer.config.negotiation.rounds, MOST_ROUNDS),
        "next_draw": random.randrange(1, 10_000),
        "problem": "",
        "longest": LONGEST_TEXT,
    }


def _check_texts(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise ConfigError(f"{name} is empty: write it")
        if len(text) > LONGEST_TEXT:
            raise ConfigError(f"{name} has {len(text)} characters: write at most {LONGEST_TEXT}")
