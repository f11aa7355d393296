"""The embedded judges as a contender: the calls of a training step, on dialogues written beforehand."""

import dataclasses
from collections.abc import Sequence

from comity.bench.ours import load_engine
from comity.bench.outcomes import Contender, Outcome, Stopwatch
from comity.bench.settings import BenchSettings
from comity.bench.work import Row, write_dialogues
from comity.config import JudgeConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.judges.embedded import load_shipped_head
from comity.judges.features import render_prompt
from comity.judges.labels import Kind
from comity.judges.panel import build_panel
from comity.negotiation.protocol import latest_round
from comity.types import Answer, Negotiation, RoundEnding


def open_judge(settings: BenchSettings) -> Contender:
    """Return what judges every round's ending, then every answer, and both again with the held-out heads."""
    engine = load_engine(settings)
    panel = build_panel(JudgeConfig(), engine, ModelConfig(name=settings.model))
    written = write_dialogues(settings, engine.tokenizer, engine.encode_chat)
    rounds = [_end_rounds(written, count) for count in range(2, settings.messages + 1, 2)]
    # Each dialogue has its last message for a joint answer.
    agreed = [dataclasses.replace(item, ending="agreed", completion=item.turns[-1].completion) for item in written]
    answers = [Answer(item.scenario.dilemma, item.turns[-1].completion.text) for item in written]
    endings = [latest_round(item) for item in agreed]
    calls: list[tuple[Kind, str, Sequence[Answer | RoundEnding]]] = [("agreement", "training", ends) for ends in rounds]
    calls += [("agency", "training", answers), ("agency", "heldout", answers), ("agreement", "heldout", endings)]
    rows = [row for number, call in enumerate(calls) for row in _row_verdicts(engine, number, *call)]

    def run(_: int, __: Sequence[Row]) -> Outcome:
        watch = Stopwatch()
        with watch.measure("judge"):
            verdicts = [verdict for items in rounds for verdict in panel.agreement(items)]
            judged = panel.judge(agreed)
        refused = [verdict.text for verdict in verdicts if verdict.text]
        refused += [verdict.text for item in judged for verdict in item.verdicts if verdict.text]
        assert not refused, refused  # a refused text is not read, which would be less work than is counted
        return Outcome(watch.parts, sum(len(row.prompt) for row in rows), rows)

    return run


def _end_rounds(written: Sequence[Negotiation], messages: int) -> list[RoundEnding]:
    return [latest_round(dataclasses.replace(item, turns=item.turns[:messages])) for item in written]


def _row_verdicts(
    engine: LocalEngine, call: int, kind: Kind, which: str, items: Sequence[Answer | RoundEnding]
) -> list[Row]:
    layers = max(load_shipped_head(kind, which).layers)
    texts = [render_prompt(kind, item).text for item in items]
    encoded = engine.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [Row(call, 0, place, list(ids), [], layers) for place, ids in enumerate(encoded)]
