"""A line of a negotiation for the list: where the search words stand, or how it begins."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

LENGTH = 110
BEFORE = 16
"""Letters before the first word that is searched; with more of them a narrow column would not show it."""


def cut_excerpt(row: Mapping[str, Any], words: Sequence[str]) -> list[tuple[str, bool]]:
    """Return pieces of one line, each with whether it is a search word; without words the dilemma's beginning."""
    texts = [str(message.get("text", "")) for message in row["messages"] if isinstance(message, dict)]
    texts = [*texts, str(row.get("completion") or ""), str(row.get("dilemma") or "")]
    pattern = re.compile("|".join(rf"\b{re.escape(word)}" for word in words), re.IGNORECASE) if words else None
    for text in texts if pattern else ():
        found = pattern.search(text) if pattern else None
        if found:
            start = max(0, found.start() - BEFORE)
            if start:
                start = text.find(" ", start, found.start()) + 1 or found.start()  # begin with a whole word
            piece = ("… " if start else "") + " ".join(text[start : start + LENGTH].split())
            return _mark(piece, pattern)
    return _mark(" ".join(str(row.get("dilemma") or "").split())[:LENGTH], None)


def _mark(text: str, pattern: re.Pattern[str] | None) -> list[tuple[str, bool]]:
    if pattern is None:
        return [(text, False)]
    pieces, end = [], 0
    for found in pattern.finditer(text):
        pieces += [(text[end : found.start()], False), (found[0], True)]
        end = found.end()
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]
