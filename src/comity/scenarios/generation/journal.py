"""Every reply of a generation, appended and flushed to the disk as soon as it arrives."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import RunError


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply that came; without usable text `problem` says why."""

    text: str | None
    problem: str = ""


class Journal:
    """The file of replies beside the rows: its first line holds what they were asked with.

    A kill can tear the last line only; it is taken off when the file is opened again.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or create the file; raise RunError when it belongs to another generation or is damaged."""
        self.path = path
        self._turns: dict[int, dict[int, Kept]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.exists() and self._read(header)
        self._file = path.open("a", encoding="utf-8")
        if not begun:
            self._append(header)

    def read_turn(self, turn: int) -> Mapping[int, Kept]:
        """Return the replies of one turn by slot."""
        return self._turns.get(turn, {})

    def has(self, slot: int, turn: int) -> bool:
        """Tell whether a slot has a reply in this turn or in a later one."""
        return any(slot in replies for number, replies in self._turns.items() if number >= turn)

    def add(self, turn: int, slot: int, kept: Kept) -> None:
        """Keep one reply; it is on the disk when this returns."""
        self._append({"turn": turn, "slot": slot, "text": kept.text, "problem": kept.problem})
        self._turns.setdefault(turn, {})[slot] = kept

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, header: Mapping[str, Any]) -> bool:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            entries = [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]
            found = {name: entries[0].get(name) for name in header} if entries else None
            for entry in entries[1:]:
                kept = Kept(entry["text"], entry["problem"])
                self._turns.setdefault(entry["turn"], {})[entry["slot"]] = kept
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path}: is no file of replies ({error}); delete it or give another --out") from error
        for name, value in header.items() if found is not None else ():
            if found is not None and found[name] != value:
                raise RunError(
                    f"{self.path} was begun with {name} {found[name]!r}, now it is {value!r}: "
                    "give what it was begun with, or another --out"
                )
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        return found is not None
