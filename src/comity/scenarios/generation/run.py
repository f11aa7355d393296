"""Ask for rows, settle which are good, ask again, and write the file."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from comity.access.records import OnReply, Question, Reply
from comity.errors import ConfigError
from comity.prompts import fill, load_template, neutralise
from comity.scenarios.generation.journal import Journal, Kept
from comity.scenarios.generation.plan import Slot, hash_plan, plan_slots
from comity.scenarios.generation.replies import Attempt, find_double, make_schema, read_reply
from comity.scenarios.generation.settings import GenerateConfig
from comity.scenarios.hygiene import SimilarTexts, collect_texts
from comity.scenarios.kinds import KINDS, SHIPPED, Kind, find_kind, read_kind
from comity.scenarios.rows import Row, write_rows
from comity.types import Message

MOST_ATTEMPTS = 6
"""Replies that a slot may cost: three fresh ones, each with one re-ask that quotes what was wrong."""
UNUSABLE = frozenset({"empty reply", "refused", "truncated", "prompt too long"})
"""Problems of a reply that came. Others (a timeout, a broken connection) brought none and are no attempt."""


class Asker(Protocol):
    """Whoever answers: `ModelAccess.ask`, or a local engine in the same form."""

    def __call__(self, questions: Sequence[Question], on_reply: OnReply | None = None) -> list[Reply]:
        """Return the replies in order, and tell each as it comes."""


@dataclass
class Progress:
    """How far a generation is; `dollars` leaves out replies whose price is unknown, which `unpriced` counts."""

    count: int
    good: int = 0
    replies: int = 0
    failed: int = 0
    unpriced: int = 0
    dollars: float = 0.0
    problem: str = ""
    """What was wrong with the latest question that brought no reply."""


OnProgress = Callable[[Progress], None]


@dataclass
class Drafts:
    """What is settled: rows by slot, and all attempts by slot."""

    rows: dict[int, Row] = field(default_factory=dict)
    attempts: dict[int, list[Attempt]] = field(default_factory=dict)


def generate_rows(
    config: GenerateConfig, ask: Asker, on_progress: OnProgress | None = None
) -> tuple[list[Row], dict[int, str]]:
    """Write `config.out`; return its rows, and by slot what was wrong with the last reply of each that gave none.

    Goes in turns: every open slot is asked once, then the replies are settled in the order of the slots, so that the
    file does not depend on the order of arrival. Each reply is kept in OUT.replies.jsonl at once. A killed run that is
    started again reads them, asks what is missing and ends with the same file as an unbroken one.
    """
    if config.out.exists() and not journal_path(config.out).exists():
        raise ConfigError(f"--out {config.out}: exists and has no {journal_path(config.out).name}; give another file")
    slots = plan_slots(config.kind, config.count, config.seed, config.domains)
    kind, drafts, progress = find_kind(config.kind), Drafts(), Progress(len(slots))
    with Journal(journal_path(config.out), describe_settings(config)) as journal:
        known = SimilarTexts(config.threshold, load_shipped_texts(config.threshold))
        for turn in range(MOST_ATTEMPTS):
            open_slots = [slot for slot in slots if slot.number not in drafts.rows]
            missing = [slot for slot in open_slots if not journal.has(slot.number, turn)]
            listen = _make_listener(config, kind, turn, missing, journal, progress, on_progress)
            try:
                if missing:
                    ask([make_question(config, slot, drafts.attempts.get(slot.number, [])) for slot in missing], listen)
            finally:
                # What was paid for is written also when the cap, an error or an interrupt ends the run.
                settle(kind, config.model, open_slots, journal.read_turn(turn), drafts, known)
                progress.good = len(drafts.rows)
                if drafts.rows:
                    write_rows(config.out, [drafts.rows[number] for number in sorted(drafts.rows)])
            if on_progress is not None:
                on_progress(progress)
            if len(drafts.rows) == len(slots):
                break
    open_numbers = [slot.number for slot in slots if slot.number not in drafts.rows]
    faults = {number: [a.error for a in drafts.attempts.get(number, [])] for number in open_numbers}
    return (
        [drafts.rows[number] for number in sorted(drafts.rows)],
        {number: errors[-1] if errors else progress.problem for number, errors in faults.items()},
    )


def journal_path(out: Path) -> Path:
    """Return where the replies of a generation are kept."""
    return out.with_name(out.name + ".replies.jsonl")


def describe_settings(config: GenerateConfig) -> dict[str, object]:
    """Return what the replies of a generation depend on; the count may grow."""
    return {
        "kind": config.kind,
        "model": config.model,
        "seed": config.seed,
        "threshold": config.threshold,
        "domains": list(config.domains),
        "sampling": asdict(config.sampling),
        "templates": hash_plan(config.kind),
    }


@functools.cache
def load_shipped_texts(threshold: float) -> SimilarTexts:
    """Return all shipped texts, which new ones must not repeat; add nothing to them."""
    known = SimilarTexts(threshold)
    for kind in KINDS:
        for text in collect_texts(f"shipped {kind.name}", kind, read_kind(SHIPPED, kind.name)):
            known.add(text)
    return known


def make_question(config: GenerateConfig, slot: Slot, attempts: Sequence[Attempt]) -> Question:
    """Return the slot's next question: fresh, or after a fresh one with a bad reply a re-ask that quotes the error."""
    messages: list[Message] = [
        {"role": "system", "content": load_template("data_system")},
        {"role": "user", "content": slot.prompt},
    ]
    if len(attempts) % 2 == 1 and attempts[-1].text is not None:
        messages.append({"role": "assistant", "content": neutralise(attempts[-1].text)})
        messages.append({"role": "user", "content": fill("data_repair", error=attempts[-1].error)})
    return Question(
        messages=tuple(messages),
        sampling=config.sampling,
        template_hash=hash_plan(config.kind),
        account=f"data/{config.kind}",
        repeat=len(attempts),
        json_schema=make_schema(config.kind),
    )


def settle(
    kind: Kind, source: str, slots: Sequence[Slot], replies: Mapping[int, Kept], drafts: Drafts, known: SimilarTexts
) -> None:
    """Take the good replies of one turn into the drafts, in the order of the slots; note what is wrong with others."""
    for slot in slots:
        if slot.number not in replies:
            continue
        kept = replies[slot.number]
        row, error = None, kept.problem
        if kept.text is not None:
            row, error = read_reply(kind, slot, kept.text, source)
        if row is not None:
            error = find_double(kind, row, known)
        if row is not None and not error:
            drafts.rows[slot.number] = row
        drafts.attempts.setdefault(slot.number, []).append(Attempt(kept.text, error))


def _make_listener(
    config: GenerateConfig,
    kind: Kind,
    turn: int,
    slots: Sequence[Slot],
    journal: Journal,
    progress: Progress,
    on_progress: OnProgress | None,
) -> OnReply:
    def listen(place: int, reply: Reply) -> None:
        slot = slots[place]
        if reply.text is None and reply.problem not in UNUSABLE:
            progress.failed, progress.problem = progress.failed + 1, reply.problem
        else:
            journal.add(turn, slot.number, Kept(reply.text, reply.problem))
            progress.replies += 1
            progress.good += reply.text is not None and read_reply(kind, slot, reply.text, config.model)[0] is not None
        progress.unpriced += reply.cost is None
        progress.dollars += reply.cost or 0.0
        if on_progress is not None:
            on_progress(progress)

    return listen
