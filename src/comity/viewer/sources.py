"""The files of a run that hold negotiations, and single rows of them."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import RunError

MANY = "dialogues"
"""The file of a comparison of several models; its rows belong to parts named by who plays (see `name_part`)."""
OTHERS = ("metrics", "train", "preferences", "ifeval")
"""JSONL files of ours without negotiations, and the name of the part that steps have."""
STEP = re.compile(r"step-(\d+)\.jsonl")


@dataclass(frozen=True, slots=True)
class Source:
    """One JSONL file: its path inside the run, its part (`train`, `before`, ...), its step (0 outside training).

    `mark` (size, time of the last change in nanoseconds) tells whether it was written anew.
    """

    path: str
    part: str
    step: int
    mark: tuple[int, int]


def list_sources(run: Path) -> list[Source]:
    """Return the files with negotiations: of every step, then of the evaluation, each in the order of names."""
    found = [
        Source(f"negotiations/{entry.name}", "train", int(match[1]), _mark(entry))
        for entry in _files_of(run / "negotiations")
        if (match := STEP.fullmatch(entry.name))
    ]
    for folder in ("evaluation", "."):
        for entry in _files_of(run / folder):
            stem, dot, ending = entry.name.partition(".")
            if (dot, ending) == (".", "jsonl") and stem not in OTHERS and "," not in stem:
                path = entry.name if folder == "." else f"{folder}/{entry.name}"
                found.append(Source(path, stem, 0, _mark(entry)))
    # One file a part and step: of `step-1.jsonl` and `step-01.jsonl` the first counts.
    return list({(source.part, source.step): source for source in reversed(found)}.values())[::-1]


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What the index takes from one row: its place in the file, what it is filtered and sorted by, its text.

    `figures` are rounds, reward, score, held-out score and advantage, None where unknown.
    """

    part: str
    place: int
    start: int
    size: int
    scenario: str
    sample: int
    tier: str
    ending: str
    figures: tuple[float | None, ...]
    words: int
    text: str


@dataclass(frozen=True, slots=True)
class ReadSource:
    """One file as read; `skipped` lines of it could not be."""

    source: Source
    rows: list[ReadRow]
    skipped: int


def list_parts_of(run: Path) -> list[str]:
    """Return the parts that a run's files name, without a look at each of them."""
    parts = ["train"] if (run / "negotiations").is_dir() else []
    for folder in ("evaluation", "."):
        names = [
            entry.name.removesuffix(".jsonl") for entry in _files_of(run / folder) if entry.name.endswith(".jsonl")
        ]
        parts += [name for name in names if name not in (*OTHERS, *parts) and not {".", ","} & set(name)]
    return parts


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the place in bytes and the content of every line that is not empty."""
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            content = line.rstrip(b"\r\n")
            if content.strip():
                yield start, content
            start += len(line)


def read_row(run: Path, path: str, start: int, size: int) -> dict[str, Any]:
    """Return one negotiation row from its place; raise RunError when the file has changed since it was indexed."""
    try:
        with (run / path).open("rb") as stream:
            stream.seek(start)
            row = json.loads(stream.read(size))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: has changed since it was indexed; load the page again") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise RunError(f"{path}: has changed since it was indexed; load the page again")
    return row


def read_source(run: Path, source: Source) -> ReadSource:
    """Return what the index takes from one file; a file without a single negotiation row is not one of ours."""
    rows, skipped = [], 0
    for place, (start, line) in enumerate(read_lines(run / source.path)):
        row = read_negotiation(line)
        if row is None:
            skipped += 1
        else:
            rows.append(describe_row(row, name_part(row, source.part), place, start, len(line)))
    return ReadSource(source, rows, skipped if rows else 0)


def name_part(row: Mapping[str, Any], part: str) -> str:
    """Return the part that a row belongs to: its file's, or `MODEL[ against OTHER], DECODING` among several models."""
    model, other, decoding = (_storable(str(row.get(name, ""))) for name in ("model", "opponent", "decoding"))
    if part != MANY or not model:
        return part
    return f"{model}{'' if other in ('', model) else f' against {other}'}, {decoding or 'sampled'}"


def describe_row(row: dict[str, Any], part: str, place: int, start: int, size: int) -> ReadRow:
    """Return what the index takes from a negotiation row; fields of a wrong type count as unknown."""
    messages = [str(message.get("text", "")) for message in row["messages"] if isinstance(message, dict)]
    scenario, personas, reasons = str(row.get("scenario", "")), row.get("personas"), row.get("reasons")
    texts = [scenario, str(row.get("dilemma", "")), *messages, str(row.get("completion") or "")]
    for more in (personas, reasons):
        texts += map(str, more if isinstance(more, list) else ())
    return ReadRow(
        part=part,
        place=place,
        start=start,
        size=size,
        scenario=_storable(scenario),
        sample=int(_number(row.get("sample")) or 0),
        tier=_storable(str(row.get("tier") or "")),
        ending=_storable(str(row.get("ending") or "")),
        figures=tuple(_number(row.get(name)) for name in ("rounds", "reward", "score", "heldout_score", "advantage")),
        words=sum(len(message.split()) for message in messages),
        text=_storable("\n".join(texts)),
    )


def _storable(text: str) -> str:
    # A lone surrogate, which JSON may hold, is no UTF-8.
    return text.encode("utf-8", "replace").decode()


def read_negotiation(line: bytes) -> dict[str, Any] | None:
    """Return one negotiation row, None for a line that is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("messages"), list) else None


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None  # type: ignore[return-value]


def _files_of(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.is_file()), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _mark(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_size, status.st_mtime_ns
