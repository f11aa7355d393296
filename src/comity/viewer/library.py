"""Which runs there are: found below one folder, named by ids, described for a list."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from comity.errors import ComityError, RunError
from comity.runs import read_json
from comity.viewer.metrics import MetricsReader, MetricsTable

State = Literal["training", "finished", "stopped", "not begun", "evaluation", "damaged"]
MARKS = ("config.json", "metrics.jsonl", "negotiations", "before.jsonl", "dialogues.jsonl")
"""A folder with one of these is a run (or, with one of the last two alone, the output of `comity evaluate`)."""
DEEPEST = 3
"""Runs lie at most so many folders below the one that is served."""
RESCAN_SECONDS = 2.0
QUIET_SECONDS = 120.0
"""A run without news for so long, or for five of its steps, counts as stopped."""


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run: the id that a browser names it by, and where it lies."""

    id: str
    path: Path


@dataclass(frozen=True, slots=True)
class RunOverview:
    """A run for the list; `planned` is None when its settings do not say, `updated` is seconds since the epoch."""

    entry: RunEntry
    state: State
    steps: int
    planned: int | None
    updated: float
    metrics: MetricsTable
    note: str = ""

    @property
    def version(self) -> str:
        """Return a text that changes whenever the overview does."""
        return f"{self.entry.id}|{self.state}|{self.planned}|{self.metrics.version}"


class Library:
    """The runs below one folder. A browser sends ids, which are looked up here and never become paths."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise RunError(f"runs {root}: no such folder; give the folder that holds the run directories")
        self.root = root.resolve()
        self.metrics = MetricsReader()
        self._entries: dict[str, RunEntry] = {}
        self._scanned = 0.0
        self._lock = threading.Lock()

    def entries(self) -> list[RunEntry]:
        """Return all runs in the order of their names."""
        with self._lock:
            if time.monotonic() - self._scanned > RESCAN_SECONDS or not self._entries:
                self._entries = {entry.id: entry for entry in _name_runs(self.root)}
                self._scanned = time.monotonic()
            return list(self._entries.values())

    def find(self, run_id: str) -> RunEntry | None:
        """Return the run of an id, None when there is none."""
        return next((entry for entry in self.entries() if entry.id == run_id), None)

    def describe(self, entry: RunEntry) -> RunOverview:
        """Return what the list shows of a run; a damaged settings file is told in `note`."""
        table = self.metrics.read(entry.path)
        updated = _last_change(entry.path)
        try:
            settings, note = read_settings(entry.path), ""
        except ComityError as error:
            settings, note = {}, str(error)
        planned = settings.get("optimization", {}).get("steps") if isinstance(settings, dict) else None
        planned = planned if isinstance(planned, int) else None
        steps = int(table.steps[-1]) if table.steps else 0
        state = "damaged" if note else _tell_state(entry.path, table, planned, time.time() - updated)
        return RunOverview(entry, state, steps, planned, updated, table, note)


def read_settings(run: Path) -> Mapping[str, Any]:
    """Return the settings of a run, {} when it has none; raise RunError when the file is damaged."""
    return read_config(run).get("settings") or {}


def read_config(run: Path) -> dict[str, Any]:
    """Return config.json: settings, commit, versions; {} when it is absent. Raise RunError when it is damaged."""
    if not (run / "config.json").exists():
        return {}
    content = read_json(run / "config.json")
    if not isinstance(content, dict) or not isinstance(content.get("settings", {}), dict):
        raise RunError(f"{run / 'config.json'}: was not written by comity (no settings)")
    return content


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run directory or the output of an evaluation."""
    return any((folder / mark).exists() for mark in MARKS)


def _name_runs(root: Path) -> Iterator[RunEntry]:
    taken: set[str] = set()
    for path in _find_runs(root, 0):
        name = "~".join(path.relative_to(root).parts) or root.name or "run"
        name = name.encode("utf-8", "replace").decode("utf-8")  # a file name need not be UTF-8, an address must be
        while name in taken:
            name += "~"
        taken.add(name)
        yield RunEntry(name, path)


def _find_runs(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    if depth == DEEPEST:
        return
    try:
        below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except PermissionError:
        return
    for name in below:
        if not name.startswith("."):
            yield from _find_runs(folder / name, depth + 1)


def _last_change(run: Path) -> float:
    names = ("metrics.jsonl", "negotiations", "config.json", "before.jsonl", "after.jsonl", "dialogues.jsonl")
    times = [(run / name).stat().st_mtime for name in names if (run / name).exists()]
    return max(times, default=0.0)


def _tell_state(run: Path, table: MetricsTable, planned: int | None, idle_seconds: float) -> State:
    done = len(table.steps)
    if not done and any((run / name).exists() for name in ("before.jsonl", "dialogues.jsonl")):
        return "evaluation"
    if (planned is not None and done >= planned) or (run / "summary.json").exists():
        return "finished"
    step_seconds = table.latest("time/step_seconds") or 0.0
    if idle_seconds <= max(QUIET_SECONDS, 5 * step_seconds):
        return "training"
    return "stopped" if done else "not begun"
