"""Who can sit down to negotiate: the embedded model, and every checkpoint of the runs; loaded when first asked for."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from comity.config import ModelConfig, build
from comity.errors import ComityError, ConfigError
from comity.types import Completion, Judged, Negotiation, Request, Responder, RoundEnding, Verdict
from comity.viewer.library import Library, read_settings
from comity.viewer.play import HUMAN, Game, Judges, Table
from comity.viewer.settings import ViewConfig

if TYPE_CHECKING:
    from comity.engines.local import LocalEngine
    from comity.judges.panel import Panel

KEPT_MODELS = 2
"""Models in memory at once, beside the one that the judges read."""

BOOKED_UNDER = "view"
"""What the ledger books judges behind an address under."""


@dataclass(frozen=True, slots=True)
class Player:
    """Somebody who can sit down; a browser names it by `id`, which is looked up and never becomes a path."""

    id: str
    label: str


class Cast(Protocol):
    """Who can play, and how they are brought to a table."""

    def list_players(self) -> list[Player]:
        """Return everybody who can sit down, without the human."""

    def open_table(self, game: Game) -> Table:
        """Return responders and judges for a game; may load models. Raise ComityError when one cannot be had."""


class LocalCast:
    """The models of this machine: the viewer's own model with and without adapter, and the checkpoints of the runs."""

    def __init__(self, library: Library, config: ViewConfig) -> None:
        self._library, self._config = library, config
        self._engines: OrderedDict[ModelConfig, LocalEngine] = OrderedDict()
        self._panel: Panel | None = None
        # One computation at a time: two would slow each other down and need twice the memory.
        self._lock = threading.RLock()

    def list_players(self) -> list[Player]:
        """Return the viewer's model first, then the checkpoints, newest of each run first."""
        return [Player(player_id, label) for player_id, (label, _) in self._choices().items()]

    def open_table(self, game: Game) -> Table:
        """Load the models of a game; raise ConfigError for a player who is not there."""
        choices = self._choices()
        if game.names == (HUMAN, HUMAN):
            raise ConfigError("both seats are yours: give one of them to a model")
        models = []
        for name in game.names:
            if name != HUMAN and name not in choices:
                raise ConfigError(f"player {name!r} is not here: choose one of the list")
            models.append(None if name == HUMAN else choices[name][1])
        with self._lock:
            panel = self._load_panel()
            seats = [game.human if model is None else self._seat(model, game) for model in models]
        writer = next(seat for seat, model in zip(seats, models, strict=True) if model is not None)
        return Table((seats[0], seats[1]), writer, self._judges(panel))

    def _choices(self) -> dict[str, tuple[str, ModelConfig]]:
        own = self._config.model
        choices = {"model": (f"{own.name}, no adapter", dataclasses.replace(own, adapter="none"))}
        if own.adapter != "none" or own.name == "embedded":
            adapter = own.adapter if own.adapter != "none" else "warm-start"
            choices["adapted"] = (f"{own.name}, {adapter}", dataclasses.replace(own, adapter=adapter))
        for entry in self._library.entries():
            try:
                settings = build(ModelConfig, dict(read_settings(entry.path).get("model", {})), "model.")
            except ComityError:
                continue  # a run of another version can be looked at, not played with
            found = [path for path in entry.path.glob("checkpoint-*") if (path / "adapter_config.json").is_file()]
            steps = {int(path.name.removeprefix("checkpoint-")): path for path in found if path.name[11:].isdecimal()}
            for step in sorted(steps, reverse=True):
                model = dataclasses.replace(settings, adapter=str(steps[step]))
                choices[f"{entry.id}@{step}"] = (f"{entry.id}, checkpoint {step}", model)
        return choices

    def _seat(self, model: ModelConfig, game: Game) -> Responder:
        def respond(requests: Sequence[Request]) -> Sequence[Completion]:
            with self._lock:
                return self._load(model).answer(requests, lambda _, text: game.tell_draft(text))

        self._load(model)  # what cannot be loaded is told before the game begins
        return respond

    def _load(self, model: ModelConfig) -> "LocalEngine":
        from comity.engines.local import LocalEngine
        from comity.engines.models import load_tokenizer
        from comity.evaluation.run import load_adapted

        if model not in self._engines:
            while len(self._engines) >= KEPT_MODELS:
                self._engines.popitem(last=False)
            weights = load_adapted(model, model.adapter)
            self._engines[model] = LocalEngine(weights, load_tokenizer(model.name), model.thinking)
        self._engines.move_to_end(model)
        return self._engines[model]

    def _load_panel(self) -> "Panel":
        from comity.engines.local import LocalEngine
        from comity.engines.models import load_model, load_tokenizer
        from comity.judges.panel import build_panel

        if self._panel is None:
            if self._config.threads:
                import torch

                torch.set_num_threads(self._config.threads)
            base = ModelConfig()
            engine = LocalEngine(load_model(base.name), load_tokenizer(base.name))
            self._panel = build_panel(self._config.judges, engine, base, self._config.access, BOOKED_UNDER)
        return self._panel

    def _judges(self, panel: "Panel") -> Judges:
        def agreement(endings: Sequence[RoundEnding]) -> Sequence[Verdict]:
            with self._lock:
                return panel.agreement(endings)

        def judge(negotiations: Sequence[Negotiation]) -> Sequence[Judged]:
            with self._lock:
                return panel.judge(negotiations)

        return Judges(agreement, judge)
