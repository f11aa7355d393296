"""Read JSONL rows and check every field; a bad row is named by file, line, field and mend."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.errors import DataError

Row = dict[str, Any]
Fields = Mapping[str, type | tuple[str, ...]]
"""Field name to its type, or to the words it may take; a trailing `?` on the name allows null."""


def read_rows(path: Path, fields: Fields, unique: str | None = "id", extra: bool = True) -> list[Row]:
    """Return the rows of a JSONL file; raise DataError at the first bad one.

    `extra=False` refuses fields that are not listed. An empty file is refused.
    """
    try:
        # Not splitlines(), which also splits at characters that JSON texts may hold, such as U+2028.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    rows: list[Row] = []
    seen: dict[Any, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(path, number, line)
        check_row(row, fields, f"{path}, line {number}", extra)
        if unique is not None and row[unique] in seen:
            first = seen[row[unique]]
            raise DataError(
                f"{path}, line {number}, field {unique}: {row[unique]!r} stands on line {first} too; rename one"
            )
        if unique is not None:
            seen[row[unique]] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: has no rows; write one JSON object a line")
    return rows


def check_row(row: Row, fields: Fields, place: str, extra: bool = True) -> None:
    """Raise DataError unless every listed field is there and of its kind."""
    for listed, kind in fields.items():
        name, nullable = listed.rstrip("?"), listed.endswith("?")
        if name not in row:
            raise DataError(f"{place}, field {name}: is missing; the fields are {_names(fields)}")
        value = row[name]
        if value is None and nullable:
            continue
        if isinstance(kind, tuple):
            if value not in kind:
                raise DataError(f"{place}, field {name}: is {value!r}; choose among {', '.join(kind)}")
        elif kind is float and type(value) is int:
            continue  # JSON does not tell 1 from 1.0
        elif not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise DataError(f"{place}, field {name}: is {value!r}; expected {_words[kind]}")
        elif kind is str and not str(value).strip():
            raise DataError(f"{place}, field {name}: is empty; write a text")
    unknown = sorted(set(row) - {name.rstrip("?") for name in fields})
    if unknown and not extra:
        raise DataError(f"{place}, field {unknown[0]}: is unknown; the fields are {_names(fields)}")


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
    return [_parse(path, number, line) for number, line in enumerate(whole.decode("utf-8").split("\n"), 1) if line]


_words: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
}


def _names(fields: Fields) -> str:
    return ", ".join(name.rstrip("?") for name in fields)


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error.msg} at column {error.colno}); mend it") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: is {type(row).__name__}; write one JSON object a line")
    return row
