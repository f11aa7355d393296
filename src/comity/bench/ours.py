"""comity as a contender: the engine, the update and the judges as training uses them."""

from collections.abc import Callable, Sequence

from comity.bench.outcomes import Contender, Outcome, Stopwatch
from comity.bench.settings import BenchSettings
from comity.bench.work import (
    Row,
    collect_rows,
    draw_dialogues,
    forbid_stopping,
    make_turn_samples,
    negotiation_rules,
    never_agree,
    optimization_settings,
    write_dialogues,
)
from comity.config import ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_tokenizer
from comity.negotiation.lockstep import play
from comity.training.policy import PolicyOptimizer, load_policy
from comity.training.update import update_policy
from comity.types import Negotiation


def load_engine(settings: BenchSettings) -> LocalEngine:
    """Load the policy with a fresh adapter and an engine whose texts do not end early."""
    model = load_policy(ModelConfig(name=settings.model, dtype=settings.dtype, device="cpu"))  # type: ignore[arg-type]
    tokenizer = load_tokenizer(settings.model)
    forbid_stopping(model, tokenizer)
    return LocalEngine(model, tokenizer)


def write_rows(settings: BenchSettings, engine: LocalEngine) -> list[Row]:
    """Return all messages of dialogues whose texts are written beforehand instead of sampled."""
    played = write_dialogues(settings, engine.tokenizer, engine.encode_chat)
    return collect_rows(settings, played)


def open_ours(settings: BenchSettings) -> Contender:
    """Return what does the work of the settings with comity itself."""
    opens = {"rollout": open_rollout, "update": open_update, "step": open_step}
    return opens[settings.measured](settings, load_engine(settings))


def open_rollout(settings: BenchSettings, engine: LocalEngine) -> Contender:
    """Return what plays all dialogues through the engine; the adapter is folded in for every batch, as in training."""
    dialogues = draw_dialogues(settings, engine.encode_chat)

    def run(repeat: int, _: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("rollout"):
            played = _play(settings, engine, dialogues, repeat)
        rows = collect_rows(settings, played)
        return Outcome(watch.parts, sum(len(row.tokens) for row in rows), rows)

    return run


def open_update(settings: BenchSettings, engine: LocalEngine) -> Contender:
    """Return what trains once on written messages of the wanted length; the tokens of prompts count too."""
    rows = write_rows(settings, engine)
    learn = _open_learning(settings, engine)

    def run(repeat: int, _: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("update"):
            learn(repeat, rows)
        return Outcome(watch.parts, sum(len(row.prompt) + len(row.tokens) for row in rows), rows)

    return run


def open_step(settings: BenchSettings, engine: LocalEngine) -> Contender:
    """Return what plays all dialogues and trains on all their messages; judges take no part."""
    dialogues = draw_dialogues(settings, engine.encode_chat)
    learn = _open_learning(settings, engine)

    def run(repeat: int, _: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("rollout"):
            played = _play(settings, engine, dialogues, repeat)
        rows = collect_rows(settings, played)
        with watch.measure("update"):
            learn(repeat, rows)
        return Outcome(watch.parts, sum(len(row.tokens) for row in rows), rows)

    return run


def _play(
    settings: BenchSettings, engine: LocalEngine, dialogues: Sequence[Negotiation], repeat: int
) -> list[Negotiation]:
    # Each repeat draws other tokens, and thereby has other prompts.
    seed = settings.seed * 1_000_003 + repeat
    return play(dialogues, negotiation_rules(settings), engine, never_agree, seed)


def _open_learning(settings: BenchSettings, engine: LocalEngine) -> Callable[[int, Sequence[Row]], None]:
    optimizer = PolicyOptimizer.create(engine.model, optimization_settings(settings))
    pad_id = engine.tokenizer.pad_token_id

    def learn(repeat: int, rows: Sequence[Row]) -> None:
        samples = make_turn_samples(settings, rows)
        metrics = update_policy(engine.model, optimizer, samples, repeat + 1, pad_id)
        assert metrics["loss/used_samples"] == len(rows)

    return learn
