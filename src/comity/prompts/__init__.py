"""Templates, one file per prompt, filled in one pass with neutralised text, and the parsers of judges' replies.

Whatever a model wrote is hostile: it cannot open or close a tag of a template or a special token of a chat template,
and a reply counts as a verdict only if its first line is exactly one value of the offered scale.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from importlib import resources

_PLACE = re.compile(r"\{([a-z_]+)\}")
_DELIMITERS = str.maketrans({"<": "‹", ">": "›"})


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
    return "\n".join(" ".join(neutralise(line).split()) for line in lines)


def neutralise(text: str) -> str:
    """Make text safe to quote: no control characters, no tag or special-token delimiters (in NFKC)."""
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    # After the removal, which can bring a letter and its accent together.
    return unicodedata.normalize("NFKC", kept).translate(_DELIMITERS).strip()


def parse_agreement(reply: str) -> tuple[bool | None, str]:
    """Read YES or NO from the first line and the reason from the second; None when the first line is neither."""
    first, reason = _split_reply(reply)
    word = first.removesuffix(".").lower()  # not upper(), which turns other letters into these
    return {"yes": True, "no": False}.get(word), reason


def parse_agency(reply: str) -> tuple[float | None, str]:
    """Read a whole number from 0 to 5 from the first line; None when it is anything else."""
    first, reason = _split_reply(reply)
    return (float(first) if re.fullmatch(r"[0-5]", first) else None), reason


def parse_satisfaction(reply: str) -> tuple[float | None, str]:
    """Read a whole number from 0 to 5 from the first line; None when it is anything else."""
    return parse_agency(reply)


def _split_reply(reply: str) -> tuple[str, str]:
    lines = reply.strip().splitlines() or [""]
    return lines[0].strip(), (lines[1].strip() if len(lines) > 1 else "")
