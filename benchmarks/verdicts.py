"""Measure how long 1,000 verdicts take that were bought before: `python benchmarks/verdicts.py --json`.

A file of replies gets 101,000 of them, 1,000 of which answer the prompts of the Collective Agency judge. Then the
access is opened anew and asked for these. Nothing leaves the machine: the address leads nowhere, so a reply that was
not found would be a failure. `cached_seconds` is what asking took, `open_seconds` what opening an access took, of which
`store_seconds` is the file; each is the slowest of three. `import_seconds` is what the first access of a process pays
besides: the import of Inspect and of the provider's package, once and by itself. It is the larger part, and grows with
what else the machine does.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from comity.access import Question, Reply, open_access
from comity.access.records import hash_question
from comity.access.store import ReplyStore
from comity.config import AccessConfig
from comity.prompts import fill, hash_template, parse_agency
from comity.scenarios.load import load_dilemmas
from comity.types import Sampling

MODEL = "openai-api/benchmark/judge"
VERDICTS, OTHERS, REPEATS = 1_000, 100_000, 3


def fill_store(path: str, questions: list[Question]) -> None:
    """Put the replies to the questions and to many others into the file."""
    keys = [hash_question(MODEL, question) for question in questions] + [f"{number:064x}" for number in range(OTHERS)]
    reply = Reply("3\nso it seems", "", 400, 8, 0.0)
    store = ReplyStore(path)
    store._database.execute("PRAGMA synchronous=OFF")  # filling is not what is measured
    for key in keys:
        store.save_call(key, "earlier", "judge/agency", MODEL, reply, True)
    store.close()


def measure(folder: Path) -> dict[str, float]:
    """Return the seconds of each part."""
    os.environ |= {"BENCHMARK_BASE_URL": "http://127.0.0.1:9/v1", "BENCHMARK_API_KEY": "none"}
    settings = AccessConfig(cache=str(folder / "verdicts.sqlite"), retries=0)
    plan = "Both sides take turns from Monday and read the gauge together. " * 8
    prompts = [fill("agency", dilemma=row["dilemma"], answer=plan) for row in load_dilemmas()[:VERDICTS]]
    sampling = Sampling(0.0, 1.0, 1024)
    questions = [
        Question(({"role": "user", "content": prompt},), sampling, hash_template("agency"), "judge/agency")
        for prompt in prompts
    ]
    fill_store(settings.cache, questions)
    begun = time.perf_counter()
    with open_access(MODEL, AccessConfig(cache="none")):
        imported = time.perf_counter() - begun
    opened, asked, stores = [], [], []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        ReplyStore(settings.cache).close()
        stores.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with open_access(MODEL, settings, "benchmark") as access:
            opened.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            replies = access.ask(questions)
            asked.append(time.perf_counter() - begun)
        assert [parse_agency(reply.text or "")[0] for reply in replies] == [3.0] * VERDICTS
    return {
        "cached_seconds": max(asked),
        "open_seconds": max(opened),
        "store_seconds": max(stores),
        "import_seconds": imported,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: round(value, 3) for name, value in measure(Path(folder)).items()}
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
