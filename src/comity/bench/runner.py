"""Let contenders work in turns, each in a process of its own, and put together what they took."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import comity
from comity.bench.limits import Rates, Size
from comity.bench.results import Comparison, Repeat
from comity.bench.settings import BenchSettings
from comity.errors import ComityError, ConfigError

STOP_SECONDS = 10


@dataclass
class Worker:
    """The process of one contender; `log` has what its libraries printed."""

    name: str
    process: "subprocess.Popen[str]"
    log: IO[str]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one message; raise ComityError for the contender's error and for its early end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ComityError(self._describe_end())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ConfigError(answer["error"])
        return answer

    def _describe_end(self) -> str:
        code = self.process.wait()
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        last = lines[-1] if lines else "it printed nothing"
        advice = "fewer --dialogues need less memory" if code == -9 else "that is a fault of the bench or a library"
        return f"the process of {self.name} ended with code {code} ({last}): {advice}"


@contextmanager
def start_worker(name: str, settings: BenchSettings) -> Iterator[Worker]:
    """Start the process of a contender inside the context; it holds no model yet."""
    python = (settings.peer_python if name == settings.against else "") or sys.executable
    source = str(Path(comity.__file__).parent.parent)
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [python, "-m", "comity.bench.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"--peer-python {python}: {error.strerror}; give a Python interpreter") from error
        try:
            worker = Worker(name, process, log)
            worker.ask({"do": "check", "contender": name, "settings": settings.to_plain()})
            yield worker
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # Closing flushes what a process that has ended will never read.
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def run_bench(settings: BenchSettings, on_repeat: Callable[[Repeat], None]) -> Comparison:
    """Measure the work: in each repeat the limit, ours and the peer in turn; `on_repeat` gets each when it is done."""
    with ExitStack() as opened:
        # A library that is missing is found before a model is loaded.
        names = [name for name in (settings.against, "limit", "ours") if name is not None]
        workers = {name: opened.enter_context(start_worker(name, settings)) for name in names}
        about = {name: worker.ask({"do": "open"}) for name, worker in workers.items()}
        repeats = []
        for number in range(settings.repeats):
            repeats.append(_run_repeat(settings, workers, number))
            on_repeat(repeats[-1])
    return Comparison(settings, tuple(repeats), about)


def _run_repeat(settings: BenchSettings, workers: dict[str, Worker], number: int) -> Repeat:
    rates = workers["limit"].ask({"do": "run"})
    ours = workers["ours"].ask({"do": "run", "repeat": number, "rows": []})
    rows = ours.pop("rows")
    peer = None
    if settings.against is not None:
        peer = workers[settings.against].ask({"do": "run", "repeat": number, "rows": rows})
        del peer["rows"]
        if peer["tokens"] != ours["tokens"]:
            raise AssertionError(f"{settings.against} worked on {peer['tokens']} tokens, ours on {ours['tokens']}")
    sizes = tuple(Size(len(row["prompt"]), len(row["tokens"]), row["message"], row["layers"]) for row in rows)
    return Repeat(Rates(**rates), ours, peer, sizes)
