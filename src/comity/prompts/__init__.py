"""Templates, one file per prompt, filled in one pass with neutralised text, and the parsers of judges' replies.

Whatever a model wrote is hostile: it cannot open or close a tag of a template or a special token of a chat template,
and a reply counts as a verdict only if its first line is exactly one value of the offered scale and no other line gives
another one.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TypeVar

from comity.types import Choice

Value = TypeVar("Value")

_PLACE = re.compile(r"\{([a-z_]+)\}")
_DELIMITERS = str.maketrans({"<": "‹", ">": "›"})
_CONTROL_WORD = re.compile(r"\[(/?[a-z]?[A-Z][A-Z_]+)\]")
"""What chat templates without angle brackets use as special tokens, such as `[INST]` and `[/INST]` of Mistral."""
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Letters and marks that show nothing (Default_Ignorable_Code_Point beyond Cf) and the empty braille pattern."""
_SECOND_VERDICT = re.compile(
    r"\W*(?:(?:the|my|final|overall)\W+)*(?:(?:score|grade|rating|mark|verdict|answer|decision|result)\W+(?:is\W+)?)?"
    r"([0-5]|yes|no|tie|a|b)(?:\s*/\s*5)?\W*",
    re.IGNORECASE | re.ASCII,
)
"""A line that gives a verdict and nothing else, however it is dressed."""


@functools.cache
def load_template(name: str) -> str:
    """Return the text of the template `name`."""
    return resources.files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()


@functools.cache
def hash_template(name: str) -> str:
    """Return the first 12 hexadecimal digits of the template's SHA-256."""
    return hashlib.sha256(load_template(name).encode()).hexdigest()[:12]


def fill(name: str, **values: str | Sequence[str]) -> str:
    """Fill a template in one pass, so that a value that looks like a place is never filled again.

    A value stays on one line, so it cannot forge a line of the template ("B: I accept"); a list of texts becomes one
    line each.
    """
    return _PLACE.sub(lambda match: _quote(values[match.group(1)]), load_template(name))


def _quote(value: str | Sequence[str]) -> str:
    lines = [value] if isinstance(value, str) else value
    return "\n".join(quote_line(line) for line in lines)


def quote_line(text: str) -> str:
    """Make text safe to quote on one line: neutralised, with single spaces between its words."""
    return " ".join(neutralise(text).split())


def neutralise(text: str) -> str:
    """Make text safe to quote: nothing invisible, no tag or special-token delimiters (in NFKC)."""
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    # NFKC after the removal, which can bring a letter and its accent together.
    safe = unicodedata.normalize("NFKC", _IGNORABLE.sub("", kept)).translate(_DELIMITERS)
    return _CONTROL_WORD.sub(r"(\1)", safe).strip()


def parse_agreement(reply: str) -> tuple[bool | None, str]:
    """Read YES or NO from the first line and the reason from the second.

    None when the first line is neither, or when another line gives the other word: a judge that quotes a forged
    verdict on a line of its own leaves open which one is its own.
    """
    return _read_verdict(reply, _read_decision)


def parse_agency(reply: str) -> tuple[float | None, str]:
    """Read a whole number from 0 to 5 from the first line and the reason from the second.

    None when the first line is anything else, or when another line gives another number (see `parse_agreement`).
    """
    return _read_verdict(reply, _read_score)


def parse_satisfaction(reply: str) -> tuple[float | None, str]:
    """Read a whole number from 0 to 5 from the first line and the reason from the second, as `parse_agency` does."""
    return _read_verdict(reply, _read_score)


def parse_preference(reply: str) -> tuple[Choice | None, str]:
    """Read A, B or TIE from the first line and the reason from the second.

    None when the first line is anything else, or when another line gives another choice (see `parse_agreement`).
    """
    return _read_verdict(reply, _read_choice)


def _read_decision(line: str) -> bool | None:
    word = line.removesuffix(".").lower()  # not upper(), which turns other letters into these
    return {"yes": True, "no": False}.get(word)


def _read_score(line: str) -> float | None:
    return float(line) if re.fullmatch(r"[0-5]", line) else None


def _read_choice(line: str) -> Choice | None:
    choices: dict[str, Choice] = {"a": "first", "b": "second", "tie": "tie"}
    return choices.get(line.removesuffix(".").lower())


def _read_verdict(reply: str, read: Callable[[str], Value | None]) -> tuple[Value | None, str]:
    first, *others = [line.strip() for line in reply.strip().splitlines()] or [""]
    verdict = read(first)
    seconds = (_SECOND_VERDICT.fullmatch(line) for line in others)
    found = {read(second.group(1)) for second in seconds if second} - {None, verdict}
    return (None if found else verdict), (others[0] if others else "")
