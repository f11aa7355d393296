"""A run's metrics as columns, read on as the file grows."""

import json
import math
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

KEPT_TABLES = 32
"""Tables kept in memory; a run of 1,900 steps takes about 600 kB."""


@dataclass(frozen=True, slots=True)
class MetricsTable:
    """Metrics by name, each column as long as `steps`, NaN where a step lacks the metric.

    `version` (inode, bytes read) changes whenever the content does.
    """

    steps: "array[float]" = field(default_factory=lambda: array("d"))
    columns: dict[str, "array[float]"] = field(default_factory=dict)
    version: tuple[int, int] = (0, 0)

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Return the steps and values at which a metric is known and finite."""
        column = self.columns.get(key)
        if column is None:
            return [], []
        pairs = [(step, value) for step, value in zip(self.steps, column, strict=True) if math.isfinite(value)]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def latest(self, key: str) -> float | None:
        """Return the last known value of a metric, None when there is none."""
        for value in reversed(self.columns.get(key, array("d"))):
            if math.isfinite(value):
                return value
        return None


class MetricsReader:
    """Read metrics.jsonl of many runs; only what was appended since the last look is parsed again."""

    def __init__(self) -> None:
        self._tables: OrderedDict[Path, MetricsTable] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run: Path) -> MetricsTable:
        """Return the metrics of a run, an empty table before its first step; torn and foreign lines are left out."""
        path = run / "metrics.jsonl"
        with self._lock:
            known = self._tables.get(path, MetricsTable())
            table = read_growth(path, known)
            self._tables[path] = table
            self._tables.move_to_end(path)
            while len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        return table


def read_growth(path: Path, known: MetricsTable) -> MetricsTable:
    """Return the table after reading on from what is known; a replaced or shortened file is read anew."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return MetricsTable()
    with stream:
        status = path.stat()
        if known.version[0] != status.st_ino or known.version[1] > status.st_size:
            known = MetricsTable(version=(status.st_ino, 0))
        if known.version[1] == status.st_size:
            return known
        stream.seek(known.version[1])
        content = stream.read()
    whole, newline, _ = content.rpartition(b"\n")  # a row still being written waits for its end
    if not newline:
        return known
    rows = [row for line in whole.split(b"\n") if (row := _parse(line)) is not None]
    return _extend(known, rows, (status.st_ino, known.version[1] + len(whole) + 1))


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and _is_number(row.get("step")) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _extend(known: MetricsTable, rows: list[dict[str, object]], version: tuple[int, int]) -> MetricsTable:
    # A new table: readers of the old one keep columns of one length.
    length = len(known.steps)
    names = dict.fromkeys(known.columns)
    for row in rows:
        names.update(dict.fromkeys(key for key, value in row.items() if key != "step" and _is_number(value)))
    columns = {}
    for name in names:
        column = array("d", known.columns.get(name, array("d", [math.nan]) * length))
        column.extend(_number(row.get(name)) for row in rows)
        columns[name] = column
    steps = array("d", known.steps)
    steps.extend(_number(row["step"]) for row in rows)
    return MetricsTable(steps, columns, version)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
