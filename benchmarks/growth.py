"""Drive many dialogues at once through everything but models: `python benchmarks/growth.py --json`.

A scripted engine and a scripted judge wait as long as real ones would; their replies have as many tokens as real ones.
What lies between them is the program's own: protocol, streaming driver, the access with its cache, ledger and cap on
spending, rewards, and the run directory. One process, one thread, all dialogues of a step in flight at once.

For each number of dialogues it prints the seconds from the first message to the last verdict, the processor's seconds
in them, the memory that a dialogue takes at the peak, and the milliseconds for which a dialogue holds each part: in
all, and those of the processor among them (the others wait for the disk). The part that is held longest saturates
first: it cannot serve more than 1000 / that many dialogues a second.

`--servers` and `--connections` put a bound on the messages under way, as vLLM servers do; 0 sets none.
"""

import argparse
import asyncio
import gc
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from comity.access import Question, Reply
from comity.access.prices import Price
from comity.access.session import Session
from comity.access.store import ReplyStore
from comity.config import AccessConfig, NegotiationConfig, TrainConfig, to_plain
from comity.negotiation import stream
from comity.negotiation.protocol import start
from comity.prompts import fill, hash_template, parse_agency, parse_agreement
from comity.runs import create_run, negotiation_row, write_negotiations
from comity.scenarios.load import draw_scenarios, load_dilemmas, load_persona_pairs
from comity.types import Completion, Judged, Request, RoundEnding, Sampling, Verdict

PROMPT_TOKENS = 420
MESSAGE_TOKENS = 128
TOKENS_PER_SECOND = 40.0
"""How fast a busy server writes one of its many texts."""
JUDGE_SECONDS = 1.5
SPREAD = 0.4
"""Of the logarithms of waiting times and lengths."""
AGREED_SHARE = 0.4
"""Of the rounds end agreed: a mean of 2.3 rounds with at most 7."""
GREEDY = Sampling(0.0, 1.0, 256)
SENTENCE = "The clinic could share both nurses on alternate days and publish how each request was met. "


@dataclass
class Costs:
    """Seconds by part, and those of the processor among them."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def timed(self, part: str, function: Callable) -> Callable:
        """Return the function so that its seconds count for the part."""

        def run(*args, **kwargs):
            with self.measure(part):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count the seconds inside the context for the part."""
        begun, used = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - begun
            self.busy[part] += time.thread_time() - used


class ScriptedProvider:
    """A judge behind an address that takes its time and says YES to a share of the rounds."""

    name = "scripted/judge"

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def send(self, question: Question) -> Reply:
        """Wait, then answer in the form that the template asks for."""
        await asyncio.sleep(draw_seconds(self.random, JUDGE_SECONDS))
        if question.account.endswith("agreement"):
            text = "YES\nBoth take the same plan." if self.random.random() < AGREED_SHARE else "NO\nStill arguing."
        else:
            text = f"{self.random.randrange(6)}\nSo it seems."
        return Reply(text, "", PROMPT_TOKENS, 12)

    def is_transient(self, _error: BaseException) -> bool:
        """Return False: nothing here fails."""
        return False

    async def close(self) -> None:
        """Close nothing."""


def draw_seconds(source: random.Random, median: float) -> float:
    """Return a waiting time: log-normal about its median."""
    return median * source.lognormvariate(0.0, SPREAD)


def scripted_engine(seed: int, places: asyncio.Semaphore | None, costs: Costs) -> stream.AsyncResponder:
    """Return who writes messages of realistic length, at a realistic pace."""
    source = random.Random(seed)
    text = SENTENCE * 12

    async def respond(request: Request) -> Completion:
        count = max(8, min(256, int(MESSAGE_TOKENS * source.lognormvariate(0.0, SPREAD))))
        async with places or nullcontext():
            await asyncio.sleep(count / TOKENS_PER_SECOND)
        with costs.measure("scripted engine"):
            return Completion(
                text=text[: count * 4],
                prompt_ids=np.zeros(PROMPT_TOKENS, np.int32),
                token_ids=np.zeros(count, np.int32),
                logprobs=np.zeros(count, np.float32),
            )

    return respond


def build_judges(session: Session):
    """Return an agreement judge for the driver, and a function that scores all answers of a step."""

    async def judge_round(ending: RoundEnding) -> Verdict:
        prompt = fill(
            "agreement", dilemma=ending.dilemma, persona_a=ending.persona_a, persona_b=ending.persona_b,
            message_a=ending.message_a, message_b=ending.message_b,
        )  # fmt: skip
        judge_round.asked += 1
        # Scripted messages are alike; `repeat` keeps each question a question of its own.
        question = Question(
            ({"role": "user", "content": prompt},), GREEDY, hash_template("agreement"), "judge/agreement",
            judge_round.asked,
        )  # fmt: skip
        (reply,) = await session.ask([question])
        agreed, reason = parse_agreement(reply.text or "")
        return Verdict("scripted", "", None if agreed is None else float(agreed), reason, agreed)

    judge_round.asked = 0

    async def score(negotiations) -> list[Judged]:
        written = [i for i, item in enumerate(negotiations) if item.completion is not None]
        questions = [
            Question(
                ({"role": "user", "content": fill("agency", dilemma=negotiations[i].scenario.dilemma,
                                                  answer=negotiations[i].completion.text)},),
                GREEDY, hash_template("agency"), "judge/agency", place,
            )
            for place, i in enumerate(written)
        ]  # fmt: skip
        replies = dict(zip(written, await session.ask(questions), strict=True))
        judged = []
        for i, item in enumerate(negotiations):
            value, reason = parse_agency(replies[i].text or "") if i in replies else (0.0, "")
            verdicts = (Verdict("scripted", "", value, reason),) if i in replies else ()
            judged.append(Judged(item, verdicts, value))
        return judged

    return judge_round, score


async def play_step(count: int, folder: Path, places: int, seed: int) -> dict[str, float]:
    """Play one step of so many dialogues and write it down; return its figures."""
    costs = Costs()
    rules = NegotiationConfig()
    scenarios = draw_scenarios(load_dilemmas(split="train"), load_persona_pairs(), 0, -(-count // 8), seed)
    states = [start(scenario, sample) for scenario in scenarios for sample in range(8)][:count]
    store = ReplyStore(str(folder / "replies.sqlite"))
    store.save_call = costs.timed("ledger and cache", store.save_call)
    store.find_replies = costs.timed("ledger and cache", store.find_replies)
    store.spent_dollars = costs.timed("ledger and cache", store.spent_dollars)
    settings = AccessConfig(connections=100_000, max_spend=1e9)
    session = Session(ScriptedProvider(seed), store, settings, Price(1.0, 4.0), "growth")
    stream.pending = costs.timed("protocol", PENDING)
    stream.advance = costs.timed("protocol", ADVANCE)
    judge, score = build_judges(session)
    engine = scripted_engine(seed, asyncio.Semaphore(places) if places else None, costs)
    process = psutil.Process()
    gc.collect()
    before, peak, done = process.memory_info().rss, 0, asyncio.Event()

    async def watch_memory() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch_memory())
    begun, used = time.perf_counter(), time.process_time()
    played = await stream.play_streaming(states, rules, engine, judge, seed)
    judged = await score(played)
    wall, busy = time.perf_counter() - begun, time.process_time() - used
    done.set()
    await watching
    with costs.measure("run directory"):
        write_negotiations(folder, 1, [negotiation_row(item, 0.0) for item in judged])
    await session.close()
    messages = sum(len(item.turns) + (item.completion is not None) for item in played)
    verdicts = sum(len(item.checks) + (item.completion is not None) for item in played)
    assert all(item.ending in ("agreed", "no_agreement") for item in played)
    rest = busy - sum(seconds for part, seconds in costs.busy.items() if part != "run directory")
    costs.seconds["event loop, prompts and the rest"] = costs.busy["event loop, prompts and the rest"] = rest
    held = {part: round(1000 * seconds / count, 3) for part, seconds in costs.seconds.items()}
    used_by = {part: round(1000 * seconds / count, 3) for part, seconds in costs.busy.items()}
    return {
        "dialogues": count, "messages": messages, "verdicts": verdicts, "wall_seconds": wall, "busy_seconds": busy,
        "dialogues_per_second": count / wall, "messages_per_second": messages / wall,
        "verdicts_per_second": verdicts / wall, "kilobytes_per_dialogue": max(0, peak - before) / count / 1000,
        "run_kilobytes_per_dialogue": sum(p.stat().st_size for p in (folder / "negotiations").iterdir()) / count / 1000,
        "ledger_kilobytes_per_dialogue": (folder / "replies.sqlite").stat().st_size / count / 1000,
        "milliseconds_per_dialogue": held, "processor_milliseconds_per_dialogue": used_by,
        "saturates_first": max(held, key=held.__getitem__),
    }  # fmt: skip


PENDING, ADVANCE = stream.pending, stream.advance


def main() -> None:
    """Print the figures of each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--servers", type=int, default=0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each size")
    arguments = parser.parse_args()
    for count in arguments.dialogues:
        with tempfile.TemporaryDirectory() as folder:
            create_run(Path(folder), to_plain(TrainConfig(run=Path(folder))), resume=False)
            places = arguments.servers * arguments.connections
            figures = asyncio.run(play_step(count, Path(folder), places, arguments.seed))
        if arguments.json:
            print(json.dumps(figures), flush=True)
            continue
        for name, value in figures.items():
            print(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}", flush=True)


if __name__ == "__main__":
    main()
