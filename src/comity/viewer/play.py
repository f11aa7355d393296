"""One negotiation as it is played: models and at most one human in the seats, the judges watching.

The protocol of `comity.negotiation` drives it; the human is one more Responder, whose replies come from a browser.
"""

import asyncio
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from comity.config import NegotiationConfig
from comity.errors import ComityError, ConfigError
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.types import (
    AgreementJudge,
    Completion,
    Judged,
    Negotiation,
    Request,
    Responder,
    RoundEnding,
    Scenario,
    Verdict,
)

HUMAN = "you"
"""The id of the human in place of a model's."""
LONGEST_MESSAGE = 2000
PATIENCE_SECONDS = 1800.0
MOST_RUNNING = 4
MOST_KEPT = 50

Status = Literal["loading", "playing", "judging", "ended", "left", "failed"]


class LeftTable(Exception):
    """The human left or did not answer for too long."""


@dataclass(frozen=True)
class Judges:
    """Who watches a game: the judge of each round, and the judgement at the end."""

    agreement: AgreementJudge
    judge: Callable[[Sequence[Negotiation]], Sequence[Judged]]


@dataclass(frozen=True)
class Table:
    """What a game needs: a responder for each seat, the writer of the joint answer, and the judges."""

    seats: tuple[Responder, Responder]
    writer: Responder
    judges: Judges


class HumanSeat:
    """A Responder that waits for a human's message."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._patience_seconds = patience_seconds
        self._is_awaited = False
        self._lock = threading.Lock()

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one reply a request; raise LeftTable when the human leaves or is silent for too long."""
        return [Completion(self._wait()) for _ in requests]

    def say(self, text: str) -> None:
        """Hand in the human's message; raise ConfigError for an empty or too long one, or one that is not awaited."""
        if not text.strip():
            raise ConfigError("message is empty: write what you propose")
        if len(text) > LONGEST_MESSAGE:
            raise ConfigError(f"message has {len(text)} characters: write at most {LONGEST_MESSAGE}")
        with self._lock:
            if not self._is_awaited:
                raise ConfigError("message came out of turn: wait until the other side has spoken")
            self._is_awaited = False  # the same form sent twice is one message
            self._lines.put(text.strip())

    def leave(self) -> None:
        """Answer the present or next request by leaving."""
        self._lines.put(None)

    def _wait(self) -> str:
        with self._lock:
            self._is_awaited = True
        try:
            text = self._lines.get(timeout=self._patience_seconds)
        except queue.Empty:
            text = None
        if text is None:
            raise LeftTable
        return text


class Game:
    """One negotiation being played in a thread of its own; pages read it at any moment."""

    def __init__(self, scenario: Scenario, names: tuple[str, str], rules: NegotiationConfig, seed: int = 0) -> None:
        self.id = secrets.token_urlsafe(12)
        self.scenario, self.names, self.rules, self.seed = scenario, names, rules, seed
        self.human = HumanSeat()
        self.state = start(scenario)
        self.judged: Judged | None = None
        self.status: Status = "loading"
        self.awaited = ""
        self.draft = ""
        self.problem = ""
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.status in ("ended", "left", "failed")

    @property
    def human_seat(self) -> int | None:
        """Return the seat of the human, None when two models play."""
        return self.names.index(HUMAN) if HUMAN in self.names else None

    @property
    def is_humans_turn(self) -> bool:
        """Tell whether the human's message is awaited."""
        return self.status == "playing" and self.human_seat is not None and self.awaited == f"seat_{self.human_seat}"

    def begin(self, open_table: Callable[[], Table]) -> None:
        """Play in a thread; `open_table` may load models first."""
        threading.Thread(target=self._run, args=(open_table,), daemon=True).start()

    def tell_draft(self, text: str) -> None:
        """Show the message that is being written as far as it has come; raise LeftTable once the game is stopped."""
        if self._stopped.is_set():
            raise LeftTable
        self.draft = text
        self.wake()

    def stop(self) -> None:
        """End the game, at the latest before the next message."""
        self._stopped.set()
        self.human.leave()

    def listen(self) -> asyncio.Event:
        """Return an event of the running loop that is set whenever the game has changed."""
        event = asyncio.Event()
        with self._lock:
            self._listeners.add((asyncio.get_running_loop(), event))
        return event

    def stop_listening(self, event: asyncio.Event) -> None:
        """Forget an event."""
        with self._lock:
            self._listeners = {item for item in self._listeners if item[1] is not event}

    def wake(self) -> None:
        """Set the event of every listener."""
        with self._lock:
            listeners = list(self._listeners)
        for loop, event in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _run(self, open_table: Callable[[], Table]) -> None:
        try:
            table = open_table()
            ended = play(
                [self.state], self.rules, self._responder(table), self._judge(table), self.seed,
                always_complete=True, on_progress=lambda states: self._tell("playing", states[0]),
            )[0]  # fmt: skip
            self._tell("judging", ended)
            self.judged = table.judges.judge([ended])[0]
            self._tell("ended", ended)
        except LeftTable:
            self._tell("left", self.state)
        except ComityError as error:
            self.problem = str(error)
            self._tell("failed", self.state)
        except Exception as error:  # a game that fails must say so on its page; the server goes on
            self.problem = f"{type(error).__name__}: {error}"
            self._tell("failed", self.state)

    def _responder(self, table: Table) -> Responder:
        def respond(requests: Sequence[Request]) -> Sequence[Completion]:
            if self._stopped.is_set():
                raise LeftTable
            target = requests[0].target
            self._tell("playing", self.state, target)
            if target == "summary":
                return table.writer(requests)
            return table.seats[0 if target == "seat_0" else 1](requests)

        return respond

    def _judge(self, table: Table) -> AgreementJudge:
        def judge(endings: Sequence[RoundEnding]) -> Sequence[Verdict]:
            self._tell("playing", self.state, "agreement")
            return table.judges.agreement(endings)

        return judge

    def _tell(self, status: Status, state: Negotiation, awaited: str = "") -> None:
        with self._lock:
            self.status, self.state, self.awaited, self.draft = status, state, awaited, ""
        self.wake()


class GameRoom:
    """The games of a viewer, the oldest ended ones forgotten first."""

    def __init__(self) -> None:
        self.is_closed = False
        self._games: dict[str, Game] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End all games and tell their listeners that nothing more will come."""
        self.is_closed = True
        for game in self.list_games():
            game.stop()
            game.wake()

    def add(self, game: Game) -> None:
        """Take a game in; raise ConfigError when too many are being played."""
        with self._lock:
            running = [known for known in self._games.values() if not known.is_over]
            if len(running) >= MOST_RUNNING:
                raise ConfigError(f"{len(running)} negotiations are being played: end one of them first")
            over = [known.id for known in self._games.values() if known.is_over]
            for old in over[: max(0, len(self._games) + 1 - MOST_KEPT)]:
                del self._games[old]
            self._games[game.id] = game

    def find(self, game_id: str) -> Game | None:
        """Return a game by its id, None when there is none."""
        return self._games.get(game_id)

    def list_games(self) -> list[Game]:
        """Return all games, the newest first."""
        return list(self._games.values())[::-1]
