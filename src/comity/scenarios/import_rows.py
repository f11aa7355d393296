"""Rows of another JSONL file as rows of a kind: fields renamed, constants set, ids and splits given where missing."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from comity.errors import ConfigError, DataError
from comity.scenarios.kinds import Kind, check_scenario_row
from comity.scenarios.rows import Row, parse_row, read_lines

SPLIT_SHARES = (("train", 70), ("dev", 10), ("test", 20))
"""Percent of rows without a split that go into each."""


def import_rows(path: Path, kind: Kind, renames: Mapping[str, str], constants: Mapping[str, str]) -> list[Row]:
    """Return the rows of a JSONL file as checked rows of `kind`.

    `renames` maps a field of the kind to the field it is taken from, `constants` a field to a text that every row gets.
    A missing `id` is numbered; a missing `split` follows from a hash of the dilemma, so that it never changes. Fields
    that the kind does not have are kept. Raise DataError naming the first bad row.
    """
    for option, fields in (("--field", renames), ("--set", constants)):
        for name in fields:
            if name not in kind.fields:
                known = ", ".join(kind.fields)
                raise ConfigError(f"{option} {name}={fields[name]}: {kind.name} has no field {name}; it has {known}")
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, line in read_lines(path):
        place = f"{path}, line {number}"
        row = _convert(parse_row(place, line), kind, renames, constants, len(rows) + 1)
        check_scenario_row(kind, row, place)
        if row["id"] in seen:
            raise DataError(f"{place}, field id: {row['id']!r} stands on line {seen[row['id']]} too; rename one")
        seen[row["id"]] = number
        rows.append(row)
    return rows


def _convert(row: Row, kind: Kind, renames: Mapping[str, str], constants: Mapping[str, str], number: int) -> Row:
    taken = {name: row[source] for name, source in renames.items() if source in row}
    rest = {name: value for name, value in row.items() if name not in renames.values()}
    found: Row = {"id": f"{kind.name}-{number:05d}", **rest, **taken, **constants}
    if isinstance(found["id"], int):
        found["id"] = str(found["id"])  # other people's ids are often numbers
    if "split" in kind.fields and "split" not in found and isinstance(found.get(kind.matter), str):
        found["split"] = draw_split(found[kind.matter])
    names = [name for name in kind.fields if name in found]
    return {name: found[name] for name in [*names, *(name for name in found if name not in kind.fields)]}


def draw_split(text: str) -> str:
    """Return the split that a text's hash falls into, in the shares of SPLIT_SHARES."""
    place = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big") % 100
    for split, share in SPLIT_SHARES:
        if place < share:
            return split
        place -= share
    raise AssertionError("the shares add up to 100")
