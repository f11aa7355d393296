"""Read JSONL rows and check every field; a bad row is named by file, line, field and mend."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Objects:
    """A list of at least `fewest` objects, each with these fields."""

    fields: "Fields"
    fewest: int = 1


Fields = Mapping[str, type | tuple[str, ...] | Objects]
"""Field name to its type, to the words it may take, or to a list of objects; a trailing `?` on the name allows null."""
CheckRow = Callable[[Row, str], None]
"""Raise DataError for a bad row; the text is its place, as in `mine.jsonl, line 3`."""


def read_rows(path: Path, fields: Fields, unique: str | None = "id", extra: bool = True) -> list[Row]:
    """Return the rows of a JSONL file; raise DataError at the first bad one.

    `extra=False` refuses fields that are not listed. An empty file is refused.
    """
    return raise_first(scan_rows(path, lambda row, place: check_row(row, fields, place, extra), unique))


def raise_first(scanned: Iterator[Row | DataError]) -> list[Row]:
    """Return scanned rows when all are good; raise the first error among them."""
    rows: list[Row] = []
    for found in scanned:
        if isinstance(found, DataError):
            raise found
        rows.append(found)
    return rows


def scan_rows(path: Path, check: CheckRow, unique: str | None = "id") -> Iterator[Row | DataError]:
    """Yield each row of a JSONL file, or what is wrong with it; raise DataError when the file has no rows at all."""
    seen: dict[Any, int] = {}
    for number, line in read_lines(path):
        place = f"{path}, line {number}"
        try:
            row = parse_row(place, line)
            check(row, place)
            if unique is not None and row[unique] in seen:
                first = seen[row[unique]]
                raise DataError(f"{place}, field {unique}: {row[unique]!r} stands on line {first} too; rename one")
        except DataError as error:
            yield error
            continue
        if unique is not None:
            seen[row[unique]] = number
        yield row


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a text file that are not blank; raise DataError when it has none."""
    try:
        # Not splitlines(), which also splits at characters that JSON texts may hold, such as U+2028.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise DataError(f"{path}: has no rows; write one JSON object a line")
    return numbered


def check_row(row: Row, fields: Fields, place: str, extra: bool = True, within: str = "") -> None:
    """Raise DataError unless every listed field is there and of its kind; `within` names the object it stands in."""
    for listed, kind in fields.items():
        name, nullable = listed.rstrip("?"), listed.endswith("?")
        if name not in row:
            raise DataError(f"{place}, field {within}{name}: is missing; the fields are {_names(fields)}")
        value, spot = row[name], f"{place}, field {within}{name}"
        if value is None and nullable:
            continue
        if isinstance(kind, Objects):
            _check_objects(value, kind, place, extra, within + name)
        elif isinstance(kind, tuple):
            if value not in kind:
                raise DataError(f"{spot}: is {value!r}; choose among {', '.join(kind)}")
        elif kind is float and type(value) is int:
            continue  # JSON does not tell 1 from 1.0
        elif not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise DataError(f"{spot}: is {value!r}; expected {_words[kind]}")
        elif kind is str and not str(value).strip():
            raise DataError(f"{spot}: is empty; write a text")
    unknown = sorted(set(row) - {name.rstrip("?") for name in fields})
    if unknown and not extra:
        raise DataError(f"{place}, field {within}{unknown[0]}: is unknown; the fields are {_names(fields)}")


def _check_objects(value: Any, kind: Objects, place: str, extra: bool, name: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        fields = _names(kind.fields)
        raise DataError(f"{place}, field {name}: is no list of objects; give a list of objects with {fields}")
    if len(value) < kind.fewest:
        raise DataError(f"{place}, field {name}: has {len(value)}; give {kind.fewest} or more")
    for number, item in enumerate(value):
        check_row(item, kind.fields, place, extra, f"{name}[{number}].")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSONL in the given order, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    scratch.write_text(text, encoding="utf-8", errors="backslashreplace")  # a lone surrogate becomes a JSON escape
    scratch.replace(path)


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a JSONL file with one write and flush them to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def read_whole_rows(path: Path) -> list[Row]:
    """Return the rows of a file that `append_rows` writes, [] when it is absent; cut off a torn last line.

    A kill can leave half a line at the end: the file loses it, so that the next row does not join it. Raise DataError
    for a damaged line before the last.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(path, "r+b") as stream:
            stream.truncate(len(whole))
    return [
        parse_row(f"{path}, line {number}", line)
        for number, line in enumerate(whole.decode("utf-8").split("\n"), 1)
        if line
    ]


_words: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
}


def _names(fields: Fields) -> str:
    return ", ".join(name.rstrip("?") for name in fields)


def parse_row(place: str, line: str) -> Row:
    """Return the object that a line holds; raise DataError when it is none."""
    try:
        row = json.loads(line)
    except ValueError as error:
        # A JSONDecodeError knows the column; a number too long to convert is a plain ValueError.
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{place}: is not JSON ({what}); mend it") from error
    except RecursionError as error:
        raise DataError(f"{place}: is not JSON (nested too deeply); mend it") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: is {type(row).__name__}; write one JSON object a line")
    return row
