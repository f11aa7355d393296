"""Measure the viewer on a run of 200,000 negotiations: `python benchmarks/viewer.py --json`.

Makes the run (about 400 MB, removed afterwards), serves it with `comity view` as a process of its own, waits until its
index is complete, and asks for pages over loopback. `first_page_ms` is the slowest of the first page of negotiations,
`filter_ms` the slowest over all filters and orders below, `rss_mb` the largest resident memory of the server, from its
start through indexing to the last page.
"""

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from comity.scenarios.load import draw_scenarios, load_dilemmas, load_persona_pairs
from comity.scenarios.rows import Row, write_rows
from comity.types import Scenario

SCENARIOS_PER_STEP, GROUP_SIZE = 16, 8
REPEATS = 3
FIRST = "/runs/big/negotiations"
QUERIES = (
    "?page=99999", "?sort=reward&down=1", "?sort=advantage", "?sort=words&down=1&page=3000", "?sort=scenario",
    "?sort=heldout_score&down=1", "?sort=rounds&page=2000", "?step_from=100&step_to=900&sort=reward", "?scenario=pro",
    "?scenario=day&sort=words&down=1", "?tier=everyday&sort=score", "?ending=no_agreement",
    "?ending=agreed&sort=rounds",
    "?ending=unscored", "?score_from=2&score_to=3&sort=words",
    "?reward_from=2.5&reward_to=3.5&sort=words", "?text=the", "?text=the&sort=words&down=1",
    "?text=hospital", "?text=%22of+the%22&sort=advantage", "?text=a*", "?text=zzzz",
    "?text=the+night&ending=agreed&tier=professional&reward_from=1&scenario=0&step_from=2&sort=score&down=1",
)  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure the viewer on many negotiations.")
    parser.add_argument("--negotiations", type=int, default=200_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.negotiations)
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in figures.items()))


def measure(folder: Path, negotiations: int) -> dict[str, Any]:
    """Make the run, serve it, and return the figures: milliseconds, megabytes, seconds."""
    rows = make_run(folder / "runs" / "big", negotiations)
    command = [
        sys.executable,
        "-m",
        "comity",
        "view",
        str(folder / "runs"),
        "--port",
        "0",
        "--cache",
        str(folder / "c"),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.match(r"http://[^/]+", server.stdout.readline())
        assert address is not None, "the server printed no address"
        with httpx.Client(base_url=address[0], timeout=60) as client:
            begun = time.perf_counter()
            wait_for_index(client)
            index_seconds = time.perf_counter() - begun
            first = [time_page(client, FIRST) for _ in range(2 * REPEATS)]
            slowest = {query: max(time_page(client, FIRST + query) for _ in range(REPEATS)) for query in QUERIES}
        peak = peak_resident_mb(server.pid)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
    query = max(slowest, key=lambda name: slowest[name])
    return {
        "negotiations": rows,
        "first_page_ms": round(max(first), 1),
        "filter_ms": round(slowest[query], 1),
        "slowest_filter": query,
        "rss_mb": round(peak, 1),
        "index_seconds": round(index_seconds, 1),
        "index_mb": round(sum(path.stat().st_size for path in (folder / "c").rglob("*.sqlite")) / 1e6, 1),
    }


def wait_for_index(client: httpx.Client) -> None:
    """Return when the index is complete; raise AssertionError when it is not within 20 minutes."""
    for _ in range(1200):
        if 'id="indexing"' not in client.get(FIRST).raise_for_status().text:
            return
        time.sleep(1)
    raise AssertionError("the index was not complete within 20 minutes")


def time_page(client: httpx.Client, address: str) -> float:
    """Return the milliseconds that a page takes, its body included."""
    begun = time.perf_counter()
    client.get(address).raise_for_status()
    return 1000 * (time.perf_counter() - begun)


def peak_resident_mb(pid: int) -> float:
    """Return the largest resident memory of a process so far, in MB; where the system does not say, the present one."""
    status = Path(f"/proc/{pid}/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def make_run(run: Path, negotiations: int) -> int:
    """Write a run of at least so many negotiations from fixed random texts; return how many there are."""
    rng = random.Random(0)
    dilemmas, pairs = load_dilemmas("shipped", "train"), load_persona_pairs()
    words = " ".join(row["dilemma"] for row in dilemmas).split()
    steps = -(-negotiations // (SCENARIOS_PER_STEP * GROUP_SIZE))
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"settings": {"optimization": {"steps": steps}}}), encoding="utf-8")
    with (run / "metrics.jsonl").open("w", encoding="utf-8") as stream:
        for step in range(1, steps + 1):
            scenarios = draw_scenarios(dilemmas, pairs, (step - 1) * SCENARIOS_PER_STEP, SCENARIOS_PER_STEP, 0)
            rows = [row for scenario in scenarios for row in make_group(scenario, words, rng)]
            write_rows(run / "negotiations" / f"step-{step:06d}.jsonl", rows)
            stream.write(json.dumps({"step": step, "reward/mean": rng.random(), "agreement/rate": rng.random()}) + "\n")
    return steps * SCENARIOS_PER_STEP * GROUP_SIZE


def make_group(scenario: Scenario, words: list[str], rng: random.Random) -> Iterator[Row]:
    """Yield the rollouts of one scenario with random words, endings and rewards."""
    for sample in range(GROUP_SIZE):
        rounds = rng.randint(1, 3)
        ending = rng.choice(("agreed", "agreed", "no_agreement"))
        reward = None if rng.random() < 0.01 else round(5 * rng.random(), 4) if ending == "agreed" else 0.0
        texts = [" ".join(rng.choices(words, k=rng.randint(15, 40))) for _ in range(2 * rounds)]
        yield {
            "scenario": scenario.id, "dilemma": scenario.dilemma, "tier": scenario.tier, "domain": scenario.domain,
            "personas": [persona.objective for persona in scenario.personas], "sample": sample, "ending": ending,
            "rounds": rounds,
            "messages": [
                {"seat": place % 2, "text": text, "finish": "stop", "tokens": 40} for place, text in enumerate(texts)
            ],
            "checks": [
                {"round": n + 1, "agreed": n + 1 == rounds and ending == "agreed", "probability": 0.5, "reason": ""}
                for n in range(rounds)
            ],
            "completion": " ".join(rng.choices(words, k=50)) if ending == "agreed" else None, "reward": reward,
            "score": reward if ending == "agreed" else None, "uncertainty": 1.0, "reasons": [], "heldout_agreed": True,
            "heldout_score": round(5 * rng.random(), 4), "advantage": round(rng.gauss(0, 1), 4),
        }  # fmt: skip


if __name__ == "__main__":
    main()
