"""The command `comity bench`."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from comity.bench.settings import PEERS, BenchSettings

if TYPE_CHECKING:
    from rich.console import Console

    from comity.bench.results import Repeat

TEXTS = {
    "rollout": "sample all messages of a step's dialogues",
    "update": "train once on all messages of a step",
    "step": "sample the messages and train on them",
    "judge": "judge the rounds and the answers of a step",
}
BUSY = 0.05
"""The share of the processors that others may use before the figures are called in doubt."""
NUMBERS = (
    ("repeats", 3, "how often each contender works"),
    ("dialogues", 32, "dialogues of a step"),
    ("messages", 4, "messages of a dialogue"),
    ("tokens", 64, "tokens of each message"),
    ("prompt-tokens", 0, "tokens of the opening prompts; 0 takes the shipped dilemmas as they are"),
    ("group-size", 8, "dialogues of one dilemma"),
    ("seed", 0, "of the dilemmas and of what is sampled"),
    ("threads", 0, "CPU threads of each contender; 0 lets the libraries choose"),
)


def add_bench(commands: Any) -> None:
    """Add `bench` and what it measures to the commands."""
    text = "measure speed and memory against the limits of this machine and against other libraries"
    bench = commands.add_parser("bench", help=text, description=text)
    kinds = bench.add_subparsers(metavar="WHAT", required=True)
    for name, peers in PEERS.items():
        kind = kinds.add_parser(name, help=TEXTS[name], description=TEXTS[name])
        kind.add_argument("--against", metavar="PEER", help=f"compare with {' or '.join(peers)}")
        kind.add_argument("--json", action="store_true", help="print one JSON object last instead of a table")
        for option, default, meaning in NUMBERS:
            shown = f"{meaning} (default: {default})"
            kind.add_argument(f"--{option}", type=int, default=default, metavar="INTEGER", help=shown)
        kind.add_argument("--model", default="embedded", metavar="NAME", help="the model (default: embedded)")
        kind.add_argument("--dtype", default="bfloat16", metavar="NAME", help="its numbers (default: bfloat16)")
        kind.add_argument("--peer-python", default="", metavar="FILE", help="the interpreter of the peer's process")
        kind.set_defaults(run_command=run_bench_command, measured=name)


def run_bench_command(arguments: argparse.Namespace, _: None, console: "Console") -> None:
    """Measure and print the table, or the object."""
    words = vars(arguments)
    settings = BenchSettings(**{name: words[name] for name in BenchSettings.__dataclass_fields__})
    from rich.console import Console

    from comity.bench.results import summarize
    from comity.bench.runner import run_bench
    from comity.cli.progress import print_line

    # What is shown while it works goes beside the result, which may be read by a program.
    beside = Console(stderr=True)
    done = []

    def show(repeat: "Repeat") -> None:
        done.append(repeat)
        print_line(beside, f"repeat {len(done)} of {settings.repeats}: {describe_repeat(repeat, settings)}")

    result = summarize(run_bench(settings, show))
    if arguments.json:
        print(json.dumps(result))
    else:
        print_result(console, result)


def describe_repeat(repeat: "Repeat", settings: BenchSettings) -> str:
    """Return the seconds of one repeat in words."""
    from comity.bench.results import took

    ours = f"comity {took(repeat.ours):.1f} s"
    return ours if repeat.peer is None else f"{ours}, {settings.against} {took(repeat.peer):.1f} s"


def print_result(console: "Console", result: dict[str, Any]) -> None:
    """Print one line for each contender and the limit, and the ratios under them."""
    from rich.table import Table

    from comity.cli.progress import print_line

    work = result["work"]
    title = (
        f"{result['measured']}: {work['dialogues']} dialogues x {work['messages']} messages x {work['tokens']} tokens"
    )
    table = Table("", "seconds", "from", "to", "tokens/s", "peak GB", title=title, title_justify="left")
    for name, found in (("comity", result), (result["against"], result["peer"])):
        if found is not None:
            low, high = found["seconds_range"]
            table.add_row(
                name, f"{found['seconds']:.2f}", f"{low:.2f}", f"{high:.2f}", f"{found['tokens_per_second']:.1f}",
                f"{found['peak_rss_gb']:.2f}",
            )  # fmt: skip
    limit = result["limit_seconds"]
    table.add_row("limit", f"{limit:.2f}", "", "", f"{result['tokens'] / limit:.1f}", "")
    console.print(table)
    print_line(console, f"tokens: {result['tokens_counted']}; {work['repeats']} repeats, median and range")
    for name, value in result["parts"].items():
        print_line(console, f"{name}: {value:.2f} s")
    busy = max(found["busy_elsewhere"] for found in (result, result["peer"]) if found is not None)
    if busy > BUSY:
        print_line(console, f"others used up to {busy:.0%} of the processors meanwhile: measure again when it is quiet")
    if not result["processes"]["ours"]["kernels"]:
        print_line(console, "comity worked without its own kernels, which need a C compiler: rollouts take longer so")
    if result["ratio_to_peer"] is not None:
        low, high = result["ratio_to_peer_range"]
        print_line(
            console, f"{result['ratio_to_peer']:.2f} times as fast as {result['against']} ({low:.2f} to {high:.2f})"
        )
    low, high = result["ratio_to_limit_range"]
    print_line(console, f"{result['ratio_to_limit']:.2f} times the time of the limit ({low:.2f} to {high:.2f})")
